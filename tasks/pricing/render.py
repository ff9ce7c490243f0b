"""Picture of the street: every store's price against the competitive and the joint one, and what it earns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

    from marl_td.tasks.pricing.task import Pricing, PricingState

WIDTH, HEIGHT, SCALE = 560, 360, 2
TOP, BOTTOM, LEFT, RIGHT = 64, 286, 74, 548
INK, PALE, GROUND = (44, 52, 64), (150, 158, 170), (226, 230, 236)
LOW, HIGH = (42, 120, 181), (224, 138, 30)


def draw(task: Pricing, state: PricingState, index: int = 0) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [360, 560, 3]``.

    A store is a block from its cost (with ``inventory`` 0) up to its price, as wide as the number of
    units it sold: its area is the profit. Its colour goes from blue at the Nash price to orange at the
    joint price.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), (250, 250, 252))
    street = _Street(ImageDraw.Draw(image), task)
    row = {name: value[index].cpu().numpy() for name, value in state._asdict().items()}
    street.header(row)
    street.lines()
    for store in range(task.params.n_agents):
        street.store(row, store)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


class _Street:
    """Draws in picture coordinates on an image ``SCALE`` times as large."""

    def __init__(self, target: ImageDraw, task: Pricing) -> None:
        self.target, self.params = target, task.params
        self.cost = np.zeros(task.params.n_agents)
        if not task.params.inventory:
            self.cost = task.market.cost.cpu().numpy()
        self.zero, self.one = task.zero.cpu().numpy(), task.one.cpu().numpy()
        self.floor = float(self.cost.min())
        self.ceiling = float(task.high.max())
        self.slot = (RIGHT - LEFT) / task.params.n_agents

    def y(self, price: float) -> float:
        """Height of a price in the picture."""
        return BOTTOM - (BOTTOM - TOP) * (price - self.floor) / (self.ceiling - self.floor)

    def text(self, x: float, y: float, text: str, fill: Any = INK, size: int = 12) -> None:
        from PIL import ImageFont

        font = ImageFont.load_default(size * SCALE)
        self.target.text((x * SCALE, y * SCALE), text, fill, font, anchor="mm")

    def box(self, corners: tuple[float, float, float, float], fill: Any) -> None:
        self.target.rectangle([v * SCALE for v in corners], fill)

    def header(self, row: dict[str, Any]) -> None:
        """What everybody earned, and how much of the season or of time has passed."""
        p, earned = self.params, float(row["profit"].sum())
        if row["time"] == 0:
            text = "before the first step: prices drawn at random"
        else:
            text = f"step {row['time']} of {p.max_steps}: all stores together earned {earned:.3g} $"
        self.text(WIDTH / 2, 22, text, size=15)
        if p.inventory:
            self.text(WIDTH / 2, 44, f"{row['stock'].sum():.0f} units left", PALE, 13)

    def lines(self) -> None:
        """The two prices that matter, where they are the same for all stores."""
        named = ((self.zero, LOW, "Nash"), (self.one, HIGH, "joint"))
        self.box((LEFT - 6, BOTTOM, RIGHT, BOTTOM + 2), PALE)
        self.text(36, BOTTOM, f"{self.floor:.2f} $", PALE)
        for price, colour, name in named:
            if self.params.inventory or np.ptp(price) > 1e-6:
                continue
            y = self.y(float(price[0]))
            for x in range(LEFT - 6, RIGHT, 10):
                self.box((x, y, x + 5, y + 1), colour)
            self.text(36, y - 6, name, colour)
            self.text(36, y + 7, f"{price[0]:.2f} $", colour)

    def store(self, row: dict[str, Any], store: int) -> None:
        """One store's block, price and units."""
        x = LEFT + (store + 0.5) * self.slot
        price, profit = float(row["price"][-1, store]), float(row["profit"][store])
        base, margin = self.cost[store], price - self.cost[store]
        sold = profit / margin if abs(margin) > 1e-9 else 0.0
        whole = 3.0 if self.params.inventory else 1.0
        half = 0.5 * self.slot * min(1.0, sold / whole) if row["time"] else 0.06 * self.slot
        top, ground = self.y(max(price, base)), self.y(min(price, base))
        if not row["open"][store]:
            self.text(x, BOTTOM - 12, "closed", PALE)
        else:
            self.box((x - half, top, x + half, max(ground, top + 2)), self.colour(price, store))
            self.box((x - 0.36 * self.slot, top - 1, x + 0.36 * self.slot, top + 1), INK)
            self.text(x, top - 10, f"{price:.2f} $")
        self.text(x, BOTTOM + 18, f"store {store + 1}", INK, 13)
        if self.params.inventory:
            share = float(row["stock"][store]) / self.params.stock
            left, wide = x - 0.3 * self.slot, 0.6 * self.slot
            self.box((left, BOTTOM + 32, left + wide, BOTTOM + 42), GROUND)
            self.box((left, BOTTOM + 32, left + share * wide, BOTTOM + 42), INK)
            self.text(x, BOTTOM + 54, f"sold {sold:.0f}, left {row['stock'][store]:.0f}", PALE)
        elif row["time"] and row["open"][store]:
            self.text(x, BOTTOM + 36, f"{100 * sold:.0f} % of customers", PALE)
            self.text(x, BOTTOM + 54, f"profit {profit:.3f} $", PALE)

    def colour(self, price: float, store: int) -> tuple[int, ...]:
        """Between blue and orange, by the price."""
        share = (price - self.zero[store]) / (self.one[store] - self.zero[store])
        mixed = np.array(LOW) + np.clip(share, 0.0, 1.0) * (np.array(HIGH) - np.array(LOW))
        return tuple(int(value) for value in mixed)
