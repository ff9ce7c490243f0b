"""Picture of the area: ages from fresh (dark) to old (bright), drones with their sight, targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.drones.params import DronesParams

if TYPE_CHECKING:
    from marl_td.tasks.drones.task import DronesState

SIZE, MARGIN, HEADER, OVERSAMPLING = 400, 10, 30, 2
PAPER, INK = (24, 28, 36), (226, 230, 236)
FRESH, OLD = np.array([20.0, 44.0, 68.0]), np.array([244.0, 166.0, 60.0])
DRONE, DEAD = (120, 214, 255), (120, 120, 120)
SEEN, HIDDEN = (126, 232, 120), (238, 82, 92)


def draw(params: DronesParams, state: DronesState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` of ``state`` as ``uint8 [440, 420, 3]``."""
    from PIL import Image, ImageDraw, ImageFont

    p, scale = params, OVERSAMPLING
    width, height = SIZE + 2 * MARGIN, SIZE + HEADER + MARGIN
    row = {name: value[index].cpu().numpy() for name, value in state._asdict().items()}
    image = Image.new("RGB", (width * scale, height * scale), PAPER)
    share = np.clip(row["age"] / (2.5 * p.sweep_time), 0.0, 1.0)[::-1, :, None]
    colours = (FRESH + (OLD - FRESH) * share).astype(np.uint8)
    ground = Image.fromarray(colours).resize((SIZE * scale,) * 2, Image.Resampling.NEAREST)
    image.paste(ground, (MARGIN * scale, HEADER * scale))
    canvas = ImageDraw.Draw(image)
    metre = SIZE / p.side * scale

    def at(place: Any) -> tuple[float, float]:
        x, y = place
        return MARGIN * scale + x * metre, HEADER * scale + (p.side - y) * metre

    def disc(place: Any, radius: float, fill: Any = None, outline: Any = None) -> None:
        x, y = at(place)
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill, outline, scale)

    for target in row["target"]:
        cell = np.clip((target / p.cell).astype(int), 0, p.n_cells - 1)
        in_sight = row["age"][cell[1], cell[0]] == 0.0
        disc(target, 5 * scale, SEEN if in_sight else HIDDEN, PAPER)
    for place, velocity, alive in zip(row["position"], row["velocity"], row["alive"], strict=True):
        colour = DRONE if alive else DEAD
        if alive:
            disc(place, p.sensing_radius * metre, None, colour)
            canvas.line((*at(place), *at(place + 0.6 * velocity)), colour, 2 * scale)
        disc(place, 4 * scale, colour, PAPER)

    words = f"mean age {row['age'].mean():.1f} s   largest {row['age'].max():.0f} s"
    if p.n_targets > 0:
        words += "   targets: green in sight, red not"
    font = ImageFont.load_default(14 * scale)
    canvas.text((MARGIN * scale, HEADER / 2 * scale), words, INK, font, anchor="lm")
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
