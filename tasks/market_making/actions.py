"""From actions to quotes, and which discrete actions there are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marl_td.tasks.market_making.params import N_LEVELS, MarketMakingParams

if TYPE_CHECKING:
    from marl_td.tasks.market_making.task import MarketMaking, MarketState


def names(params: MarketMakingParams) -> tuple[str, ...]:
    """Names of the discrete actions: depths of bid and ask in fifths of the largest, and the units."""
    depths = [*(f"{level + 1}/{N_LEVELS}" for level in range(N_LEVELS)), "none"]
    units = range(1, params.size + 1)
    return tuple(f"bid {b}, ask {a}, {n} units" for b in depths for a in depths for n in units)


def room(params: MarketMakingParams, state: MarketState) -> Tensor:
    """Units that every maker can still buy and sell, ``[n_envs, n_agents, 2]``."""
    most, q = params.max_inventory, state.inventory
    return torch.stack([most - q, most + q], -1)


def quotes(task: MarketMaking, state: MarketState, action: Tensor) -> tuple[Tensor, Tensor]:
    """Depth in $ (inf: none) and units of every bid and ask, ``[n_envs, n_agents, 2]`` each."""
    p = task.params
    if task.continuous:
        depth = action.clamp(0.0, p.max_depth)
        size = torch.full_like(depth, float(p.size))
    else:
        pair = action // p.size
        choice = torch.stack([pair // (N_LEVELS + 1), pair % (N_LEVELS + 1)], -1)
        depth = task.level_depths[choice]
        size = (action % p.size + 1).float().unsqueeze(-1).expand_as(depth)
    units = room(p, state).minimum(size) * state.alive.unsqueeze(-1)
    units = torch.where(depth.isinf(), 0.0, units)
    return torch.where(units > 0, depth, math.inf), units


def mask(params: MarketMakingParams, state: MarketState) -> Tensor:
    """Available discrete actions, ``[n_envs, n_agents, 36 size]`` bool."""
    open_ = (room(params, state) > 0) & state.alive.unsqueeze(-1)
    side = open_.unsqueeze(-1).expand(*open_.shape, N_LEVELS)
    bid, ask = torch.cat([side, torch.ones_like(side[..., :1])], -1).unbind(2)
    pair = (bid.unsqueeze(-1) & ask.unsqueeze(-2)).flatten(-2)
    units = torch.arange(params.size, device=pair.device)
    idle = torch.arange(pair.shape[-1], device=pair.device) == pair.shape[-1] - 1
    once = ~(idle.unsqueeze(-1) & (units > 0))  # nothing is quoted in one way only
    return (pair.unsqueeze(-1) & once).flatten(-2)
