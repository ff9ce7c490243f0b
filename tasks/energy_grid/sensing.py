"""What generators see of the grid, and what a market operator publishes about the steps ahead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from marl_td.tasks.base import Groups
from marl_td.tasks.energy_grid import storage
from marl_td.tasks.energy_grid.dispatch import marginal_cost
from marl_td.tasks.energy_grid.dynamics import window
from marl_td.tasks.energy_grid.reference import look_up

if TYPE_CHECKING:
    from marl_td.tasks.energy_grid.task import EnergyGrid, GridState

AHEAD = (1, 4, 12)
"""Steps ahead for which the net load and its price are expected; the first is the step to come."""
NEED = 8 + len(AHEAD)
"""Column of an observation with the net load of the step to come."""
D_OBS = 11 + 2 * len(AHEAD)
D_STORAGE = 8 + 2 * len(AHEAD)
"""Width of a battery's observation."""
NEAR = 0.9
"""Share of its limit from which a line counts as congested in observations."""
CUT = 3.0
"""Standard deviations at which the wind is cut."""
PRICE_UNIT = 25.0
"""Prices are given in this many $ / MWh."""


def expected(task: EnergyGrid, state: GridState) -> Tensor:
    """Net load expected in each of the steps ``AHEAD``, MW ``[n_envs, len(AHEAD)]``."""
    p, profile = task.params, task.grid.profile
    steps = state.step.unsqueeze(-1) + task.ahead - 1  # the step to come has the state's number
    wind = state.wind.clamp(-CUT, CUT).unsqueeze(-1) * p.wind_memory**task.ahead
    wind = task.wind_sum * (1.0 + p.wind_spread * wind)
    return task.peak * profile[steps % profile.shape[0]] - wind


def congestion(task: EnergyGrid, state: GridState) -> Tensor:
    """Push of one more MW at every bus on nearly full lines, ``[n_envs, N]``; above 0: on it."""
    load = state.flow / task.reference.limit
    full = ((load.abs() - NEAR) / (1.0 - NEAR)).clamp(0.0, 2.0)
    return (full * load.sign()) @ task.grid.ptdf


def outlook(task: EnergyGrid, state: GridState) -> Tensor:
    """Prices and net load ahead, as in the observation, ``[n_envs, 2 len(AHEAD)]``."""
    demand = expected(task, state)
    price = look_up(task.reference.price, demand, task.reference.demand) / PRICE_UNIT
    need = demand - state.power.sum(-1, keepdim=True)
    if task.params.n_storage > 0:
        need = need - state.fed.sum(-1, keepdim=True)
    return torch.cat([price, need / task.grid.ramp.sum()], -1)


def seen(task: EnergyGrid, state: GridState) -> Tensor:
    """Observations ``[n_envs, G, D_OBS]``; their columns are in the task's docstring."""
    grid = task.grid
    reach = window(grid, state.power, state.alive)
    ahead = outlook(task, state)
    own = [
        (state.power - grid.least) / (grid.most - grid.least),
        10.0 * (reach.high - state.power) / grid.most,
        10.0 * (state.power - reach.low) / grid.most,
        (grid.most / grid.most.mean()).expand_as(state.power),
        (10.0 * grid.ramp / grid.most).expand_as(state.power),
        (marginal_cost(grid, state.power) - ahead[:, :1] * PRICE_UNIT) / 10.0,
        (grid.linear / PRICE_UNIT).expand_as(state.power),
        linear(congestion(task, state), grid.at_bus),
    ]
    return _with_public(task, state, own, ahead)


def seen_by_storage(task: EnergyGrid, state: GridState) -> Tensor:
    """Observations of the batteries ``[n_envs, n_storage, D_STORAGE]``."""
    p = task.params
    reach = storage.window(p, state.charge)
    ahead = outlook(task, state)
    above = (ahead[:, :1] * PRICE_UNIT - task.mean_price) / 10.0
    own = [
        state.charge / p.storage_energy,
        reach.high / p.storage_power,
        -reach.low / p.storage_power,
        above.expand_as(state.charge),
        linear(congestion(task, state), task.grid.storage_bus),
    ]
    return _with_public(task, state, own, ahead)


def _with_public(task: EnergyGrid, state: GridState, own: list[Tensor], ahead: Tensor) -> Tensor:
    """What each agent knows of itself ``[n_envs, n_agents]``, and what is published, side by side."""
    hour = state.step.float() * (task.params.dt * 2.0 * math.pi / 24.0)
    public = [state.frequency / task.params.frequency_limit, hour.sin(), hour.cos()]
    shared = torch.cat([ahead, torch.stack(public, -1)], -1)
    shared = shared.unsqueeze(1).expand(-1, own[0].shape[1], -1)
    return torch.cat([torch.stack(own, -1), shared], -1)


def whole(task: EnergyGrid, state: GridState) -> Tensor:
    """The global state ``[n_envs, d_state]``."""
    p = task.params
    parts = [
        state.power @ task.grid.at_bus / task.peak,
        state.net_load / task.peak,
        state.flow / task.reference.limit,
        outlook(task, state),
        state.wind.unsqueeze(-1),
        (state.frequency / p.frequency_limit).unsqueeze(-1),
    ]
    if p.n_storage > 0:
        parts += [state.charge / p.storage_energy, state.fed / p.storage_power]
    return torch.cat(parts, -1)


def available(task: EnergyGrid, state: GridState) -> Groups:
    """Moves that change something, and staying, bool ``[n_envs, n_agents, moves]`` of each group."""
    reach, rest = window(task.grid, state.power, state.alive), task.moves == 0
    up = (reach.high > state.power).unsqueeze(-1)
    down = (reach.low < state.power).unsqueeze(-1) & state.alive.unsqueeze(-1)
    found = {"agents": torch.where(task.moves > 0, up, down) | rest}
    if task.params.n_storage > 0:
        some = storage.window(task.params, state.charge)
        feed, take = (some.high > 0).unsqueeze(-1), (some.low < 0).unsqueeze(-1)
        found["storage"] = torch.where(task.moves > 0, feed, take) | rest
    return found
