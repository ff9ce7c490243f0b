"""What the sites see, and which of their discrete actions make sense."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from marl_td.tasks.retail.dynamics import RetailState
from marl_td.tasks.retail.params import RetailParams

NOTHING = 1
"""The discrete action that orders nothing and transfers nothing."""


def action_names(n_levels: int) -> tuple[str, ...]:
    """Names of the discrete actions: the level as a share of the largest, and the transfer."""
    shares = [f"level {level / (n_levels - 1):g}" for level in range(n_levels)]
    return tuple(f"{share}, {name}" for share in shares for name in ("offer", "none", "request"))


def on_hand(state: RetailState) -> Tensor:
    """Stock that is there once this period's delivery is in, ``[n_envs, n_agents]``, in units."""
    return state.stock + state.pipeline[..., :1].sum(-1)


def cover(state: RetailState, rates: Tensor) -> Tensor:
    """Stock, pipeline, last demand and its average, ``[n_envs, n_agents, 3 + lead_time]``.

    In periods of the site's mean demand ``rates`` ``[n_agents]``.
    """
    parts = [state.stock.unsqueeze(-1), state.pipeline]
    parts += [state.demand.unsqueeze(-1), state.demand_average.unsqueeze(-1)]
    return torch.cat(parts, -1) / rates.unsqueeze(-1)


def season(params: RetailParams, state: RetailState) -> Tensor:
    """Sine and cosine of the season's angle, ``[n_envs, 2]``."""
    angle = state.phase.to(torch.float32) * (2 * math.pi / params.n_phases)
    return torch.stack([angle.sin(), angle.cos()], -1)


def sensible_actions(params: RetailParams, state: RetailState, level: Tensor) -> Tensor:
    """Mask ``[n_envs, n_agents, 3 * n_levels]`` of the discrete actions; ``level`` ``[n_levels]`` in units.

    Not sensible: a level above the capacity, an offer without stock, a request without free capacity,
    and in mode ``"reactive"`` any request, because unmet units are always requested. A dead site has
    ``NOTHING`` only.
    """
    return _sensible(params, state, level) & state.alive.unsqueeze(-1) | _nothing(state, level)


def _nothing(state: RetailState, level: Tensor) -> Tensor:
    """Mask of dead sites: level 0 and no transfer."""
    action = torch.arange(3 * level.numel(), device=level.device)
    return (action == NOTHING) & ~state.alive.unsqueeze(-1)


def _sensible(params: RetailParams, state: RetailState, level: Tensor) -> Tensor:
    stock = on_hand(state)
    none = (level <= params.capacity).expand(*stock.shape, -1)
    if params.transfer_mode == "reactive":
        return torch.stack([none, none, torch.zeros_like(none)], -1).flatten(-2)
    position = (stock + state.pipeline[..., 1:].sum(-1)).unsqueeze(-1)
    reached = torch.maximum(position, level.minimum(position + params.max_order))
    offer = none & ((reached if params.lead_time == 0 else stock.unsqueeze(-1)) >= 1)
    request = none & (reached < params.capacity)
    return torch.stack([offer, none, request], -1).flatten(-2)
