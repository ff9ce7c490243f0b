"""Picture of the chain at the end of a period: stock, pipeline, demand, lost sales and transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.retail.dynamics import RetailState
from marl_td.tasks.retail.params import RetailParams

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SITE_WIDTH, SITE_HEIGHT, HEADER = 128, 250, 44
BAR_TOP, BAR_BOTTOM, BAR_HALF = 86, 206, 24
PER_ROW = 10
OVERSAMPLING = 2
INK, PALE, WALL = (44, 52, 64), (150, 158, 170), (226, 230, 236)
STOCK, COMING, MOVED, LOST = (58, 124, 165), (178, 208, 226), (46, 150, 96), (205, 50, 50)


def draw(params: RetailParams, full: int, state: RetailState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` of ``state`` as ``uint8 [height, width, 3]``.

    ``full`` is the number of units that fills a site's bar.
    """
    from PIL import Image, ImageDraw

    n_columns = min(params.n_agents, PER_ROW)
    n_rows = -(-params.n_agents // PER_ROW)
    size = (max(n_columns * SITE_WIDTH, 400), HEADER + n_rows * SITE_HEIGHT)
    image = Image.new("RGB", (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), (250, 250, 252))
    canvas = _Canvas(ImageDraw.Draw(image))
    row = {name: value[index].cpu().numpy() for name, value in state._asdict().items()}
    _header(canvas, params, row)
    for site in range(params.n_agents):
        _site(canvas, full, row, site)
    _arrows(canvas, row["moved"])
    return np.asarray(image.resize(size, Image.Resampling.BOX))


class _Canvas:
    """Draws in picture coordinates on an image that is ``OVERSAMPLING`` times as large."""

    def __init__(self, target: ImageDraw) -> None:
        self.target = target

    def box(self, corners: tuple[float, ...], fill: Any, outline: Any = None) -> None:
        scaled = [v * OVERSAMPLING for v in corners]
        self.target.rounded_rectangle(scaled, 3 * OVERSAMPLING, fill, outline, OVERSAMPLING)

    def text(self, at: tuple[float, float], text: str, fill: Any = INK, size: int = 13) -> None:
        from PIL import ImageFont

        font = ImageFont.load_default(size * OVERSAMPLING)
        self.target.text(
            (at[0] * OVERSAMPLING, at[1] * OVERSAMPLING), text, fill, font, anchor="mm"
        )

    def line(self, points: list[tuple[float, float]], fill: Any, width: float) -> None:
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self.target.line(scaled, fill, round(width * OVERSAMPLING), joint="curve")

    def polygon(self, points: list[tuple[float, float]], fill: Any) -> None:
        self.target.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points], fill)


def _centre(site: int) -> tuple[float, float]:
    """Middle of a site's column, and the top of its row."""
    column, row = site % PER_ROW, site // PER_ROW
    return (column + 0.5) * SITE_WIDTH, HEADER + row * SITE_HEIGHT


def _header(canvas: _Canvas, params: RetailParams, row: dict[str, Any]) -> None:
    width = max(min(params.n_agents, PER_ROW) * SITE_WIDTH, 400)
    demand, lost = row["demand"].sum(), row["lost"].sum()
    moved = np.abs(row["moved"]).sum() / 2
    text = f"demand {demand:.0f}   moved {moved:.0f}   in stock {row['stock'].sum():.0f}"
    canvas.text((width / 2 - 50, 20), text, size=15)
    canvas.text((width / 2 + 130, 20), f"lost {lost:.0f}", LOST if lost else PALE, 15)


def _site(canvas: _Canvas, full: int, row: dict[str, Any], site: int) -> None:
    x, top = _centre(site)
    stock, coming = float(row["stock"][site]), float(row["pipeline"][site].sum())
    lost, moved = float(row["lost"][site]), float(row["moved"][site])
    low, high = top + BAR_BOTTOM, top + BAR_TOP
    per_unit = (low - high) / max(full, stock + coming)
    canvas.box((x - BAR_HALF - 6, high - 6, x + BAR_HALF + 6, low + 6), WALL, PALE)
    roof = [(x - BAR_HALF - 12, high - 5), (x, high - 26), (x + BAR_HALF + 12, high - 5)]
    canvas.polygon(roof, LOST if lost else INK)
    if coming:
        canvas.box((x - BAR_HALF, low - per_unit * (stock + coming), x + BAR_HALF, low), COMING)
    if stock:
        canvas.box((x - BAR_HALF, low - per_unit * stock, x + BAR_HALF, low), STOCK)
    canvas.text((x, low - 12), f"{stock:.0f}", (255, 255, 255) if stock > 6 else INK, 14)
    if coming:
        above = min(low - per_unit * (stock + coming) - 9, low - 28)
        canvas.text((x, max(above, high + 6)), f"+{coming:.0f}", INK, 12)
    canvas.text((x, low + 18), f"demand {row['demand'][site]:.0f}", INK, 12)
    aside = 24 if lost and moved else 0
    if moved:
        text = f"{'got' if moved > 0 else 'gave'} {abs(moved):.0f}"
        canvas.text((x - aside, low + 34), text, MOVED, 12)
    if lost:
        canvas.text((x + aside, low + 34), f"lost {lost:.0f}", LOST, 13)


def _arrows(canvas: _Canvas, moved: np.ndarray[Any, Any]) -> None:
    """Arcs from the sites that gave to those that got, largest amounts first."""
    rest = moved.round().astype(int).copy()
    while rest.min() < 0 < rest.max():
        giver, taker = int(rest.argmin()), int(rest.argmax())
        units = min(-rest[giver], rest[taker])
        rest[giver] += units
        rest[taker] -= units
        _arrow(canvas, _centre(giver), _centre(taker), int(units))


def _arrow(
    canvas: _Canvas, start: tuple[float, float], end: tuple[float, float], units: int
) -> None:
    t = np.linspace(0.0, 1.0, 24)
    y0, y1 = start[1] + BAR_TOP - 28, end[1] + BAR_TOP - 30
    x = start[0] + (end[0] - start[0]) * t
    height = 8 + 0.09 * min(abs(end[0] - start[0]), 500)
    y = y0 + (y1 - y0) * t - 4 * height * t * (1 - t)
    canvas.line(
        list(zip(x.tolist(), y.tolist(), strict=True))[:-1], MOVED, min(1.5 + 0.5 * units, 5)
    )
    side = 6.0 if end[0] > start[0] else -6.0
    tip = (end[0], y1)
    canvas.polygon(
        [tip, (tip[0] - side * 1.6, tip[1] - 9), (tip[0] + side * 0.2, tip[1] - 10)], MOVED
    )
    canvas.text((float(x[12]), float(y[12]) - 9), str(units), MOVED, 12)
