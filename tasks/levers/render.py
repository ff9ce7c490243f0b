"""Picture of one round: who was drawn, and which levers they pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from marl_td.tasks.levers.task import LeversState

SCALE, SLOT, HEIGHT, MARGIN = 2, 84, 260, 30
AGENT_Y, LEVER_Y = 74, 206
INK, PALE, AGENT, DEAD = (44, 52, 64), (168, 174, 184), (42, 120, 181), (205, 208, 214)
GOOD, CLASH, UNUSED = (60, 150, 80), (205, 60, 60), (222, 225, 230)


def draw(state: LeversState, index: int = 0) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [260, width, 3]``: agents above, levers below.

    A lever is green if one agent pulled it, red if several did, and grey if nobody did.
    """
    from PIL import Image, ImageDraw, ImageFont

    numbers, pulled = state.id[index].tolist(), state.pulled[index].tolist()
    alive = state.alive[index].tolist()
    width = len(numbers) * SLOT + 2 * MARGIN
    image = Image.new("RGB", (width * SCALE, HEIGHT * SCALE), (250, 250, 252))
    target = ImageDraw.Draw(image)
    middle = [MARGIN + (place + 0.5) * SLOT for place in range(len(numbers))]

    def text(x: float, y: float, words: str, fill: Any = INK, size: int = 13) -> None:
        font = ImageFont.load_default(size * SCALE)
        target.text((x * SCALE, y * SCALE), words, fill, font, anchor="mm")

    def disc(x: float, y: float, radius: float, fill: Any) -> None:
        corners = (x - radius, y - radius, x + radius, y + radius)
        target.ellipse([v * SCALE for v in corners], fill)

    for x, lever in zip(middle, pulled, strict=True):
        if lever >= 0:
            ends = (x, AGENT_Y, middle[lever], LEVER_Y)
            target.line([v * SCALE for v in ends], PALE, 2 * SCALE)
    for x, number, lives in zip(middle, numbers, alive, strict=True):
        disc(x, AGENT_Y, 24, AGENT if lives else DEAD)
        text(x, AGENT_Y, str(number), (255, 255, 255))
    for lever, x in enumerate(middle):
        hands = pulled.count(lever)
        colour = UNUSED if hands == 0 else GOOD if hands == 1 else CLASH
        corners = (x - 20, LEVER_Y - 14, x + 20, LEVER_Y + 14)
        target.rounded_rectangle([v * SCALE for v in corners], 8 * SCALE, colour)
        text(x, LEVER_Y, str(hands) if hands else "", (255, 255, 255))
        text(x, LEVER_Y + 30, f"lever {lever}", PALE, 12)
    distinct = len({lever for lever in pulled if lever >= 0})
    title = f"{distinct} of {len(numbers)} levers pulled" if max(pulled) >= 0 else "who pulls what?"
    text(width / 2, 24, title, size=16)
    return np.asarray(image.resize((width, HEIGHT), Image.Resampling.BOX))
