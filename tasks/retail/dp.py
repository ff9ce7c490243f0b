"""Dynamic programmes for lost-sales inventory at one stocking point, over whole units.

The state before ordering is the stock on hand ``x`` (delivery included) and the ``lead_time - 1`` orders
still to come ``q1, q2, ...`` (Zipkin 2008, https://doi.org/10.1287/opre.1080.0535). With order ``z`` and
demand ``D`` the next state is ``((x - D)^+ + q1, q2, ..., z)``; at lead time 1 ``q1`` is ``z`` itself; at
lead time 0 the order is there before demand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from marl_td.tasks.base import require

BIG = 1e7
"""Cost of what is not possible: large, and still exact beside small costs in float64."""

Trade = Callable[[Tensor], Tensor]
"""Maps a cost-to-go ``[n_phases, n_stock, ...]`` to the one with a chance to buy or sell first."""


@dataclass
class StockPoint:
    """One stocking point: a single site, or a relaxation of the chain to one.

    ``cost`` ``[n_phases, n_stock]`` is the expected cost of a period that starts (delivery and orders
    due at once included) with 0, 1, ... units; ``left`` ``[n_phases, n_stock, n_stock]`` the probabilities
    of what is left of it. ``before`` and ``after`` demand units may be traded with an outside market.
    """

    cost: Tensor
    left: Tensor
    lead_time: int
    max_order: int
    order_cost: float = 0.0
    before: Trade | None = None
    after: Trade | None = None

    def __post_init__(self) -> None:
        n_stock = self.cost.shape[-1]
        self.max_order = min(self.max_order, n_stock - 1)
        stock, order = torch.arange(n_stock), torch.arange(self.max_order + 1)
        self._arrives = (stock.unsqueeze(-1) + order).clamp_max(n_stock - 1)
        self._too_much = stock.unsqueeze(-1) + order > n_stock - 1
        self._fixed = self.order_cost * (order > 0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a cost-to-go: phases, stock, and the orders on their way."""
        return (*self.cost.shape, *[self.max_order + 1] * max(self.lead_time - 1, 0))

    def q_values(self, value: Tensor) -> Tensor:
        """Cost of this period and the rest for every state and order, ``[*shape, n_orders]``.

        ``value`` is the cost-to-go of the next period, shape :attr:`shape`.
        """
        following = value.roll(-1, 0)
        if self.lead_time == 0:
            ready = self._trade(self.before, self.cost + self._expected(following))
            return ready[:, self._arrives] + self._fixed + BIG * self._too_much
        arrives = following[:, self._arrives]
        tail = [1] * (arrives.ndim - 3)
        arrives = arrives + BIG * self._too_much.reshape(1, *self._too_much.shape, *tail)
        rest = self._expected(arrives) + self._fixed
        return self.cost.reshape(*self.cost.shape, *[1] * (rest.ndim - 2)) + rest

    def backup(self, value: Tensor) -> Tensor:
        """Cost-to-go one period earlier, with the best orders (and trades)."""
        best = self.q_values(value).amin(-1).clamp_max(BIG)
        return best if self.lead_time == 0 else self._trade(self.before, best)

    def _expected(self, value: Tensor) -> Tensor:
        value = self._trade(self.after, value)
        return torch.bmm(self.left, value.reshape(*value.shape[:2], -1)).reshape(value.shape)

    @staticmethod
    def _trade(trade: Trade | None, value: Tensor) -> Tensor:
        return value if trade is None else trade(value)


def cost_to_go(point: StockPoint, n_periods: int) -> Tensor:
    """Least expected cost of ``n_periods`` periods from every state, shape ``point.shape``."""
    value = torch.zeros(point.shape, dtype=torch.float64)
    for _ in range(n_periods):
        value = point.backup(value)
    return value


def average_cost(point: StockPoint, level: int | None = None, tolerance: float = 1e-7) -> float:
    """Long-run cost per period: the least one, or that of the base-stock policy with ``level``.

    Relative value iteration; exact up to ``tolerance``.

    Raises:
        ValueError: with a season, or if the iteration does not settle.
    """
    require(point.shape[0] == 1, "average_cost needs a stationary problem, without a season.")
    value = torch.zeros(point.shape, dtype=torch.float64)
    order = None if level is None else base_stock_orders(point, level)
    for _ in range(20_000):
        if order is None:
            new = point.backup(value)
        else:
            new = point.q_values(value).gather(-1, order).squeeze(-1).clamp_max(BIG)
        change = (new - value)[new < BIG / 2]
        value = (new - new.flatten()[0]).clamp_max(BIG)
        if change.max() - change.min() < tolerance:
            return float(change.mean())
    raise ValueError("the dynamic programme did not settle in 20000 iterations.")


def base_stock_orders(point: StockPoint, level: int) -> Tensor:
    """Order of the base-stock policy in every state, ``[*point.shape, 1]`` int64."""
    position = torch.arange(point.shape[1]).reshape(1, -1, *[1] * (len(point.shape) - 2))
    coming = torch.arange(point.max_order + 1)
    for axis in range(2, len(point.shape)):
        position = position + coming.reshape(
            [-1 if i == axis else 1 for i in range(len(point.shape))]
        )
    return (level - position).clamp(0, point.max_order).unsqueeze(-1)


def buying(price: float) -> Trade:
    """A market that sells any number of units at ``price`` each."""

    def trade(value: Tensor) -> Tensor:
        paid = price * _units(value)
        return (value + paid).flip(1).cummin(1).values.flip(1) - paid

    return trade


def selling(price: float) -> Trade:
    """A market that takes any number of units at ``price`` each."""

    def trade(value: Tensor) -> Tensor:
        worth = price * _units(value)
        return (value + worth).cummin(1).values - worth

    return trade


def _units(value: Tensor) -> Tensor:
    units = torch.arange(value.shape[1], dtype=value.dtype)
    return units.reshape(1, -1, *[1] * (value.ndim - 2))


def left_over(pmf: Tensor, n_stock: int) -> Tensor:
    """Probabilities of what is left of 0, 1, ... units after demand with law ``pmf`` ``[*B, n_values]``.

    Returns:
        ``[*B, n_stock, n_stock]``: entry [x, u] is P((x - D)^+ = u).
    """
    stock = torch.arange(n_stock)
    gap = stock.unsqueeze(-1) - stock
    padded = torch.nn.functional.pad(pmf, (0, max(0, n_stock - pmf.shape[-1])))
    exact = torch.where(gap >= 0, padded[..., gap.clamp_min(0)], 0.0)
    nothing = 1 - padded.cumsum(-1)[..., :n_stock] + padded[..., :n_stock]
    exact[..., 0] = nothing.clamp_min(0.0)
    return exact


def expected_sales(pmf: Tensor, n_stock: int) -> Tensor:
    """E min(D, x) for x = 0, 1, ... ``[*B, n_stock]``: the running sum of P(D > 0), P(D > 1), ..."""
    tail = torch.nn.functional.pad(1 - pmf.cumsum(-1), (0, max(0, n_stock - pmf.shape[-1])))
    sales = tail.clamp_min(0.0).cumsum(-1)[..., : n_stock - 1]
    return torch.nn.functional.pad(sales, (1, 0))
