"""Picture of a court: paddles, the ball with the way it came, points and the ball's speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.pong.params import PongParams

if TYPE_CHECKING:
    from marl_td.tasks.pong.task import PongState

SIZE, MARGIN, HEADER, OVERSAMPLING = 360, 20, 34, 2
COURT, LINE, INK = (24, 32, 44), (70, 84, 102), (222, 228, 236)
SIDES = ((78, 168, 222), (240, 160, 70))
DEAD, BALL = (90, 96, 104), (255, 255, 255)
TRAIL = 6
"""Earlier places of the ball that are drawn, each one step back."""


def draw(params: PongParams, state: PongState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` of ``state`` as ``uint8 [414, 400, 3]``."""
    from PIL import Image, ImageDraw, ImageFont

    scale = OVERSAMPLING
    width, height = SIZE + 2 * MARGIN, SIZE + MARGIN + HEADER
    image = Image.new("RGB", (width * scale, height * scale), COURT)
    canvas = ImageDraw.Draw(image)
    row = {name: value[index].cpu().numpy() for name, value in state._asdict().items()}

    def at(x: float, y: float) -> tuple[float, float]:
        return (MARGIN + x * SIZE) * scale, (HEADER + (1.0 - y) * SIZE) * scale

    def disc(x: float, y: float, radius: float, fill: Any) -> None:
        (column, line), r = at(x, y), radius * scale
        canvas.ellipse((column - r, line - r, column + r, line + r), fill)

    canvas.rectangle((*at(0.0, 1.0), *at(1.0, 0.0)), outline=LINE, width=2 * scale)
    for part in range(0, 20, 2):
        canvas.line((*at(0.5, part / 20), *at(0.5, (part + 1) / 20)), LINE, scale)
    for side, colour in enumerate(SIDES):
        for middle, alive in zip(row["paddle"][side], row["alive"][side], strict=True):
            x, _ = at(float(side), 0.0)
            top, bottom = (at(0.0, middle + sign * params.half_length)[1] for sign in (1, -1))
            corners = (x - 5 * scale, top, x + 5 * scale, bottom)
            canvas.rounded_rectangle(corners, 4 * scale, colour if alive else DEAD)
    (x, y), (vx, vy) = row["position"], row["velocity"]
    for back in range(TRAIL, 0, -1):
        if 0.0 <= x - back * vx <= 1.0:
            fade = 1.0 - back / (TRAIL + 1)
            before = abs((y - back * vy + 1.0) % 2.0 - 1.0)
            grey = tuple(int(c + (b - c) * fade * 0.6) for c, b in zip(COURT, BALL, strict=True))
            disc(x - back * vx, before, 5 * fade + 1, grey)
    disc(x, y, 6.0, BALL)

    font = ImageFont.load_default(15 * scale)
    speed = float(np.hypot(vx, vy))
    left, right = row["points"].astype(int)
    middle_line = HEADER / 2 * scale
    words = f"{int(row['hits'])} hits   speed {speed:.3f}"
    canvas.text((width / 2 * scale, middle_line), words, INK, font, anchor="mm")
    canvas.text((MARGIN * scale, middle_line), f"{left}", SIDES[0], font, anchor="lm")
    canvas.text(((width - MARGIN) * scale, middle_line), f"{right}", SIDES[1], font, anchor="rm")
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
