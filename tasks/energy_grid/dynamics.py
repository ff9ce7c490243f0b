"""What happens in the grid in one step: outputs, balance, flows and their costs, all ``[n_envs, ...]``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from marl_td.tasks.energy_grid.dispatch import fuel_cost
from marl_td.tasks.energy_grid.network import Grid
from marl_td.tasks.energy_grid.params import EnergyGridParams


class Window(NamedTuple):
    """Outputs that generators can reach in a step, MW ``[n_envs, G]``."""

    low: Tensor
    high: Tensor


def window(grid: Grid, power: Tensor, alive: Tensor) -> Window:
    """Limits and ramps together; generators that have failed make nothing."""
    low = torch.maximum(grid.least, power - grid.ramp)
    high = torch.minimum(grid.most, power + grid.ramp)
    return Window(low * alive, high * alive)


def close_gap(power: Tensor, reach: Window, demand: Tensor) -> Tensor:
    """Outputs after automatic generation control, ``[n_envs, G]``.

    The gap to ``demand`` ``[n_envs]`` is shared in proportion to what each generator can still move that way.
    """
    gap = (demand - power.sum(-1)).unsqueeze(-1)
    room = torch.where(gap > 0, reach.high - power, power - reach.low)
    total = room.sum(-1, keepdim=True)
    share = (gap.abs() / total.clamp_min(1e-9)).clamp_max(1.0)
    return power + gap.sign() * share * room


class Balance(NamedTuple):
    """Outcome of a step; power in MW, costs in $ of the step, ``[n_envs]`` each but for ``flow``."""

    gap: Tensor
    """Power made - power taken, wind included."""
    flow: Tensor
    """Flow on every line, ``[n_envs, L]``."""
    fuel: Tensor
    unserved: Tensor
    surplus: Tensor
    overload: Tensor
    overload_power: Tensor
    """Sum over lines of the flow above their limits, MW."""


def settle(
    params: EnergyGridParams, grid: Grid, limit: Tensor, power: Tensor, net_load: Tensor
) -> Balance:
    """Balance, flows and costs of outputs ``[n_envs, G]`` at the buses' load - wind ``[n_envs, N]``."""
    injection = power @ grid.at_bus - net_load
    gap = injection.sum(-1)
    flow = linear(injection, grid.ptdf)
    over = (flow.abs() - limit).clamp_min(0.0).sum(-1)
    return Balance(
        gap=gap,
        flow=flow,
        fuel=params.dt * fuel_cost(grid, power),
        unserved=params.dt * params.unserved_cost * (-gap).clamp_min(0.0),
        surplus=params.dt * params.surplus_cost * gap.clamp_min(0.0),
        overload=params.dt * params.overload_cost * over,
        overload_power=over,
    )
