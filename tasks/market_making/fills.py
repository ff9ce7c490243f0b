"""What one maker alone sells at a depth: the law of its fills and their expected worth, float64."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.market_making.book import order_pmf
from marl_td.tasks.market_making.params import MarketMakingParams


class Fills(NamedTuple):
    """Fills on one side in one step, for depths ``[*B]``."""

    law: Tensor
    """Probability of 0, 1, .. ``size`` fills, ``[*B, size + 1]``."""
    worth: Tensor
    """Expected $: fills x depth, less what the orders' push of the mid price costs, ``[*B]``."""


def fills(
    params: MarketMakingParams, depth: Tensor, room: Tensor, size: int, lean: float = 0.0
) -> Fills:
    """Fills of a lone quote of ``size`` units.

    With N orders, Poisson with mean A dt and capped, Binomial(N, exp(-k depth)) reach the quote, and it sells
    at most ``size`` and ``room`` units. Every order moves the mid by ``adverse`` its way, and the maker
    stands on the other side: in the mean that costs ``adverse`` x the covariance of fills and orders (with
    ``lean`` the other side's mean stands in for this one's).

    Args:
        params: the task's parameters.
        depth: in $, at least 0, ``[*B]`` float64; inf quotes nothing.
        room: how many units the maker's inventory still takes on this side, ``[*B]``.
        size: units quoted.
        lean: excess of the orders on this side, of their mean, in (-1, 1); the other side's is its negative.
            Where informed traders cause it, a unit sold loses ``known_move`` if it is above 0, and wins it
            if below.
    """
    most = params.max_orders
    mean_orders = params.orders_per_step
    orders = order_pmf(mean_orders * (1.0 + lean), most).to(depth.device)
    others = order_pmf(mean_orders * (1.0 - lean), most).to(depth.device)
    n = torch.arange(most + 1, dtype=torch.float64, device=depth.device)
    left = n.unsqueeze(-1) - n  # [orders, reaching]
    choose = torch.lgamma(n + 1).unsqueeze(-1) - torch.lgamma(n + 1)
    choose = (choose - torch.lgamma(left.clamp_min(0) + 1)).exp()
    p = torch.exp(-params.decay * depth)[..., None, None]
    reaching = torch.where(left >= 0, choose * p**n * (1 - p) ** left.clamp_min(0), 0.0)
    joint = orders.unsqueeze(-1) * reaching  # [*B, orders, reaching]
    sold = n.minimum(room.clamp(max=size).unsqueeze(-1))  # [*B, reaching]
    units = torch.arange(size + 1, dtype=torch.float64, device=depth.device)
    law = (joint.sum(-2).unsqueeze(-1) * (sold.unsqueeze(-1) == units)).sum(-2)
    mean = (law * units).sum(-1)
    product = (joint * sold.unsqueeze(-2) * n.unsqueeze(-1)).sum((-1, -2))
    cost = params.adverse * (product - mean * (others * n).sum())
    if lean != 0.0:
        cost = cost + math.copysign(params.known_move, lean) * mean
    income = torch.where(mean > 0, mean * depth, 0.0)  # nothing is sold infinitely deep
    return Fills(law, income - cost)
