"""Picture of the junction: roads in grey, cars as numbered discs with the way they will take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from marl_td.tasks.traffic_junction.task import TrafficJunction, TrafficState

WIDTH, HEADER, OVERSAMPLING = 420, 26, 2
GROUND, ROAD, EDGE, INK = (232, 238, 228), (188, 192, 198), (255, 255, 255), (44, 52, 64)
GAS, BRAKE, CRASH, DEAD = (42, 120, 181), (224, 138, 30), (205, 50, 50), (110, 110, 110)


def draw(task: TrafficJunction, state: TrafficState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` of ``state`` as ``uint8 [446, 420, 3]``.

    A car is blue, orange if it braked in the last step, red with another car on its cell, grey if nobody
    controls it; a line leads from it to the next two cells of its route.
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH * OVERSAMPLING, (WIDTH + HEADER) * OVERSAMPLING), GROUND)
    canvas = ImageDraw.Draw(image)
    unit = WIDTH * OVERSAMPLING / task.params.size
    top = HEADER * OVERSAMPLING

    def centre(cell: int) -> tuple[float, float]:
        row, column = task.tables.place[cell].tolist()
        return (column + 0.5) * unit, top + (row + 0.5) * unit

    for cell in range(task.n_cells):
        x, y = centre(cell)
        corners = (x - unit / 2, y - unit / 2, x + unit / 2, y + unit / 2)
        canvas.rectangle(corners, ROAD, EDGE, OVERSAMPLING)
    cells = task.cell(state)[index].tolist()
    crashed = task.crashed(state)[index].tolist()
    driving, braked = state.driving[index].tolist(), state.braked[index].tolist()
    route, place = state.route[index].tolist(), state.place[index].tolist()
    works = state.works[index].tolist()
    cars = [car for car, on in enumerate(driving) if on]
    for car in cars:
        ahead = task.tables.path[route[car], place[car] : place[car] + 3].tolist()
        points = [centre(cell) for cell in ahead if cell != task.n_cells]
        canvas.line(points, INK, round(unit / 9), joint="curve")
    font = ImageFont.load_default(unit * 0.36)
    for car in cars:
        x, y = centre(cells[car])
        radius = 0.36 * unit
        colour = GAS if works[car] else DEAD
        colour = CRASH if crashed[car] else BRAKE if braked[car] else colour
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
        canvas.text((x, y), str(car), EDGE, font, anchor="mm")
    text = f"{len(cars)} cars   {sum(braked)} braking"
    title = ImageFont.load_default(14 * OVERSAMPLING)
    middle = (WIDTH * OVERSAMPLING / 2, top / 2)
    canvas.text(
        middle, text + "   COLLISION" * any(crashed), CRASH if any(crashed) else INK, title, "mm"
    )
    return np.asarray(image.resize((WIDTH, WIDTH + HEADER), Image.Resampling.BOX))
