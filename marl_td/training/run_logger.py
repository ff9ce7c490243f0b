"""BenchMARL's logger with the run's own ``metrics.csv`` beside the trackers that were asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from benchmarl.experiment.logger import Logger
from tensordict import TensorDictBase

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

    def commit(self) -> None:
        """Write the iteration's row."""
        if self.row:
            first = {key: value for key, value in self.row.items() if key.startswith("counters/")}
            self.metrics.write({**first, **self.row})
        self.row = {}
        super().commit()
