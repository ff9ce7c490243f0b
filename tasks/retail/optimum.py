"""What can be computed about the best cost: exact single sites, and lower bounds for the whole chain.

Everything here is in $ per period over all sites, for the task as it is played: ``max_steps`` periods from
the random start. The long-run figures of the benchmark table are in ``benchmarks/retail_table.py``.

* :func:`alone`: no transfers. The sites do not interact; one dynamic programme each, exact.
* :func:`pooled`: all stock in one place, so that no unit is lost while another site has it. A lower bound.
  In mode ``"reactive"`` it also charges the transfers that remain if stock could be spread over the sites
  anew, free of charge, before every period's demand.
* :func:`market`: sites trade with a market instead of each other, buying at ``price + c_t / 2`` and selling
  at ``price - c_t / 2``. In the chain what one site gets another gives, so the price cancels and exactly
  ``c_t`` per unit is left: a lower bound at any price (Lagrangian relaxation), the best one is taken.
* :func:`marl_td.tasks.retail.hindsight.hindsight`: one linear programme per path with demand known in
  advance. A lower bound, but a weak one: most of the cost is the price of not knowing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marl_td.tasks.base import Optimum
from marl_td.tasks.retail.demand import (
    convolve,
    demand_pmf,
    level_scale,
    newsvendor_level,
    phase_rates,
    total_pmf,
)
from marl_td.tasks.retail.dp import (
    StockPoint,
    Trade,
    buying,
    cost_to_go,
    expected_sales,
    left_over,
    selling,
)
from marl_td.tasks.retail.dynamics import start_amounts
from marl_td.tasks.retail.params import RetailParams, site_rates

if TYPE_CHECKING:
    from marl_td.tasks.retail.task import Retail

WORK = 4e10
"""Elementary operations a bound may take (some seconds); longer lead times are relaxed to fit."""
MAX_STOCK = 3000
"""Stock values that a dynamic programme may have (its matrices have that many rows and columns)."""
N_PRICES = 12
"""Prices that the search for the best market bound tries."""


def bound(task: Retail) -> Optimum | None:
    """The best lower bound of the expected score, or the exact optimum of a single site; cached.

    None if the chain is too large for all of them.
    """
    key = repr((task.params, task.continuous))
    if key not in _FOUND:
        _FOUND[key] = _bound(task)
    return _FOUND[key]


_FOUND: dict[str, Optimum | None] = {}


def _bound(task: Retail) -> Optimum | None:
    params = task.params
    found = []
    if params.n_agents == 1:
        exact = (
            task.continuous and _never_full(params) and affordable_lead(params) == params.lead_time
        )
        how = "dynamic programme of the single site"
        return Optimum(alone(params), "exact" if exact else "lower", how)
    if affordable_lead(params, pooled=True) >= 0:
        how = "dynamic programme with all stock in one place"
        if params.transfer_mode == "reactive":
            how += ", paying for the transfers that ideally spread stock still needs"
        found.append(Optimum(pooled(params), "lower", how))
    if affordable_lead(params, n_prices=N_PRICES) >= 0:
        how = "dynamic programme per site that trades with a market at its best price"
        found.append(Optimum(market(params), "lower", how))
    best = max(found, key=lambda optimum: optimum.value, default=None)
    if best is None or params.dead_agents == 0:
        return best
    return replace(best, how=f"{best.how}, all sites alive")


def _never_full(params: RetailParams) -> bool:
    """Whether capacity, order size and level scale leave the optimal policy alone (K = 0)."""
    largest = float(phase_rates(params).max())
    level = newsvendor_level(params, (params.lead_time + 1) * largest)
    return params.order_cost == 0 and level <= min(params.capacity, level_scale(params))


# ------------------------------------------------------------------------------------------- problems
def stock_point(
    pmf: Tensor, n_stock: int, lead_time: int, max_order: int, holding: float, lost: float
) -> StockPoint:
    """One place with demand law ``pmf`` ``[n_phases, n_values]`` and stock up to ``n_stock - 1`` units."""
    sales = expected_sales(pmf, n_stock)
    mean = (pmf * torch.arange(pmf.shape[-1])).sum(-1, keepdim=True)
    cost = holding * (torch.arange(n_stock) - sales) + lost * (mean - sales)
    return StockPoint(cost, left_over(pmf, n_stock), lead_time, max_order)


def _site(params: RetailParams, site: int, lead_time: int, lost_cost: float) -> StockPoint:
    """One site, without transfers; a unit that its stock cannot serve costs ``lost_cost``."""
    point = stock_point(
        demand_pmf(params)[:, site],
        params.capacity + 1,
        lead_time,
        _max_order(params),
        params.holding_cost,
        lost_cost,
    )
    return replace(point, order_cost=params.order_cost)


def alone(params: RetailParams) -> float:
    """Least expected score without transfers, exact (a lower bound where the lead time was relaxed)."""
    lead = max(affordable_lead(params), 0)
    return _sum_over_sites(params, lead, lambda site: _site(params, site, lead, params.lost_cost))


def _sum_over_sites(params: RetailParams, lead: int, problem: Callable[[int], StockPoint]) -> float:
    """Least expected score of sites that do not interact; ``problem(site)`` is one, at lead time ``lead``."""
    rates = site_rates(params)
    slots = start_amounts(params, torch.tensor(rates))[2]
    total = 0.0
    for rate in set(rates):
        site = rates.index(rate)
        value = cost_to_go(problem(site), params.max_steps)
        total += rates.count(rate) * _at_start(
            value, lead, _start(params, site), float(slots[site])
        )
    return total / params.max_steps - _free_orders(params, lead)


def market(params: RetailParams, price: float | None = None) -> float:
    """Lower bound of the expected score by trade with a market, at the best price unless one is given."""
    from scipy.optimize import minimize_scalar

    if price is not None:
        return _market(params, price)
    cost = params.transfer_cost
    found = minimize_scalar(
        lambda x: -_market(params, x),
        bounds=(-cost / 2 - params.holding_cost, cost / 2 + params.lost_cost / 2),
        method="bounded",
        options={"maxiter": N_PRICES},
    )
    return -float(found.fun)


def _market(params: RetailParams, price: float) -> float:
    buy, sell = price + params.transfer_cost / 2, price - params.transfer_cost / 2

    lead = max(affordable_lead(params, n_prices=N_PRICES), 0)

    def problem(site: int) -> StockPoint:
        if params.transfer_mode == "action":
            point = _site(params, site, lead, params.lost_cost)
            return replace(point, before=_both(buying(buy), selling(sell)))
        point = _site(params, site, lead, min(params.lost_cost, buy))
        return replace(point, after=selling(sell + params.holding_cost))

    return _sum_over_sites(params, lead, problem)


def _both(buy: Trade, sell: Trade) -> Trade:
    def trade(value: Tensor) -> Tensor:
        return torch.minimum(buy(value), sell(value))

    return trade


def pooled(params: RetailParams) -> float:
    """Lower bound of the expected score with all stock in one place (see the module's docstring)."""
    lead = max(affordable_lead(params, pooled=True), 0)
    start = convolve(torch.stack([_start(params, site) for site in range(params.n_agents)]))
    slot = float(start_amounts(params, torch.tensor(site_rates(params)))[2].sum())
    value = cost_to_go(pooled_point(params, lead), params.max_steps)
    return _at_start(value, lead, start, slot) / params.max_steps - _free_orders(params, lead)


def pooled_point(params: RetailParams, lead_time: int) -> StockPoint:
    """The chain as one stocking point, :func:`pooled`.

    Not moving a unit that could serve a neighbour saves its transfer and keeps it, at the price of a
    lost sale: as if a unit were bought after demand at ``p + h - c_t``.
    """
    n_stock, max_order = _pooled_size(params), params.n_agents * _max_order(params)
    pmf, sites = total_pmf(params), demand_pmf(params)
    p, h = params.lost_cost, params.holding_cost
    point = stock_point(pmf, n_stock, lead_time, max_order, h, p)
    point = replace(point, order_cost=params.order_cost)
    if params.transfer_mode == "action":
        return point
    move = min(params.transfer_cost, p + h)
    tails = (1 - sites.cumsum(-1)).clamp_min(0.0).flatten(1).sort(-1, descending=True).values
    local = torch.nn.functional.pad(tails, (1, n_stock)).cumsum(-1)[:, :n_stock]
    moved = (expected_sales(pmf, n_stock) - local).clamp_min(0.0)
    return replace(point, cost=point.cost + move * moved, after=buying(p + h - move))


# --------------------------------------------------------------------------------------------- details
def affordable_lead(params: RetailParams, pooled: bool = False, n_prices: int = 1) -> int:
    """Largest lead time up to ``lead_time`` that the work limit allows, -1 if none.

    A shorter lead time is a relaxation: whoever has it can wait before ordering. The work is that of
    one pool, or of every different site at ``n_prices`` market prices.
    """
    n_stock = _pooled_size(params) if pooled else params.capacity + 1
    orders = min((params.n_agents if pooled else 1) * _max_order(params), n_stock - 1) + 1
    n_solved = 1 if pooled else n_prices * len(set(site_rates(params)))
    work = params.max_steps * params.n_phases * n_solved * n_stock * (n_stock + 100)
    if work > WORK or n_stock > MAX_STOCK:
        return -1
    return min(params.lead_time, int(math.log(WORK / work) / math.log(orders)))


def _pooled_size(params: RetailParams) -> int:
    """Number of stock values: up to what the sites would hold alone, or the start.

    A unit beyond that costs more to hold than it can save.
    """
    if params.order_cost > 0:
        return params.n_agents * params.capacity + 1
    periods = params.lead_time + 1
    alone = [
        newsvendor_level(params, periods * rate) for rate in phase_rates(params).amax(0).tolist()
    ]
    start = sum(params.lead_time * round(rate) + 3 * round(rate) for rate in site_rates(params))
    return min(params.n_agents * params.capacity, max(sum(alone), start)) + 1


def _max_order(params: RetailParams) -> int:
    return max(params.max_order, round(max(site_rates(params))))


def _free_orders(params: RetailParams, lead_time: int) -> float:
    """Fixed costs per period of ordering what a relaxed lead time leaves out of the pipeline."""
    periods = params.lead_time - lead_time
    return params.order_cost * params.n_agents * periods / params.max_steps


def _start(params: RetailParams, site: int) -> Tensor:
    """Probabilities of a site's stock at the start, before the first delivery, ``[capacity + 1]``."""
    low, high, _ = start_amounts(params, torch.tensor(site_rates(params)))
    stock = torch.arange(params.capacity + 1)
    inside = (stock >= low[site]) & (stock <= high[site])
    return inside.to(torch.float64) / inside.sum()


def _at_start(value: Tensor, lead_time: int, stock: Tensor, slot: float) -> float:
    """Expectation of the cost-to-go ``value`` over the random start (all phases equally likely).

    ``stock`` holds the probabilities of the stock before the delivery, ``slot`` the units that every slot
    of the pipeline starts with.
    """
    units = round(slot)
    value = value.mean(0)
    for _ in range(lead_time - 1):
        value = value[..., min(units, value.shape[-1] - 1)]
    delivered = units if lead_time > 0 else 0
    on_hand = (torch.arange(len(stock)) + delivered).clamp_max(len(value) - 1)
    return float((stock * value[on_hand]).sum())
