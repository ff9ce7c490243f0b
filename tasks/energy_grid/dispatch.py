"""Economic dispatch: the cheapest outputs that add up to a demand, by bisection on the marginal cost."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.energy_grid.network import Grid

HALVINGS = 60


def marginal_cost(grid: Grid, power: Tensor) -> Tensor:
    """2 a p + b of every generator in $ / MWh, ``[*B, G]``."""
    return 2.0 * grid.quadratic * power + grid.linear


def fuel_cost(grid: Grid, power: Tensor) -> Tensor:
    """Sum of a p^2 + b p in $ / h, ``[*B]``."""
    return ((grid.quadratic * power + grid.linear) * power).sum(-1)


def outputs(grid: Grid, price: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Every generator's output at a price ``[*B]`` in $ / MWh, between ``low`` and ``high`` ``[*B, G]``."""
    wanted = (price.unsqueeze(-1) - grid.linear) / (2.0 * grid.quadratic)
    return torch.minimum(torch.maximum(wanted, low), high)


def economic_dispatch(
    grid: Grid, demand: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Cheapest outputs ``[*B, G]`` within ``low`` and ``high`` ``[*B, G]``, and the price ``[*B]``, $ / MWh.

    All generators that are not at a bound have the marginal cost ``price``. A demand ``[*B]`` beyond what the
    bounds allow gets the nearest total they do.
    """
    bottom = marginal_cost(grid, low).amin(-1)
    top = marginal_cost(grid, high).amax(-1)
    for _ in range(HALVINGS):
        middle = 0.5 * (bottom + top)
        short = outputs(grid, middle, low, high).sum(-1) < demand
        bottom, top = torch.where(short, middle, bottom), torch.where(short, top, middle)
    price = 0.5 * (bottom + top)
    return outputs(grid, price, low, high), price


def merit_order(grid: Grid, demand: Tensor) -> Tensor:
    """Outputs ``[*B, G]``: from the cheapest mean cost at full output on, each as much as still needed."""
    full_cost = grid.quadratic * grid.most + grid.linear
    order = full_cost.argsort()
    room = (grid.most - grid.least)[order]
    before = room.cumsum(0) - room
    rest = (demand - grid.least.sum()).unsqueeze(-1)
    filled = (rest - before).clamp_min(0.0).minimum(room)
    power = torch.empty_like(filled).index_copy(-1, order, filled)
    return grid.least + power
