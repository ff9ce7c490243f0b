"""The order book of one step: who fills how many units of the market orders that arrive.

Orders are for one unit and arrive one after the other. Each reaches some depth into the book, and takes one
unit of the best quote that is left if that is no deeper than its reach; the order is lost otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def order_pmf(mean: float, most: int) -> Tensor:
    """Law of the number of orders ``[most + 1]`` float64: Poisson, the tail added to the last."""
    n = torch.arange(most + 1, dtype=torch.float64)
    pmf = (n * math.log(mean) - mean - torch.lgamma(n + 1)).exp()
    pmf[-1] += 1.0 - pmf.sum()
    return pmf


def match(depth: Tensor, units: Tensor, priority: Tensor, reach: Tensor) -> Tensor:
    """Units that each quote sells, ``[*B, n_quotes]``, whole numbers.

    Args:
        depth: distance of the quotes from the mid price in $, ``[*B, n_quotes]``; inf for none.
        units: how many units each offers, ``[*B, n_quotes]``, whole numbers.
        priority: which of equal depths is first (lowest), ``[*B, n_quotes]``.
        reach: how deep each order goes in $, in order of arrival, ``[*B, n_orders]``; -inf for none.
    """
    first = priority.argsort(dim=-1, stable=True)
    index = first.gather(-1, depth.gather(-1, first).argsort(dim=-1, stable=True))
    offered = units.gather(-1, index)
    upto = offered.cumsum(-1)
    n_orders = reach.shape[-1]
    unit = torch.arange(n_orders, device=depth.device, dtype=depth.dtype) + 0.5
    place = torch.searchsorted(upto, unit.expand_as(reach).contiguous())  # who offers the n-th unit
    ladder = torch.cat([depth.gather(-1, index), torch.full_like(depth[..., :1], math.inf)], -1)
    ladder = ladder.gather(-1, place)  # [*B, n_orders], the depth of the n-th unit
    taken = torch.zeros_like(place[..., :1])
    for order in reach.split(1, -1):  # a fixed number, in all environments at once
        taken = taken + (order >= ladder.gather(-1, taken))
    sold = (taken - (upto - offered)).clamp_min(0.0).minimum(offered)
    return torch.zeros_like(sold).scatter(-1, index, sold)
