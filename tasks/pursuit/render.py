"""Picture of the hunt: predators as numbered discs, prey as diamonds."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

AGENT, PREY, LINE = "#2a78b5", "#e08a1e", "#d0d0d0"


def draw(
    size: int, agent: Tensor, prey: Tensor, agent_here: Tensor, prey_here: Tensor
) -> np.ndarray[Any, Any]:
    """One board as ``uint8 [400, 400, 3]``.

    Args:
        size: cells along a side.
        agent: row and column of the agents, ``[n_agents, 2]``.
        prey: row and column of the prey, ``[n_prey, 2]``.
        agent_here: agents that are on the board, ``[n_agents]`` bool.
        prey_here: prey that are, ``[n_prey]`` bool.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, RegularPolygon

    figure = Figure(figsize=(4, 4), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.set_xticks(np.arange(size + 1) - 0.5, labels=[])
    axes.set_yticks(np.arange(size + 1) - 0.5, labels=[])
    axes.grid(color=LINE)
    axes.tick_params(length=0)
    for (row, column), here in zip(prey.tolist(), prey_here.tolist(), strict=True):
        if here:
            axes.add_patch(RegularPolygon((column, row), 4, radius=0.4, facecolor=PREY))
    for number, (row, column) in enumerate(agent.tolist()):
        if agent_here[number]:
            axes.add_patch(Circle((column, row), 0.38, facecolor=AGENT))
            axes.text(column, row, str(number), color="white", ha="center", va="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
