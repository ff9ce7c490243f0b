"""What prices are measured by: the competitive and the joint outcome, price ranges, the best score."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from marl_td.tasks.base import Optimum, require
from marl_td.tasks.failures import dead_count
from marl_td.tasks.pricing.market import Logit, joint_prices, logit_market, nash_prices
from marl_td.tasks.pricing.params import PricingParams
from marl_td.tasks.pricing.season import FINE, best_revenue, dynamic_programme, top_price

MOST_COMBINATIONS = 200_000
"""Joint prices of a grid, or sets of living stores, that are tried one by one."""
LEAST_GAP = 1e-6


@dataclass(frozen=True)
class Yardstick:
    """Where the scales of scores, observations and rewards have their 0 and 1."""

    scale: tuple[Tensor, Tensor]
    """Prices ``[n_stores]`` in $ that observations show as 0 and 1."""
    nash_profit: float
    """Profit of all stores that scores 0, in $: per step, or with ``inventory`` per season."""
    joint_profit: float
    """Profit of all stores that scores 1."""
    money: float
    """What a store earns for a reward of 1, in $."""


def yardstick(params: PricingParams) -> Yardstick:
    """The yardstick of a task's parameters."""
    if params.inventory:
        reservation = torch.full((params.n_agents,), params.reservation, dtype=torch.float64)
        best = revenue_of(params, params.n_agents)
        return Yardstick((reservation, 2.0 * reservation), 0.0, best, params.reservation)
    nash, joint = price_points(params)
    market = logit_market(params)
    profit = [float(market.profit(price).sum()) for price in (nash, joint)]
    return Yardstick((nash, joint), profit[0], profit[1], profit[1] / params.n_agents)


def price_points(params: PricingParams) -> tuple[Tensor, Tensor]:
    """Nash and joint prices of all stores, each ``[n_stores]`` float64 (cached).

    Raises:
        ValueError: if they hardly differ, because stores hardly compete.
    """
    shocks = (params.outside, params.shock, params.substitution)
    nash, joint = _points(params.qualities, params.costs, *shocks)
    gap = float((joint - nash).min())
    require(
        gap > LEAST_GAP * params.substitution,
        f"stores hardly compete at these parameters: a joint price is only {gap:.2g} $ above the Nash "
        "price. Raise quality or lower outside.",
    )
    return nash, joint


@functools.lru_cache(maxsize=64)
def _points(
    quality: tuple[float, ...], cost: tuple[float, ...], outside: float, shock: float, mu: float
) -> tuple[Tensor, Tensor]:
    params = PricingParams(
        n_agents=len(quality),
        quality=quality,
        cost=cost,
        outside=outside,
        shock=shock,
        substitution=mu,
    )
    market = logit_market(params)
    return nash_prices(market), joint_prices(market)


def price_range(params: PricingParams, continuous: bool) -> tuple[Tensor, Tensor]:
    """Lowest and highest price of every store in $, each ``[n_stores]`` float64."""
    if params.inventory:
        top = torch.full((params.n_agents,), top_price(params), dtype=torch.float64)
        return torch.zeros_like(top), top
    nash, joint = price_points(params)
    beyond = params.margin * (joint - nash)
    cost = torch.tensor(params.costs, dtype=torch.float64)
    return cost if continuous else nash - beyond, joint + beyond


def revenue_of(params: PricingParams, n_stores: int) -> float:
    """Best revenue of a season from the stock of ``n_stores`` in one hand, in $."""
    units = n_stores * params.stock
    mean = torch.tensor(params.customers, dtype=torch.float64)
    return float(best_revenue(units, mean, params.reservation)[-1])


def optimum(params: PricingParams, continuous: bool) -> Optimum:
    """The best expected score; see the cases below."""
    n_alive = params.n_agents - dead_count(params.dead_agents, params.n_agents)
    return (_of_season if params.inventory else _of_market)(params, continuous, n_alive)


def _of_season(params: PricingParams, continuous: bool, n_alive: int) -> Optimum:
    """Exact for a store alone; for several the revenue of one owner of all stock, which bounds theirs."""
    best = yardstick(params).joint_profit
    if n_alive > 1:
        how = "one owner of all stock who changes the price at any moment (Gallego and van Ryzin 1994)"
        return Optimum(revenue_of(params, n_alive) / best, "upper", how)
    low, high = (float(end[0]) for end in price_range(params, continuous))
    n_prices = FINE + 1 if continuous else params.n_prices
    prices = torch.linspace(low, high, n_prices, dtype=torch.float64)
    value, _ = dynamic_programme(params, prices)
    how = f"dynamic programme over {params.max_steps} steps, {params.stock} units and {n_prices} prices"
    return Optimum(float(value[0, -1]) / best, "exact", how)


def _of_market(params: PricingParams, continuous: bool, n_alive: int) -> Optimum:
    """The joint optimum of the stores living, the mean over all equally likely sets of them.

    Exact with continuous prices, and with a grid as long as all its joint prices can be tried one by one;
    else that of continuous prices bounds it. Nothing is gained by looking at the past: profits depend on
    the prices of their step only.
    """
    every = list(itertools.islice(_sets(params, n_alive), MOST_COMBINATIONS + 1))
    size = len(every) * (1 if continuous else params.n_prices**n_alive)
    market, scale = logit_market(params), yardstick(params)
    if len(every) > MOST_COMBINATIONS:
        return Optimum(1.0, "upper", "joint prices of all stores, as if none had failed")
    exact = continuous or size <= MOST_COMBINATIONS
    on_grid = exact and not continuous
    total = 0.0
    for stores in every:
        part = market.of(stores)
        total += _best_on_grid(params, part, stores) if on_grid else _best_profit(part)
    value = total / len(every)
    how = f"every joint price of the {params.n_prices} each" if on_grid else "joint prices"
    how += " of all stores together" if n_alive == params.n_agents else " of the stores living"
    gain = (value - scale.nash_profit) / (scale.joint_profit - scale.nash_profit)
    return Optimum(gain, "exact" if exact else "upper", how)


def _sets(params: PricingParams, n_alive: int) -> itertools.combinations[tuple[int, ...]]:
    """Sets of living stores that differ; only one where all stores are alike."""
    alike = len(set(params.qualities)) == len(set(params.costs)) == 1
    return itertools.combinations(range(n_alive if alike else params.n_agents), n_alive)


def _best_profit(market: Logit) -> float:
    return float(market.profit(joint_prices(market)).sum())


def _best_on_grid(params: PricingParams, market: Logit, stores: tuple[int, ...]) -> float:
    low, high = price_range(params, continuous=False)
    share = torch.linspace(0.0, 1.0, params.n_prices, dtype=torch.float64)
    rows = [torch.lerp(low[i], high[i], share) for i in stores]
    prices = torch.cartesian_prod(*rows).reshape(-1, len(stores))
    return float(market.profit(prices).sum(-1).max())
