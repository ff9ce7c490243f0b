"""What happens in one period, in whole units: deliveries, orders, transfers, demand, costs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.order import running_total
from marl_td.tasks.retail.params import RetailParams


class RetailState(NamedTuple):
    """State at the start of a period, before the delivery; amounts in whole units, float32.

    ``stock``, ``demand`` (of the last period), ``demand_average`` (exponentially weighted), ``lost`` and
    ``moved`` (units got minus given, last period) are ``[n_envs, n_agents]``; ``pipeline``
    ``[n_envs, n_agents, lead_time]`` has the next delivery first; ``phase`` ``[n_envs]`` int64 is the
    period of the season; ``heard`` ``[n_envs, n_agents, n_agents - 1]`` bool says whose stock is known,
    ``alive`` ``[n_envs, n_agents]`` bool which sites decide anything.
    """

    stock: Tensor
    pipeline: Tensor
    demand: Tensor
    demand_average: Tensor
    lost: Tensor
    moved: Tensor
    phase: Tensor
    heard: Tensor
    alive: Tensor


class Decision(NamedTuple):
    """What the sites decide, ``[n_envs, n_agents]`` each.

    ``level`` is the order-up-to level in units; ``transfer`` in [-1, 1] an offer (> 0) or request (< 0).
    """

    level: Tensor
    transfer: Tensor


class Flow(NamedTuple):
    """What moved in one period, in units, ``[n_envs, n_agents]`` each."""

    ordered: Tensor
    given: Tensor
    got: Tensor
    demand: Tensor
    sold: Tensor
    lost: Tensor
    left: Tensor


def advance(
    params: RetailParams,
    limit: int,
    state: RetailState,
    decision: Decision,
    demand: Tensor,
    rounding: Tensor,
) -> tuple[Tensor, Tensor, Flow]:
    """One period: delivery, order, transfers before or after demand, sales.

    Args:
        params: the task's parameters.
        limit: largest offer or request of a site in mode ``"action"``, in units.
        state: state at the start of the period.
        decision: what the sites decide.
        demand: units demanded, ``[n_envs, n_agents]``.
        rounding: uniform numbers ``[n_envs]`` that decide who gets the odd unit of a transfer.

    Returns:
        The new ``stock`` and ``pipeline``, and the :class:`Flow`. Always
        ``stock + delivered + got - given - sold = left`` exactly, at every site.
    """
    stock, pipeline, ordered = receive_and_order(params, state, decision.level)
    if params.transfer_mode == "action":
        free = (params.capacity - stock - pipeline.sum(-1)).clamp_min(0.0)
        offer = (decision.transfer.clamp_min(0.0) * stock.clamp_max(limit)).round()
        request = ((-decision.transfer).clamp_min(0.0) * free.clamp_max(limit)).round()
        given, got = match(offer, request, rounding)
        stock = stock - given + got
        sold = torch.minimum(stock, demand)
        left = stock - sold
    else:
        local = torch.minimum(stock, demand)
        offer = (decision.transfer.clamp_min(0.0) * (stock - local)).round()
        given, got = match(offer, demand - local, rounding)
        sold = local + got
        left = stock - local - given
    flow = Flow(ordered, given, got, demand, sold, demand - sold, left)
    return left, pipeline, flow


def receive_and_order(
    params: RetailParams, state: RetailState, level: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take in the delivery and order up to ``level``: new stock, pipeline and the order, in units.

    An order is at most ``max_order`` and never lifts stock plus pipeline above the capacity.
    """
    stock, pipeline = state.stock, state.pipeline
    if params.lead_time > 0:
        stock = stock + pipeline[..., 0]
    position = stock + pipeline[..., 1:].sum(-1)
    room = (params.capacity - position).clamp(0.0, params.max_order)
    ordered = torch.minimum((level - position).clamp_min(0.0), room)
    if params.lead_time > 0:
        pipeline = torch.cat([pipeline[..., 1:], ordered.unsqueeze(-1)], -1)
    else:
        stock = stock + ordered
    return stock, pipeline, ordered


def match(offer: Tensor, request: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Meet requests by offers, both in proportion: ``moved = min(sum of offers, sum of requests)``.

    Args:
        offer: whole units ``[n_envs, n_agents]``.
        request: whole units ``[n_envs, n_agents]``.
        rounding: uniform numbers ``[n_envs]``, see :func:`split`.

    Returns:
        Units ``given`` and ``got``, ``[n_envs, n_agents]``, with equal sums; no site gives more than its
        offer or gets more than its request.
    """
    moved = torch.minimum(offer.sum(-1), request.sum(-1))
    return split(offer, moved, rounding), split(request, moved, rounding)


def split(wanted: Tensor, moved: Tensor, rounding: Tensor) -> Tensor:
    """Divide ``moved`` ``[n_envs]`` whole units in proportion to ``wanted`` ``[n_envs, n_agents]``.

    Systematic rounding: running totals of the exact shares, shifted by one uniform number, are rounded
    down. A site gets its exact share rounded up or down, and exactly its share on average over
    ``rounding``. The arithmetic is in whole numbers, exact in float64 up to products of 2^52, so it is the
    same on every device.
    """
    total = wanted.sum(-1, keepdim=True).double().clamp_min(1)
    shift = (rounding.unsqueeze(-1) * total).floor().minimum(total - 1)
    upto = running_total(wanted).double()
    moved = moved.unsqueeze(-1).double()
    edge = ((upto * moved + shift) / total).floor()
    before = (((upto - wanted) * moved + shift) / total).floor()
    return (edge - before).to(wanted.dtype)


def site_costs(params: RetailParams, flow: Flow) -> dict[str, Tensor]:
    """Costs of every site by kind, in $, ``[n_envs, n_agents]`` each; a transfer is shared half and half."""
    return {
        "holding_cost": params.holding_cost * flow.left,
        "lost_cost": params.lost_cost * flow.lost,
        "transfer_cost": params.transfer_cost * 0.5 * (flow.given + flow.got),
        "order_cost": params.order_cost * (flow.ordered > 0).to(flow.ordered.dtype),
    }


def start_amounts(params: RetailParams, rates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least and largest stock at the start, and the units in every pipeline slot, in units like ``rates``.

    One period of mean demand in every slot (none where that exceeds the capacity) and 1 to 3 periods of
    it in stock, as far as the capacity admits.
    """
    one = rates.round()
    slot = torch.where(params.lead_time * one <= params.capacity, one, 0.0)
    room = params.capacity - params.lead_time * slot
    return one.minimum(room), (3 * one).minimum(room), slot
