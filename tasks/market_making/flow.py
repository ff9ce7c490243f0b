"""Market orders of a step: from those who trade by chance, and from those who know where the price goes.

Informed traders know the sign Z of the mid price's own move over ``toxic_horizon`` steps, this one included
(the push of orders, ``adverse``, comes on top). A share rho of all orders is theirs, all on the side that Z
makes win: given Z, buys are Poisson with mean L (1 + rho Z) and sells with mean L (1 - rho Z), L = A dt;
without Z both have the mean L. With D = buys - sells and the move M, of standard deviation
s = sigma sqrt(dt h), h = ``toxic_horizon``:

    E[D M] = 2 rho L s sqrt(2 / pi),    corr(D, M) = 2 rho L sqrt(2 / pi) / sqrt(2 L + (2 rho L)^2)

A unit that a maker sells is followed by a move of rho s sqrt(2 / pi) against it in the mean, whoever bought.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marl_td.tasks.market_making.book import order_pmf
from marl_td.tasks.market_making.params import MarketMakingParams

if TYPE_CHECKING:
    from marl_td.tasks.market_making.task import MarketState


def cdf(params: MarketMakingParams) -> Tensor:
    """P(at most 0, 1, .. orders on a side), ``[max_orders]``; two rows with informed traders: few, many."""
    share = params.toxic_share
    means = [params.orders_per_step * (1.0 + lean) for lean in (-share, share)]
    rows = [order_pmf(mean, params.max_orders).cumsum(0)[:-1] for mean in means]
    return torch.stack(rows) if share > 0.0 else rows[0]


def count(table: Tensor, draw: Tensor, known: Tensor) -> Tensor:
    """Sells and buys, int64 ``[n_envs, 2]``.

    Args:
        table: of :func:`cdf`.
        draw: uniform numbers in [0, 1), ``[n_envs, 2]``.
        known: the mid price's own moves in this step and the next ones, ``[n_envs, known_steps]``.
    """
    if table.dim() > 1:
        rises = (known.sum(-1) >= 0.0).long()
        table = table[torch.stack([1 - rises, rises], -1)]  # [n_envs, 2, max_orders]
    return (draw.unsqueeze(-1) >= table).sum(-1)


def fair_reward(
    params: MarketMakingParams,
    state: MarketState,
    inventory: Tensor,
    earned: Tensor,
    push: Tensor,
    known: Tensor,
) -> Tensor:
    """What makers win in a step without what is a fair game, in $ ``[n_envs, n_agents]``.

    Without informed traders the price's own moves are one, and so is the push of the orders on the inventory
    before them. With informed traders orders tell something about later moves and later orders: the push on
    all of the inventory stays, and a unit filled is charged all known moves that happen before the close.
    Charging them at once instead of one by one, as they happen, changes no expected return: later ones are
    known to nobody.

    Args:
        params: of the market.
        state: before the step.
        inventory: after it, ``[n_envs, n_agents]``.
        earned: fills x depth, $ ``[n_envs, n_agents]``.
        push: of the mid price by orders, $ ``[n_envs, 1]``.
        known: as in :func:`count`.
    """
    change = inventory - state.inventory
    if params.toxic_share == 0.0:
        return earned + change * push
    if not params.lifelong:
        ahead = torch.arange(known.shape[-1], device=known.device)
        known = torch.where(state.step.unsqueeze(-1) + ahead < params.max_steps, known, 0.0)
    later = params.volatility * math.sqrt(params.dt) * known.sum(-1, keepdim=True)
    return earned + inventory * push + change * later
