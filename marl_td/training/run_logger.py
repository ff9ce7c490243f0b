"""BenchMARL's logger with the run's own ``metrics.csv`` beside the trackers that were asked for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from benchmarl.experiment.logger import JsonWriter, Logger
from tensordict import TensorDictBase
from torchrl.record.loggers.tensorboard import TensorboardLogger

from marl_td.training.files import flush_file, write_atomic
from marl_td.training.metrics import MetricsFile


class RunLogger(Logger):
    """Collects what an iteration logs and writes it as one row of ``metrics.csv``.

    Args:
        path: the metrics file.
        kwargs: of BenchMARL's logger.
    """

    def __init__(self, path: Path, **kwargs: Any) -> None:
        self.metrics = MetricsFile(path)
        self.row: dict[str, float] = {}
        super().__init__(**kwargs)
        writer: Any = self.json_writer
        self.json_writer: EvaluationFile | None = writer and EvaluationFile(writer)

    def log(self, dict_to_log: dict[str, float], step: int | None = None) -> None:
        """Add values to the iteration's row and hand them to the trackers."""
        self.row.update(dict_to_log)
        super().log(dict_to_log, step=step)

    def log_collection(self, *args: Any, **kwargs: Any) -> float:
        """BenchMARL's, without its warning when no episode ended (episodes may outlast an iteration)."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No episode terminated this iteration")
            return float(super().log_collection(*args, **kwargs))

    def log_training(self, group: str, training_td: TensorDictBase, step: int) -> None:
        """Log the iteration's mean losses of ``group``."""
        means = {key: value.float().mean().item() for key, value in training_td.items()}
        self.log({f"train/{group}/{key}": value for key, value in means.items()}, step=step)

    def write_json(self, episodes: Any, total_frames: int) -> None:
        """Add an evaluation to the marl-eval JSON file, where ``create_json`` asks for it."""
        if self.json_writer is not None:
            groups = {f"{name}_return": value for name, value in episodes.group_return.items()}
            self.json_writer.write(
                metrics={**groups, "return": episodes.totals["return"]},
                total_frames=total_frames,
                evaluation_step=total_frames // self.experiment_config.evaluation_interval,
            )

    def flush(self) -> None:
        """Wait until the rows so far are on the disk: no checkpoint may be ahead of them."""
        flush_file(self.metrics.path)

    def keep_before(self, iteration: int, total_frames: int) -> None:
        """Forget what was logged after a checkpoint; a resumed run logs it again.

        Args:
            iteration: the first that is done again.
            total_frames: frames collected before it.
        """
        self.metrics.keep_before(iteration)
        if self.json_writer is not None:
            self.json_writer.keep_until(total_frames)
        for path in self.metrics.path.parent.glob("*/scalars/*.csv"):  # TorchRL's CSV logger
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and _step(line) < iteration]
            write_atomic(path, "".join(kept).encode())
        for logger in self.loggers:
            if isinstance(logger, TensorboardLogger):
                _purge(logger, iteration)

    def commit(self) -> None:
        """Write the iteration's row."""
        if self.row:
            first = {key: value for key, value in self.row.items() if key.startswith("counters/")}
            self.metrics.write({**first, **self.row})
        self.row = {}
        super().commit()


class EvaluationFile(JsonWriter):
    """BenchMARL's writer of marl-eval's JSON, whose file is whole at any time and goes on after a resume.

    Args:
        like: BenchMARL's own, whose file and names are used.
    """

    def __init__(self, like: JsonWriter) -> None:
        self.path = like.path
        self.run_data = like.run_data
        self.data = like.data

    def write(self, total_frames: int, metrics: dict[str, Any], evaluation_step: int) -> None:
        """Add an evaluation; the absolute metrics are the largest so far, as in BenchMARL."""
        values = {name: value.tolist() for name, value in metrics.items()}
        step = self.run_data.setdefault(f"step_{evaluation_step}", {})
        step.update({"step_count": total_frames, **values})
        self._save()

    def keep_until(self, total_frames: int) -> None:
        """Take over the evaluations in the file up to and with ``total_frames``."""
        if not self.path.is_file():
            return
        found = json.loads(self.path.read_text(encoding="utf-8"))
        # Environment, task, algorithm, seed: one of each, which an older version may have called otherwise.
        for _ in range(4):
            found = next(iter(found.values()), {})
        for name, step in found.items():
            if name != "absolute_metrics" and step["step_count"] <= total_frames:
                self.run_data[name] = step
        self._save()

    def _save(self) -> None:
        steps = [step for name, step in self.run_data.items() if name != "absolute_metrics"]
        names = dict.fromkeys(name for step in steps for name in step if name != "step_count")
        self.run_data["absolute_metrics"] = {
            name: [max(max(step[name]) for step in steps if step.get(name))] for name in names
        }
        write_atomic(self.path, json.dumps(self.data, indent=4).encode())


def _purge(logger: TensorboardLogger, step: int) -> None:
    """Let TensorBoard hide what earlier files of the run hold from ``step`` on: a run that died wrote it."""
    from torch.utils.tensorboard import SummaryWriter

    logger.experiment.close()
    logger.experiment = SummaryWriter(log_dir=logger.log_dir, purge_step=step)


def _step(line: str) -> float:
    return float(line.partition(",")[0])
