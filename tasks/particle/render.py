"""Picture of a particle world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

BLUE, RED, GREEN, GREY = "#5959d9", "#d95959", "#4ca64c", "#404040"


class Discs(NamedTuple):
    """Bodies ``centre`` ``[n, 2]`` of one radius; numbered ones are agents."""

    centre: Tensor
    radius: float
    colour: str = BLUE
    numbered: bool = True


class Marks(NamedTuple):
    """Landmarks at ``place`` ``[n, 2]``, drawn as crosses."""

    place: Tensor
    colour: str = GREY


def draw(discs: Sequence[Discs], marks: Sequence[Marks], words: str = "") -> np.ndarray[Any, Any]:
    """One world as ``uint8 [400, 400, 3]``, with ``words`` in its upper left corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    figure = Figure(figsize=(4, 4), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    reach = [1.0]
    for disc in discs:
        centre = disc.centre.cpu().numpy()
        reach.append(float(np.abs(centre).max(initial=0.0)) + disc.radius)
        for number, (x, y) in enumerate(centre):
            axes.add_patch(
                Circle((x, y), disc.radius, facecolor=disc.colour, edgecolor="black", alpha=0.7)
            )
            if disc.numbered:
                axes.text(x, y, str(number), color="white", ha="center", va="center")
    for mark in marks:
        place = mark.place.cpu().numpy()
        reach.append(float(np.abs(place).max(initial=0.0)))
        axes.plot(place[:, 0], place[:, 1], "+", color=mark.colour, markersize=14, mew=3)
    far = 1.05 * max(reach)
    axes.set(xlim=(-far, far), ylim=(-far, far), xticks=[], yticks=[], aspect="equal")
    axes.text(0.02, 0.97, words, transform=axes.transAxes, va="top")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
