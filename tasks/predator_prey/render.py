"""Picture of the hunt: predators as discs, the prey as a diamond amid the cells it can be caught from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.predator_prey.board import Board

if TYPE_CHECKING:
    from marl_td.tasks.predator_prey.task import PredatorPreyState

AGENT, DEAD, PREY, NEAR, WALL, LINE = (
    "#2a78b5",
    "#9aa4ae",
    "#e08a1e",
    "#fbe6c8",
    "#4a4f57",
    "#d8d8d8",
)


def draw(board: Board, state: PredatorPreyState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [400, 400, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Rectangle, RegularPolygon

    size = board.open.shape[0]
    prey = state.prey[index]
    figure = Figure(figsize=(4, 4), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.set_xticks(np.arange(size + 1) - 0.5, labels=[])
    axes.set_yticks(np.arange(size + 1) - 0.5, labels=[])
    axes.grid(color=LINE)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for row, column in board.place[board.near[:, prey]].tolist():
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=NEAR, zorder=0))
    for row, column in (~board.open).nonzero().tolist():
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=WALL, zorder=1))
    row, column = board.place[prey].tolist()
    axes.add_patch(RegularPolygon((column, row), 4, radius=0.52, facecolor=PREY, zorder=2))
    places = board.place[state.predator[index]].tolist()
    for number, (row, column) in enumerate(places):
        color = AGENT if bool(state.alive[index, number]) else DEAD
        shift = 0.08 * (places[:number].count([row, column]))
        axes.add_patch(Circle((column + shift, row + shift), 0.34, facecolor=color, zorder=3))
        axes.text(column + shift, row + shift, str(number), color="white", ha="center", va="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
