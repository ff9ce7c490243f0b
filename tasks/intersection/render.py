"""Picture of the junction from above, with the vehicles as boxes on their paths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.intersection.dynamics import collided
from marl_td.tasks.intersection.paths import HALF, LANE, LENGTH, SPACING, WIDTH

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

    from marl_td.tasks.intersection.dynamics import IntersectionState
    from marl_td.tasks.intersection.task import Intersection

SIZE, HEADER, OVERSAMPLING, SHOWN = 560, 26, 2, 66.0
"""Picture in pixels, and how far it reaches from the middle, in m."""
GROUND, ROAD, LINE, INK = (222, 232, 216), (120, 124, 132), (245, 245, 245), (44, 52, 64)
FREE, COMMITTED, CRASH, DEAD = (42, 120, 181), (46, 150, 96), (205, 50, 50), (40, 40, 40)
SLOW = 1.0
"""Below this speed in m/s the rear lights are on."""


def draw(task: Intersection, state: IntersectionState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` of ``state`` as ``uint8 [586, 560, 3]``.

    Blue vehicles can still stop before the line, green ones are committed, red ones have collided, black ones
    follow nobody; numbers are speeds in m/s. A line shows the way through the junction.
    """
    from PIL import Image, ImageDraw, ImageFont

    side, top = SIZE * OVERSAMPLING, HEADER * OVERSAMPLING
    image = Image.new("RGB", (side, side + top), GROUND)
    canvas = ImageDraw.Draw(image)
    _roads(canvas)
    points = task.paths.points.tolist()
    crashed = collided(task.paths, state)[index].tolist()
    fields = (state.s, state.v, state.movement, state.active, state.committed, state.works)
    rows = zip(*(field[index].tolist() for field in fields), crashed, strict=True)
    vehicles = [row for row in rows if row[3]]
    line = round(task.params.approach / SPACING)
    for s, _, movement, *_ in vehicles:
        ahead = points[movement][max(round(s / SPACING), line - 40) :: 4]
        canvas.line([_at(x, y) for x, y, _ in ahead], LINE, OVERSAMPLING, joint="curve")
    for s, v, movement, _, committed, works, crash in vehicles:
        place = points[movement][min(round(s / SPACING), len(points[movement]) - 1)]
        colour = CRASH if crash else DEAD if not works else COMMITTED if committed else FREE
        _vehicle(canvas, place, v, colour)
    seconds, left = int(state.step[index]) * task.params.dt, int(state.done[index].sum())
    text = f"{seconds:.1f} s   {len(vehicles)} on the road   {left} of {len(crashed)} have left"
    title = ImageFont.load_default(14 * OVERSAMPLING)
    colour = CRASH if any(crashed) else INK
    canvas.text((side / 2, top / 2), text + "   COLLISION" * any(crashed), colour, title, "mm")
    return np.asarray(image.resize((SIZE, SIZE + HEADER), Image.Resampling.BOX))


def _at(x: float, y: float) -> tuple[float, float]:
    """Pixel of a place in m, y upwards."""
    side, top = SIZE * OVERSAMPLING, HEADER * OVERSAMPLING
    unit = side / (2 * SHOWN)
    return side / 2 + x * unit, top + side / 2 - y * unit


def _roads(canvas: ImageDraw) -> None:
    for x, y in ((LANE, SHOWN), (SHOWN, LANE), (HALF, HALF)):
        canvas.rectangle((*_at(-x, y), *_at(x, -y)), ROAD)
    for k in range(round((SHOWN - HALF) / 3)):  # the middle of the roads
        a, b = HALF + 3 * k, HALF + 3 * k + 1.5
        for x0, y0, x1, y1 in ((a, 0, b, 0), (-b, 0, -a, 0), (0, a, 0, b), (0, -b, 0, -a)):
            canvas.line((*_at(x0, y0), *_at(x1, y1)), LINE, OVERSAMPLING)
    for x0, y0, x1, y1 in ((0, -HALF, LANE, -HALF), (-LANE, HALF, 0, HALF)):
        canvas.line((*_at(x0, y0), *_at(x1, y1)), LINE, 3 * OVERSAMPLING)
        canvas.line((*_at(y0, -x0), *_at(y1, -x1)), LINE, 3 * OVERSAMPLING)


def _vehicle(canvas: ImageDraw, place: list[float], v: float, colour: Any) -> None:
    from PIL import ImageFont

    x, y, heading = place
    c, q, half = math.cos(heading), math.sin(heading), WIDTH / 2
    corners = ((0.0, -half), (0.0, half), (-LENGTH, half), (-LENGTH, -half))
    outline = [
        _at(x + c * along - q * aside, y + q * along + c * aside) for along, aside in corners
    ]
    canvas.polygon(outline, colour)
    if v < SLOW:
        canvas.line((outline[2], outline[3]), CRASH, 2 * OVERSAMPLING)
    middle = _at(x - c * LENGTH / 2, y - q * LENGTH / 2)
    font = ImageFont.load_default(8 * OVERSAMPLING)
    canvas.text(middle, f"{v:.0f}", LINE, font, anchor="mm")
