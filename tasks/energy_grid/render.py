"""Picture of the grid: buses and lines with their loading, and what every generator makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.energy_grid.dispatch import marginal_cost
from marl_td.tasks.energy_grid.params import EnergyGridParams

if TYPE_CHECKING:
    from marl_td.tasks.energy_grid.task import EnergyGrid, GridState

INK, PALE, GRID = "#2c3440", "#dfe3e8", "#e9ecef"
FREE, BUSY, OVER = "#5a9a3c", "#e08a1e", "#c9302c"
MOST_NAMED, MOST_BUSES = 25, 12
"""Generators and buses up to which each gets a label."""


def draw(task: EnergyGrid, state: GridState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [420, 840, 3]``.

    Left: buses in a ring, blue if they feed in and grey if they take, and lines: green, orange from 90 % of
    their limit, red above it. Right: outputs of the generators between 0 and their capacity, the cheapest
    on top, with their marginal costs.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    row = {name: value[index].cpu().numpy() for name, value in state._asdict().items()}
    _network(figure.add_axes((0.0, 0.0, 0.46, 0.88)), task, row)
    _generators(figure.add_axes((0.55, 0.1, 0.42, 0.76)), task, state, index)
    figure.text(0.5, 0.93, _header(task.params, row), ha="center", color=INK, fontsize=10)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _header(params: EnergyGridParams, row: dict[str, Any]) -> str:
    minutes = round(int(row["step"]) * params.dt * 60) % 1440
    made, taken = float(row["power"].sum()), float(row["net_load"].sum())
    storage = f"stored {float(row['charge'].sum()):.0f} MWh   " if params.n_storage > 0 else ""
    text = f"{minutes // 60:02d}:{minutes % 60:02d}   load - wind {taken:.0f} MW   "
    return (
        text + storage + f"generation {made:.0f} MW   frequency {float(row['frequency']):+.2f} Hz"
    )


def _network(axes: Any, task: EnergyGrid, row: dict[str, Any]) -> None:
    n_buses = task.params.n_buses
    angle = np.pi / 2 - 2 * np.pi * np.arange(n_buses) / n_buses
    place = np.stack([np.cos(angle), np.sin(angle)], 1)
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
    axes.axis("off")
    limit = task.reference.limit.cpu().numpy()
    load = np.abs(row["flow"]) / limit
    named = n_buses <= MOST_BUSES
    for line, (a, b) in enumerate(task.grid.ends.tolist()):
        start, end = (place[a], place[b]) if row["flow"][line] >= 0 else (place[b], place[a])
        colour = OVER if load[line] > 1.0 else BUSY if load[line] > 0.9 else FREE
        width = 1.0 + 2.5 * min(float(load[line]), 1.5)
        axes.plot(*np.stack([start, end], 1), color=colour, lw=width, zorder=1)
        middle = 0.5 * (start + end)
        ahead = middle + 0.01 * (end - start)
        arrow = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 16}
        axes.annotate("", ahead, middle, arrowprops=arrow, zorder=2)
        if named:
            at = start + 0.36 * (end - start)
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
            text = f"{100 * load[line]:.0f} %"
            axes.text(*at, text, color=colour, fontsize=8, ha="center", va="center", bbox=box)
    feed = row["power"] @ task.grid.at_bus.cpu().numpy() - row["net_load"]
    feed = feed + row["fed"] @ task.grid.storage_bus.cpu().numpy()
    for bus, (x, y) in enumerate(place):
        colour = "#2a78b5" if feed[bus] > 0 else "#7b8490"
        axes.plot(x, y, "o", markersize=30 if named else 8, color=colour, zorder=3)
        if named:
            number = f"{feed[bus]:+.0f}"
            axes.text(x, y, number, color="white", fontsize=8, ha="center", va="center", zorder=4)
    if named:
        axes.text(0, -1.36, "buses: MW fed in (+) or taken (-)", fontsize=8, color=INK, ha="center")


def _generators(axes: Any, task: EnergyGrid, state: GridState, index: int) -> None:
    grid, power = task.grid, state.power[index]
    cost = marginal_cost(grid, power)
    order = grid.linear.argsort().cpu()
    made, most = power.cpu()[order].numpy(), grid.most.cpu()[order].numpy()
    alive, cost = state.alive[index].cpu()[order].numpy(), cost.cpu()[order]
    n = len(made)
    axes.barh(range(n), most, 0.8, color=PALE)
    colours = [_cost_colour(float(value)) for value in cost]
    axes.barh(range(n), made, 0.8, color=colours)
    axes.set(ylim=(n - 0.4, -0.6), xlim=(0, 1.22 * most.max()))
    axes.set_xlabel("output and capacity (MW)", fontsize=9, color=INK)
    axes.set_title("generators and their marginal costs", fontsize=9, color=INK)
    if n <= MOST_NAMED:
        axes.set_yticks(range(n), labels=[f"{int(i) + 1}" for i in order], fontsize=8)
        for place, (capacity, here, value) in enumerate(zip(most, alive, cost, strict=True)):
            text = f"\\${value:.0f} / MWh" if here else "failed"
            axes.text(capacity + 2, place, text, fontsize=8, va="center", color=INK)
    else:
        axes.set_yticks([])
    axes.tick_params(length=0, labelsize=8, colors=INK)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_color(GRID)


def _cost_colour(cost: float) -> tuple[float, float, float]:
    """From blue (10 $ / MWh) to red (55)."""
    share = min(max((cost - 10.0) / 45.0, 0.0), 1.0)
    low, high = np.array([0.16, 0.47, 0.71]), np.array([0.79, 0.28, 0.17])
    red, green, blue = low + share * (high - low)
    return float(red), float(green), float(blue)
