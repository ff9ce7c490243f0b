"""Closed forms for queues with Poisson arrivals and exponential service: Erlang-C and friends.

Plain floats in SI units; ``inf`` where a queue is unstable. Source: Kleinrock, "Queueing Systems",
vol. 1 (1975), sections 3.2 and 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from marl_td.tasks.banking.params import BankingParams
from marl_td.tasks.base import require


def erlang_c(arrival_rate: float, service_rate: float, servers: int) -> float:
    """Probability that an arrival has to wait in an M/M/c queue (Erlang's C formula).

    With offered load ``a = arrival_rate / service_rate`` it is computed from Erlang's B by the stable
    recursion ``B_0 = 1, B_j = a B_{j-1} / (j + a B_{j-1})`` and ``C = c B / (c - a (1 - B))``.

    Args:
        arrival_rate: arrivals per second, >= 0.
        service_rate: payments per second of one server, mu > 0.
        servers: number of servers, c >= 1.

    Returns:
        A probability in [0, 1]; 1 if the queue is unstable (``a >= c``).

    Raises:
        ValueError: if a rate or the number of servers is out of range.
    """
    require(
        arrival_rate >= 0 and service_rate > 0 and servers >= 1,
        f"erlang_c needs arrival_rate >= 0, service_rate > 0, servers >= 1; "
        f"got {arrival_rate}, {service_rate}, {servers}.",
    )
    load = arrival_rate / service_rate
    if load >= servers:
        return 1.0
    blocked = 1.0
    for j in range(1, servers + 1):
        blocked = load * blocked / (j + load * blocked)
    return servers * blocked / (servers - load * (1.0 - blocked))


def mean_latency(arrival_rate: float, service_rate: float, servers: int) -> float:
    """Mean time in an M/M/c queue in s, waiting and service: ``1 / mu + C / (c mu - lambda)``.

    Returns ``inf`` if the queue is unstable. Arguments as in :func:`erlang_c`.
    """
    wait = erlang_c(arrival_rate, service_rate, servers)
    spare = servers * service_rate - arrival_rate
    return math.inf if spare <= 0 else 1.0 / service_rate + wait / spare


def split_latency(params: BankingParams, share: Sequence[float]) -> float:
    """Mean latency in s if payments are routed at random, a share ``share[k]`` to channel k.

    Random splitting of a Poisson stream gives independent Poisson streams, so every channel is an
    M/M/c queue of its own. ``share`` must add up to 1; a channel with share 0 counts nothing.
    """
    total = 0.0
    for part, mu, c in zip(share, params.service_rate, params.servers, strict=True):
        if part > 0:
            total += part * mean_latency(part * params.arrival_rate, mu, c)
    return total


def uniform_latency(params: BankingParams) -> float:
    """Mean latency in s of routing uniformly at random."""
    n = len(params.servers)
    return split_latency(params, [1.0 / n] * n)


def best_split(params: BankingParams, price_weight: float = 0.0) -> list[float]:
    """Shares per channel that minimise mean latency + ``price_weight`` x mean fee (s per $).

    Rate x latency of an M/M/c queue is convex in the rate (Grassmann 1983), so the share problem is
    convex. It is solved by equal marginal cost: for a multiplier, each channel takes the rate at which
    its marginal cost reaches it; the multiplier is found by bisection until the rates add up.
    """
    channels = list(zip(params.service_rate, params.servers, params.price, strict=True))

    def marginal(rate: float, mu: float, c: int, price: float) -> float:
        step = 1e-6 * c * mu
        high = (rate + step) * mean_latency(rate + step, mu, c)
        return (high - rate * mean_latency(rate, mu, c)) / step + price_weight * price

    def rate_at(multiplier: float, mu: float, c: int, price: float) -> float:
        return _bisect(
            lambda rate: marginal(rate, mu, c, price) - multiplier, 0.0, c * mu * (1 - 2e-6)
        )

    def excess(multiplier: float) -> float:
        return sum(rate_at(multiplier, *channel) for channel in channels) - params.arrival_rate

    high = 1.0
    while excess(high) < 0:
        high *= 2.0
    best = _bisect(excess, 0.0, high)
    rates = [rate_at(best, *channel) for channel in channels]
    return [rate / sum(rates) for rate in rates]


def _bisect(function: Any, low: float, high: float) -> float:
    """Root of an increasing function on ``[low, high]``; an end point if it has none there."""
    if function(low) >= 0:
        return low
    for _ in range(48):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return 0.5 * (low + high)


def improvement_index(
    params: BankingParams, share: Sequence[float], size: int
) -> list[list[float]]:
    """What one more payment in a channel costs all payments together, in s: ``[n_channels][size]``.

    One step of policy improvement on random routing with ``share`` (Krishnan, "Joining the right
    queue: a state-dependent decision rule", 1990): entry n is ``h(n + 1) - h(n)`` for the relative
    value ``h`` of the number in an M/M/c queue with that share's arrivals. Sending each payment to the
    least index is better than the split itself. From n = c - 1 on it is a busy period's cost,
    linear in n; below it follows from the balance of ``h``, solved downwards, which is stable.
    """
    table = []
    for part, mu, c in zip(share, params.service_rate, params.servers, strict=True):
        rate = part * params.arrival_rate
        spare = c * mu - rate
        mean = rate * mean_latency(rate, mu, c)
        index = [(n - mean) / spare + c * mu / spare**2 for n in range(max(size, c))]
        for n in range(c - 1, 0, -1):
            index[n - 1] = (rate * index[n] + n - mean) / (mu * n)
        table.append(index[:size])
    return table


def pooled_latency(params: BankingParams) -> float:
    """Lower bound in s on the mean latency of *any* policy, also of one that holds payments back.

    All servers serve one common queue and a payment may move to a faster server at any time. Then the
    number in the system is a birth-death chain whose service rate is, at every n, the largest that n
    payments can have; any routing has at most that rate, so at least that many payments in the system.
    With bursts the chain is two-dimensional (number, phase) and solved numerically.
    """
    rates = [
        mu for mu, c in zip(params.service_rate, params.servers, strict=True) for _ in range(c)
    ]
    fastest = np.cumsum(sorted(rates, reverse=True))
    spare = params.total_service_rate / params.arrival_rate
    size = len(rates) + min(4000, max(400, int(40 / math.log(spare))))
    service = np.concatenate([[0.0], fastest, np.full(size - 1 - len(rates), fastest[-1])])
    phases = len(params.phases)
    generator = np.zeros((phases * size, phases * size))
    for phase, arrivals in enumerate(params.phases):
        index = phase * size + np.arange(size)
        generator[index[:-1], index[1:]] = arrivals
        generator[index[1:], index[:-1]] = service[1:]
        if phases > 1:
            generator[index, (index + size) % (2 * size)] = 1.0 / params.burst_time
    np.fill_diagonal(generator, -generator.sum(1))
    generator[:, 0] = 1.0  # the law adds up to 1, in place of one redundant balance equation
    law = np.linalg.solve(generator.T, np.eye(phases * size)[0])
    number = np.tile(np.arange(size), phases)
    return float(law @ number) / params.arrival_rate
