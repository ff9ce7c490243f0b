"""The picture of a report: values with intervals, the training curve, one episode. No display is needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from marl_td.training.files import write_atomic

if TYPE_CHECKING:
    from marl_td.evaluation.baselines import BaselineTable
    from marl_td.evaluation.report import RunReport

LEARNED_COLOUR = "#c2410c"
BASELINE_COLOUR = "#475569"
OPTIMUM_COLOUR = "#15803d"
LINE_STYLES = ("--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
MAX_SERIES = 4
"""Panels of the episode at most."""
MAX_STEPS_DRAWN = 400
"""Steps of the episode in a panel at most; more would blur."""
N_LINES = 3
"""Baselines drawn into the training curve: the best ones."""


def draw_report(report: RunReport, path: Path) -> None:
    """Write the whole picture as PNG."""
    series = list((report.drawing.series if report.drawing else {}).items())[:MAX_SERIES]
    picture = report.drawing.picture if report.drawing else None
    n_panels = len(series) + (picture is not None)
    n_rows = 1 + -(-n_panels // 2)
    top = max(4.4, 1.4 + 0.34 * (len(report.rows()) + 1))
    figure = Figure(figsize=(14, top + 3.2 * (n_rows - 1)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(n_rows, 2, height_ratios=[top] + [3.2] * (n_rows - 1))
    figure.suptitle(report.title(), fontsize=13, fontweight="bold")
    _draw_values(figure.add_subplot(grid[0, 0]), report)
    _draw_curve(figure.add_subplot(grid[0, 1]), report)
    for index, (label, lines) in enumerate(series):
        _draw_series(figure.add_subplot(grid[1 + index // 2, index % 2]), label, lines)
    if picture is not None:
        axes = figure.add_subplot(grid[1 + len(series) // 2, len(series) % 2])
        axes.imshow(picture)
        axes.set_axis_off()
        axes.set_title("middle of that episode", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())


def _draw_values(axes: Any, report: RunReport) -> None:
    """The table as a chart: a bar with its interval per policy, the numbers beside it."""
    rows = report.rows()
    optimum = report.table.optimum
    for index, row in enumerate(rows):
        learned = row is report.learned
        colour = LEARNED_COLOUR if learned else BASELINE_COLOUR
        axes.barh(index, row.value, color=colour, alpha=0.9 if learned else 0.5, height=0.62)
        axes.plot([row.low, row.high], [index, index], color="black", lw=1.5)
    if optimum is not None:
        axes.barh(len(rows), optimum.value, color=OPTIMUM_COLOUR, alpha=0.7, height=0.62)
        axes.axvline(optimum.value, color=OPTIMUM_COLOUR, lw=0.8, ls="--")
    cut = _limit_axis(axes, report)
    cells = report.cells()
    for index, (_, value, interval) in enumerate(cells):
        arrow = "\u2192 " if index < len(rows) and rows[index].policy in cut else ""
        place = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9}
        axes.annotate(f"{arrow}{value}", (1.02, index), fontweight="bold", **place)
        axes.annotate(interval, (1.17, index), color="0.35", **place)
    axes.set_yticks(range(len(cells)), [cell[0] for cell in cells], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(report.table.unit)
    axes.set_title(f"{report.episodes} evaluation episodes each, 95 % intervals", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _limit_axis(axes: Any, report: RunReport) -> set[str]:
    """Cut the axis where one policy (as a rule the random one) is far off; returns who is cut.

    Where most values are 0 there is nothing to measure "far" by, and the axis stays whole.
    """
    values = sorted(abs(row.value) for row in report.rows())
    limit = 2.5 * values[len(values) // 2]
    off = {row.policy for row in report.rows() if abs(row.value) > limit}
    if limit > 0 and off and min(row.value for row in report.rows()) >= 0:
        axes.set_xlim(0, limit)
        return off
    return set()


def _draw_curve(axes: Any, report: RunReport) -> None:
    """The training's own evaluations against the best baselines and the optimum."""
    table = report.table
    curve = report.curve
    frames = [point.frames for point in curve]
    axes.fill_between(
        frames,
        [point.low for point in curve],
        [point.high for point in curve],
        color=LEARNED_COLOUR,
        alpha=0.2,
        lw=0,
    )
    values = [point.value for point in curve]
    axes.plot(frames, values, color=LEARNED_COLOUR, lw=2, label=report.algorithm)
    lines = reference_lines(table)
    for style, (name, value, colour) in zip(LINE_STYLES, lines, strict=False):
        axes.axhline(value, color=colour, ls=style, lw=1.3, label=f"{name}: {value:.4g}")
    _zoom(axes, values, [value for _, value, _ in lines], table.higher_is_better)
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(table.unit)
    axes.set_title("training (evaluations on the way, 95 % intervals)", fontsize=10)
    axes.legend(fontsize=8, framealpha=0.9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def reference_lines(table: BaselineTable) -> list[tuple[str, float, str]]:
    """Name, value and colour of the horizontal lines: the best baselines, then the optimum."""
    order = sorted(table.rows, key=lambda row: row.value, reverse=table.higher_is_better)
    lines = [(row.policy, row.value, BASELINE_COLOUR) for row in order[:N_LINES]]
    if table.optimum is not None:
        lines.append((table.reference()[0], table.optimum.value, OPTIMUM_COLOUR))
    return lines


def _zoom(axes: Any, values: list[float], lines: list[float], higher: bool) -> None:
    """Show where it is decided: the first, untrained evaluations may lie outside."""
    if not values:
        return
    late = values[len(values) // 4 :]
    low, high = min([*late, *lines]), max([*late, *lines])
    room = 0.12 * (high - low or 1.0)
    bottom, top = low - room, high + room
    span = top - bottom
    if higher:
        bottom = max(bottom - 0.5 * span, min([*values, *lines]) - room)
    else:
        top = min(top + 0.5 * span, max([*values, *lines]) + room)
    axes.set_ylim(bottom, top)


def _draw_series(axes: Any, label: str, lines: Any) -> None:
    """One quantity of the episode over its steps (the middle of a long one), one line per column."""
    start = max(0, (len(lines) - MAX_STEPS_DRAWN) // 2)
    shown = lines[start : start + MAX_STEPS_DRAWN].numpy()
    for index in range(shown.shape[-1]):
        name = str(index + 1) if shown.shape[-1] > 1 else None
        axes.plot(range(start, start + len(shown)), shown[:, index], lw=1.2, label=name)
    axes.set_title(f"one episode of the learned policy: {label}", fontsize=10)
    axes.set_xlabel("step")
    if 1 < lines.shape[-1] <= 8:
        axes.legend(fontsize=7, ncols=lines.shape[-1], loc="upper right")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
