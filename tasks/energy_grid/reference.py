"""What the day would cost without ramps, lines and surprises: line limits, start, and the reward's zero."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.energy_grid.dispatch import economic_dispatch, fuel_cost
from marl_td.tasks.energy_grid.network import Grid
from marl_td.tasks.energy_grid.params import EnergyGridParams

N_POINTS = 257
FLOOR = 0.05
"""Least limit of a line over the mean of all lines' limits: no line is cut off by a day without flow."""


class Reference(NamedTuple):
    """Tables of the cheapest dispatch, and what follows from it; float64."""

    demand: Tensor
    """Evenly spaced net loads, MW ``[N_POINTS]``."""
    price: Tensor
    """Marginal cost there, $ / MWh ``[N_POINTS]``."""
    cost: Tensor
    """Fuel cost there, $ / h ``[N_POINTS]``."""
    start: Tensor
    """Outputs at the start of the day, MW ``[G]``."""
    limit: Tensor
    """Limits of the lines, MW ``[L]``."""
    day_price: Tensor
    """Marginal cost in every step of a mean day, $ / MWh ``[steps of a day]``."""


def mean_net_load(grid: Grid) -> Tensor:
    """Load - wind by bus in every step of a mean day, MW ``[steps of a day, N]``."""
    return grid.profile.unsqueeze(-1) * (grid.load @ grid.load_bus) - grid.wind


def make_reference(params: EnergyGridParams, grid: Grid) -> Reference:
    """All of it, from the cheapest dispatch of a mean day."""
    demand = torch.linspace(
        float(grid.least.sum()), float(grid.most.sum()), N_POINTS, dtype=torch.float64
    )
    low, high = grid.least.expand(N_POINTS, -1), grid.most.expand(N_POINTS, -1)
    power, price = economic_dispatch(grid, demand, low, high)
    net = mean_net_load(grid)
    n = net.shape[0]
    low, high = grid.least.expand(n, -1), grid.most.expand(n, -1)
    day, day_price = economic_dispatch(grid, net.sum(-1), low, high)
    largest = ((day @ grid.at_bus - net) @ grid.ptdf.T).abs().amax(0)
    limit = params.line_capacity * largest.clamp_min(FLOOR * float(largest.mean()))
    return Reference(demand, price, fuel_cost(grid, power), day[0], limit, day_price)


def look_up(table: Tensor, demand: Tensor, points: Tensor) -> Tensor:
    """``table`` at net loads ``[*B]``, linear between the evenly spaced ``points`` and beyond them."""
    step = points[1] - points[0]
    place = (demand - points[0]) / step
    left = place.floor().clamp(0, points.shape[0] - 2)
    index = left.long()
    return torch.lerp(table[index], table[index + 1], place - left)
