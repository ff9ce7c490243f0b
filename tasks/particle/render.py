"""Picture of a particle world."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

AGENT, LANDMARK = "#5959d9", "#404040"


def draw(position: Tensor, radius: float, landmark: Tensor) -> np.ndarray[Any, Any]:
    """One world as ``uint8 [400, 400, 3]``: agents as numbered discs, landmarks as crosses.

    Args:
        position: centres of the agents, ``[n_agents, 2]``.
        radius: radius of an agent.
        landmark: positions of the landmarks, ``[n_landmarks, 2]``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    figure = Figure(figsize=(4, 4), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    agents, landmarks = position.cpu().numpy(), landmark.cpu().numpy()
    far = max(1.0, float(np.abs(agents).max()), float(np.abs(landmarks).max())) + radius
    axes.set(xlim=(-far, far), ylim=(-far, far), xticks=[], yticks=[], aspect="equal")
    for number, (x, y) in enumerate(agents):
        axes.add_patch(Circle((x, y), radius, facecolor=AGENT, edgecolor="black", alpha=0.7))
        axes.text(x, y, str(number), color="white", ha="center", va="center")
    axes.plot(landmarks[:, 0], landmarks[:, 1], "+", color=LANDMARK, markersize=14, mew=3)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
