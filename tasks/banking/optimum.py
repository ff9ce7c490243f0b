"""The best latency possible: dynamic programmes, bounds, and the law from which warm episodes start.

Closed forms are in :mod:`marl_td.tasks.banking.queueing`, the chain in
:mod:`marl_td.tasks.banking.chain`. Solutions are cached, so that training and evaluation environments
of one parameter set share them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from marl_td.tasks.banking.chain import Chain, Solution, grid_sizes
from marl_td.tasks.banking.params import N_CHANNELS, BankingParams
from marl_td.tasks.banking.queueing import pooled_latency
from marl_td.tasks.base import Optimum, require

SMALL = (22, 16, 6)
"""Places beyond the servers on the small grid that the start law is computed on."""
FORBIDDEN = 10.0
"""Fee in s for a channel that is too risky: paid only if all others are full."""
IRRELEVANT = {"stale": 0, "classes": False, "hold": False, "max_steps": 1, "start": "empty"}
"""Fields that do not enter the chain, at the value they are cached under."""


def solution(params: BankingParams, clock: str | None = None) -> Solution:
    """Latency-optimal routing of the truncated chain (cached); see :meth:`Chain.solve`."""
    return _solve(_key(params, clock=clock or params.clock))


@functools.lru_cache(maxsize=32)
def _solve(key: str) -> Solution:
    return Chain(BankingParams(**json.loads(key))).solve()


def _key(params: BankingParams, **changes: object) -> str:
    return json.dumps({**dataclasses.asdict(params), **IRRELEVANT, **changes})


def optimum(params: BankingParams) -> Optimum | None:
    """Best expected latency in ms, exact or a lower bound.

    * Event clock, fresh loads, no bursts: exact. Routers decide one at a time and see everything.
    * Otherwise a lower bound: the same chain for one router that sees the true loads (and the phase)
      and routes every payment by itself. No policy of routers with less knowledge can do better.
    * With ``hold``: the looser bound of :func:`pooled_latency`, as no chain here holds payments back.

    Warm episodes start in the long run's law, so the long-run mean is their expectation (the freedom
    near the time limit is worth less than 0.1 % of it). Episodes that start empty get the dynamic
    programme over their own ``max_steps``; with ``hold`` there is no bound for them.
    """
    if params.hold:
        how = "all servers serve one queue and payments may change servers (birth-death chain)"
        value = pooled_latency(params)
        return None if params.start == "empty" else Optimum(1000.0 * value, "lower", how)
    method = "relative value iteration"
    if params.start == "warm":
        value = solution(params).low
    else:
        method = f"backward induction over {params.max_steps} steps from empty channels"
        value = _from_empty(_key(params, clock=params.clock, max_steps=params.max_steps))
    exact = params.clock == "event" and params.stale == 0 and not params.burst
    size = " x ".join(map(str, grid_sizes(params)))
    how = f"{method}, {params.clock} clock, grid of {size} payments in the channels"
    if not exact:
        sees = "the true loads and the phase" if params.burst else "the true loads"
        how += f"; one router that sees {sees} and routes every payment by itself"
    return Optimum(1000.0 * value, "exact" if exact else "lower", how)


@functools.lru_cache(maxsize=32)
def _from_empty(key: str) -> float:
    params = BankingParams(**json.loads(key))
    chain = Chain(params)
    total = chain.total_cost(params.max_steps)[:, 0, 0, 0].mean()
    return float(total) / (params.max_steps * chain.arrivals_per_step())


def one_hot(table: Tensor) -> Tensor:
    """Share per channel ``[n_channels, *sizes]`` of a table of channels ``[*sizes]``."""
    return torch.nn.functional.one_hot(table, N_CHANNELS).movedim(-1, 0).double()


@dataclasses.dataclass
class Evaluation:
    """Exact long-run figures of a routing rule on the event clock with fresh loads."""

    latency: float
    """Mean latency, s."""
    split: list[float]
    """Share of payments per channel."""
    fee: float
    """Mean fee, $ per payment."""
    risk: float
    """Mean expected share lost, without missed deadlines and classes."""


def evaluate(chain: Chain, share: Tensor, tolerance: float = 1e-10) -> Evaluation:
    """Exact figures of the routing rule ``share`` ``[n_channels, *sizes]`` (a probability per channel).

    No simulation: the stationary law of the truncated chain, and arrivals see that law (PASTA).
    """
    law = chain.stationary(share, tolerance)
    split = [float((law * part).sum()) for part in share]
    params = chain.params
    return Evaluation(
        float((law * chain.number.sum(0)).sum()) / params.arrival_rate,
        split,
        sum(s * price for s, price in zip(split, params.price, strict=True)),
        sum(s * risk for s, risk in zip(split, params.risk, strict=True)),
    )


def portfolio_bound(params: BankingParams, tolerance: float = 1e-6) -> tuple[float, float]:
    """Least mean latency in s of any policy whose *mean* risk stays within ``risk_limit``.

    Lagrangian dual of the linear programme over occupation measures of the truncated event chain
    (Altman, "Constrained Markov Decision Processes", 1999, chapter 12): for a price per unit of risk it
    is an ordinary routing problem; the best price gives the bound, without a duality gap.

    Args:
        params: the task's parameters, usually with ``classes``.
        tolerance: of every solution, in s; the bound stays valid whatever it is.

    Returns:
        The bound in s, and the price of risk in s per unit that reaches it (0 if the limit is slack).
    """
    from scipy.optimize import minimize_scalar

    chain = Chain(params, "event", SMALL)
    risk = class_risks(params)

    def dual(price: float) -> float:
        solved = chain.solve(price * risk, params.shares, tolerance)
        return solved.low - price * params.risk_limit

    free, step = dual(0.0), 1e-2
    if dual(step) <= free:  # the dual is concave: it only falls from here, the limit is slack
        return free, 0.0
    high = 1.0
    while dual(2.0 * high) > dual(high) and high < 1e4:
        high *= 2.0
    found = minimize_scalar(
        lambda price: -dual(price),
        bounds=(0.0, 2.0 * high),
        method="bounded",
        options={"xatol": 0.05},
    )
    return -float(found.fun), float(found.x)


def payment_bound(params: BankingParams) -> float:
    """Least mean latency in s of any policy that keeps the risk of *every* payment within ``risk_limit``.

    Exact on the event clock (small grid): a channel that is too risky for a class costs it 10 s more.

    Raises:
        ValueError: if no channel is safe enough for some class.
    """
    risk = class_risks(params)
    lowest = float(risk.min(1).values.max())
    require(
        lowest <= params.risk_limit,
        f"risk_limit {params.risk_limit} is below {lowest:.4g}, the least risk of the riskiest class; "
        "raise it or lower class_risk.",
    )
    fee = torch.where(risk > params.risk_limit, FORBIDDEN, 0.0).double()
    return Chain(params, "event", SMALL).solve(fee, params.shares).low


def class_risks(params: BankingParams) -> Tensor:
    """Expected share lost of a payment of each class on each channel, ``[n_classes, n_channels]``."""
    factor = torch.tensor(params.risk_factors, dtype=torch.float64)
    return torch.outer(factor, torch.tensor(params.risk, dtype=torch.float64))


def best_thresholds(params: BankingParams) -> tuple[int, int]:
    """Thresholds of the spill-over rule with the least mean latency, with fresh loads (cached).

    The rule sends a payment to internal while its load is below the first threshold, else to external
    while that is below the second, else to chain. Coordinate descent over exact evaluations on the
    event clock (small grid, mean arrival rate).
    """
    return _best_thresholds(_key(params, clock="event", burst=False))


@functools.lru_cache(maxsize=32)
def _best_thresholds(key: str) -> tuple[int, int]:
    params = BankingParams(**json.loads(key))
    chain = Chain(params, extra=SMALL)

    @functools.cache
    def latency(first: int, second: int) -> float:
        if not (0 < first < chain.sizes[0] and 0 < second < chain.sizes[1]):
            return math.inf
        share = one_hot(spill_table(chain.number, first, second))
        return evaluate(chain, share, 1e-7).latency

    best = (params.servers[0], params.servers[1])
    while True:
        first, second = best
        near = [best, (first + 1, second), (first - 1, second), (first, second + 1)]
        near += [(first, second - 1), (first + 1, second + 1), (first - 1, second - 1)]
        found = min(near, key=lambda pair: latency(*pair))
        if found == best:
            return best
        best = found


def spill_table(load: Tensor, first: int, second: int) -> Tensor:
    """Channel of the spill-over rule, ``[...]`` int64, for loads ``[3, ...]``."""
    return (load[0] >= first).long() * (1 + (load[1] >= second).long())


def start_law(params: BankingParams) -> Tensor:
    """Distribution function ``[*sizes]`` float32 of the channels' loads at the start of an episode.

    ``empty``: all mass at zero. ``warm``: the stationary law of the latency-optimal routing with fresh
    loads (small grid, mean arrival rate), so that a good policy starts where it would be anyway.
    """
    if params.start == "empty":
        return torch.ones((1,) * N_CHANNELS)
    return _warm_law(_key(params, clock="event", burst=False))


@functools.lru_cache(maxsize=32)
def _warm_law(key: str) -> Tensor:
    chain = Chain(BankingParams(**json.loads(key)), extra=SMALL)
    table = chain.solve(tolerance=1e-5).table[0, 0]
    law = chain.stationary(one_hot(table), tolerance=1e-8)
    return law.flatten().cumsum(0).float().view(law.shape)


def draw_start(cdf: Tensor, uniform: Tensor) -> Tensor:
    """Loads ``[n_envs, 3]`` float32 drawn from the distribution function by ``uniform`` ``[n_envs]``."""
    index = torch.searchsorted(cdf.flatten(), uniform.contiguous(), right=True)
    index = index.clamp(max=cdf.numel() - 1)
    loads: Sequence[Tensor] = torch.unravel_index(index, cdf.shape)
    return torch.stack(list(loads), -1).float()
