"""What the benchmark commands share: short CPU runs in unchanged BenchMARL, evaluation, result files."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDictBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

RESULTS = Path(__file__).parent / "results"


def settings(**overrides: Any) -> ExperimentConfig:
    """BenchMARL's experiment defaults for a short CPU run that writes nothing, with ``overrides``."""
    config = ExperimentConfig.get_from_yaml()
    quiet = {"loggers": [], "create_json": False, "render": False, "evaluation": False}
    for key, value in {**quiet, "max_n_iters": None, **overrides}.items():
        if not hasattr(config, key):
            raise ValueError(f"BenchMARL's ExperimentConfig has no field '{key}'.")
        setattr(config, key, value)
    return config


def everything_on(device: str) -> dict[str, str]:
    """Settings that put environments, networks and replay on one device."""
    return {f"{what}_device": device for what in ("sampling", "train", "buffer")}


def mlp(*num_cells: int, activation: type[torch.nn.Module] = torch.nn.Tanh) -> MlpConfig:
    """Networks with the given hidden sizes."""
    return MlpConfig(
        num_cells=list(num_cells), activation_class=activation, layer_class=torch.nn.Linear
    )


@dataclass
class Curve(Callback):
    """Training return per iteration: mean over finished episodes of the reward sum over all agents."""

    frames: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Record the episodes that ended in this batch."""
        done = batch["next", "done"].squeeze(-1)
        if bool(done.any()):
            groups = self.experiment.group_map
            total = sum(batch["next", g, "episode_reward"].sum((-2, -1)) for g in groups)
            self.frames.append(self.experiment.total_frames)
            self.returns.append(total[done].mean().item())


@dataclass
class Run:
    """One finished training run."""

    experiment: Experiment
    curve: Curve
    seconds: float


def train(
    task: Any,
    algorithm_config: Any,
    seed: int,
    config: ExperimentConfig,
    model: Any = None,
    critic_model: Any = None,
) -> Run:
    """Train once and return the experiment with its curve."""
    curve = Curve()
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        experiment = Experiment(
            task=task,
            algorithm_config=algorithm_config,
            model_config=model or mlp(64, 64),
            critic_model_config=critic_model,
            seed=seed,
            config=config,
            callbacks=[curve],
        )
        start = time.perf_counter()
        experiment.run()
        return Run(experiment, curve, time.perf_counter() - start)


@torch.no_grad()
def episode_returns(
    env: Any, policy: Any, max_steps: int, deterministic: bool = True
) -> torch.Tensor:
    """Return of the first episode of each copy, summed over all agents and steps, ``[n_envs]``."""
    kind = ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM
    with set_exploration_type(kind):
        rollout = env.rollout(max_steps, policy, break_when_any_done=False)
    done = rollout["next", "done"].squeeze(-1)
    running = done.cumsum(1) - done.long() == 0
    reward = sum(rollout["next", g, "reward"].sum((-2, -1)) for g in env.group_map)
    return (reward * running).sum(1)


def parsed(items: Iterable[str]) -> dict[str, Any]:
    """Settings written as ``name=value``: numbers, true and false, or text."""
    return {key: _value(value) for key, value in (item.split("=", 1) for item in items)}


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def write_csv(name: str, rows: Iterable[dict[str, Any]]) -> Path:
    """Write ``rows`` to ``benchmarks/results/<name>.csv``."""
    rows = list(rows)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of earlier runs."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def key(row: dict[str, Any], columns: Iterable[str]) -> tuple[str, ...]:
    """What makes two rows the same cell."""
    return tuple(str(row[name]) for name in columns)


def put(name: str, new: dict[str, Any], columns: Iterable[str]) -> list[dict[str, Any]]:
    """Write a row into `<name>.csv` and `.md`, in the place of an older one of the same cell; all rows."""
    columns = list(columns)
    rows = {key(old, columns): old for old in read_rows(RESULTS / f"{name}.csv")}
    rows[key(new, columns)] = new
    path = write_csv(name, rows.values())
    path.with_suffix(".md").write_text(markdown(list(rows.values())) + "\n")
    return list(rows.values())


def append(path: Path, row: dict[str, Any]) -> None:
    """Write one more row, after the header in a new file."""
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def markdown(rows: list[dict[str, Any]]) -> str:
    """``rows`` as a Markdown table; a row may lack columns of the first."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row.get(key, "-")) for key in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot_curves(
    path: Path, curves: dict[str, Curve], lines: dict[str, float], title: str, unit: str
) -> None:
    """Draw training curves with horizontal reference lines into ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for label, curve in curves.items():
        axes.plot(curve.frames, curve.returns, label=label, linewidth=1)
    for number, (label, value) in enumerate(lines.items()):
        axes.axhline(value, linestyle="--", color=f"C{7 - number}", label=f"{label} {value:g}")
    axes.set(title=title, xlabel="environment steps", ylabel=unit)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
