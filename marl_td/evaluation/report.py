"""The report of a run: the learned policy beside random, classical policies and the optimum."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marl_td.evaluation.baselines import BaselineRow, BaselineTable
from marl_td.evaluation.episode import EpisodeDrawing
from marl_td.evaluation.statistics import Interval, interval_of
from marl_td.training.files import write_atomic
from marl_td.training.metrics import read_metrics

LEARNED = "learned"


@dataclass(frozen=True)
class CurvePoint:
    """Mean score of the training's own evaluation after ``frames`` environment steps."""

    frames: int
    value: float
    low: float
    high: float


@dataclass
class RunReport:
    """All that a report shows.

    ``table`` holds the yardstick, ``learned`` the trained policy's row, ``mean_return`` its mean return.
    """

    table: BaselineTable
    learned: BaselineRow
    mean_return: Interval
    algorithm: str
    frames: int
    train_seconds: float
    episodes: int
    seed: int
    deterministic: bool = True
    curve: list[CurvePoint] = field(default_factory=list)
    drawing: EpisodeDrawing | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; a superset of the table of ``marl-td baselines --json``."""
        name, value = self.table.reference()
        return {
            "algorithm": self.algorithm,
            **self.table.as_dict(),
            "learned": asdict(self.learned),
            "return": self.mean_return._asdict(),
            "normalised_score": self.table.normalised(self.learned.value),
            "reference": {"policy": name, "value": value},
            "episodes": self.episodes,
            "seed": self.seed,
            "deterministic": self.deterministic,
            "frames": self.frames,
            "train_seconds": self.train_seconds,
        }

    def title(self) -> str:
        """One line that says what the numbers are."""
        better = "higher" if self.table.higher_is_better else "lower"
        names = f"{self.algorithm} on {self.table.task}".replace("marl_td/", "")
        return f"{names}: {self.table.unit}, {better} is better"

    def verdict(self) -> str:
        """How the learned policy stands: the best policy it beats, the best one ahead of it, its score.

        One policy is better than another where their intervals do not overlap.
        """
        beaten = [row for row in self.table.rows if self._is_apart(row) and self._gain(row) > 0]
        ahead = [row for row in self.table.rows if self._is_apart(row) and self._gain(row) < 0]
        level = [row.policy for row in self.table.rows if not self._is_apart(row)]
        parts = [f"The learned policy beats {len(beaten)} of {len(self.table.rows)} policies"]
        if beaten:
            best = self.table.best_row(beaten)
            parts.append(f"; the best of these is {best.policy} (by {self._share(best)})")
        if ahead:
            best = self.table.best_row(ahead)
            parts.append(f"; the best one ahead of it is {best.policy} (by {self._share(best)})")
        if level:
            whose = "their" if len(level) == 1 else "the"
            parts.append(
                f"; whether it is better than {' or '.join(level)} is open: {whose} 95 % intervals overlap"
            )
        score = self.table.normalised(self.learned.value)
        if score is not None and self.table.optimum is not None:
            parts.append(
                f". Normalised score: {score:.3f} (0 = random, 1 = {self.table.reference()[0]})"
            )
        return "".join(parts) + "."

    def _is_apart(self, row: BaselineRow) -> bool:
        """Whether the intervals of ``row`` and of the learned policy have no value in common."""
        return row.high < self.learned.low or self.learned.high < row.low

    def _gain(self, row: BaselineRow) -> float:
        """How much better than ``row`` the learned policy is, in the task's unit."""
        gain = self.learned.value - row.value
        return gain if self.table.higher_is_better else -gain

    def _share(self, row: BaselineRow) -> str:
        """The difference to ``row`` in the task's unit, and as a share of its value."""
        gain = abs(self._gain(row))
        share = f", {gain / abs(row.value):.1%}" if row.value else ""
        return f"{gain:.4g}{share}"

    def rows(self) -> list[BaselineRow]:
        """Every row of the table, the learned one last."""
        return [*self.table.rows, self.learned]

    def cells(self) -> list[tuple[str, str, str]]:
        """The table as text: policy, value, 95 % interval; the optimum or bound in the last line."""
        drawn = "" if self.deterministic else ", actions drawn"
        label = f"{LEARNED} ({self.algorithm.removeprefix('marl_td/')}{drawn})"
        return table_cells([*self.table.rows, self.learned], self.table, {LEARNED: label})

    def markdown(self) -> str:
        """The report as Markdown."""
        lines = [f"# {self.title()}", "", "| policy | value | 95 % interval |", "|---|---:|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in self.cells()]
        lines += ["", self.verdict()]
        if self.table.optimum is not None:
            lines += ["", f"Optimum or bound: {self.table.optimum.how}."]
        lines += [
            "",
            f"{self.episodes} evaluation episodes per policy (seed {self.seed}, the same random numbers "
            f"for all); interval: Student's t. Trained on {self.frames} frames in "
            f"{self.train_seconds:.0f} s.",
            "",
            "![report](report.png)",
            "",
        ]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write ``report.md``, ``report.json`` and ``report.png``."""
        from marl_td.evaluation.plots import draw_report

        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "report.md", self.markdown().encode())
        write_atomic(folder / "report.json", json.dumps(self.as_dict(), indent=2).encode())
        draw_report(self, folder / "report.png")


def table_cells(
    rows: list[BaselineRow], table: BaselineTable, labels: dict[str, str] | None = None
) -> list[tuple[str, str, str]]:
    """Rows as text, the optimum or bound last."""
    labels = labels or {}
    cells = [
        (
            labels.get(row.policy, row.policy),
            _number(row.value),
            f"{_number(row.low)} to {_number(row.high)}",
        )
        for row in rows
    ]
    if table.optimum is not None:
        cells.append((table.reference()[0], _number(table.optimum.value), table.optimum.kind))
    return cells


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def training_curve(metrics_file: Path) -> list[CurvePoint]:
    """The evaluations in a run's ``metrics.csv``: scores where the task has them, returns otherwise."""
    rows = read_metrics(metrics_file)
    points = []
    for row in rows:
        key = "eval/score" if row.get("eval/score_mean") else "eval/reward/episode_reward"
        if not row.get(f"{key}_mean"):
            continue
        mean, std = float(row[f"{key}_mean"]), float(row[f"{key}_std"])
        n = int(float(row["eval/episodes"]))
        interval = interval_of(mean, std, n) if n > 1 else Interval(mean, mean, mean)
        points.append(CurvePoint(int(float(row["counters/total_frames"])), *interval))
    return points


def totals_of(metrics_file: Path) -> tuple[int, float]:
    """Frames and seconds of a run so far."""
    last = read_metrics(metrics_file)[-1]
    return int(float(last["counters/total_frames"])), float(last["timers/total_time"])
