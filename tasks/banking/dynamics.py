"""What happens to the payments in one step: routing, service, arrivals. Pure functions over tensors.

Counts are kept as float32 (exact far beyond any queue length here). Shapes: ``n_classes`` risk classes,
three channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.banking.params import N_CHANNELS, BankingParams
from marl_td.tasks.base import Noise

TAIL = 1e-9
"""Probability of more arrivals or completions in a slot than the tables hold."""


class BankingState(NamedTuple):
    """State of the payment system; ``seen`` and ``sent`` run from the oldest step to the newest.

    ==========  ==================================  ====================================================
    ``queue``   ``[n_envs, 3]``                     payments in each channel, in service and waiting
    ``buffer``  ``[n_envs, n_agents, n_classes]``   payments a router still has to route
    ``worth``   ``[n_envs, n_agents, n_classes]``   their amounts together, $
    ``seen``    ``[n_envs, d + 1, 3]``              ``queue`` of the last ``d`` steps and now
    ``sent``    ``[n_envs, d, n_agents, 3]``        payments each router sent in the last ``d`` steps
    ``lost``    ``[n_envs, n_agents]``              moving average of the expected loss per step, $
    ``moved``   ``[n_envs, n_agents]``              moving average of the amount routed per step, $
    ``pace``    ``[n_envs, n_agents]``              moving average of arrivals over their mean
    ``phase``   ``[n_envs]`` int64                  0, or with bursts 0 busy and 1 calm
    ``alive``   ``[n_envs, n_agents]`` bool         routers that decide
    ==========  ==================================  ====================================================
    """

    queue: Tensor
    buffer: Tensor
    worth: Tensor
    seen: Tensor
    sent: Tensor
    lost: Tensor
    moved: Tensor
    pace: Tensor
    phase: Tensor
    alive: Tensor


class Tables(NamedTuple):
    """Constants of a parameter set as tensors."""

    servers: Tensor
    """``[3]``"""
    rate: Tensor
    """Service rate of one server per second, ``[3]``"""
    price: Tensor
    """``[3]``, $"""
    capacity: Tensor
    """``[3]``"""
    risk: Tensor
    """``[n_classes, 3]`` expected share of the amount lost"""
    risky: Tensor
    """``[n_classes, 3]`` 1 where that risk is above the limit"""
    late: Tensor
    """``[3, max capacity + 1]`` probability to wait past the deadline, by the number found in the channel"""
    arrival_cdf: Tensor
    """``[n_phases, n_classes, n]`` distribution function of the arrivals of a slot at one router"""
    phase_rate: Tensor
    """``[n_phases]`` arrivals per second over all routers"""
    class_cdf: Tensor
    """``[n_classes - 1]`` distribution function of the risk class, without its last entry 1"""


class Routed(NamedTuple):
    """Outcome of routing: what was taken in, ``[n_envs, n_agents, ...]``, and what it means."""

    queue: Tensor
    """``[n_envs, 3]`` right after routing"""
    buffer: Tensor
    """``[n_envs, n_agents, n_classes]`` payments kept or turned away"""
    worth: Tensor
    """``[n_envs, n_agents, n_classes]``, $"""
    taken: Tensor
    """``[n_envs, n_agents, 3]`` payments taken in"""
    late: Tensor
    """``[n_envs]`` expected number of them that miss the deadline"""
    risky: Tensor
    """``[n_envs]`` number of them with a risk above the limit"""
    moved: Tensor
    """``[n_envs, n_agents]`` their amount, $"""
    lost: Tensor
    """``[n_envs, n_agents]`` expected loss on it, $"""


class Served(NamedTuple):
    """Outcome of letting time pass."""

    queue: Tensor
    """``[n_envs, 3]``"""
    completed: Tensor
    """``[n_envs]`` payments completed"""
    arrived: Tensor
    """``[n_envs, n_agents, n_classes]`` new payments"""
    amount: Tensor
    """``[n_envs, n_agents, n_classes]`` their amounts, $"""
    latency: Tensor
    """``[n_envs]`` time integral of the payments in channels and buffers, s"""
    phase: Tensor
    """``[n_envs]`` int64"""


def make_tables(p: BankingParams, device: torch.device) -> Tables:
    """Constants of ``p`` on ``device``, float32."""
    risk = torch.outer(torch.tensor(p.risk_factors), torch.tensor(p.risk))
    found = torch.arange(max(p.capacity) + 1, dtype=torch.float64)
    late = []
    for c, mu in zip(p.servers, p.service_rate, strict=True):
        # First come, first served: a payment that finds n >= c waits for n - c + 1 completions at rate
        # c mu, an Erlang law; it is late if at most n - c complete before the deadline.
        order = (found - c + 1).clamp(min=1.0)
        tail = torch.special.gammaincc(order, torch.full_like(order, c * mu * p.deadline))
        late.append(torch.where(found >= c, tail, 0.0))
    shares = torch.tensor(p.shares, dtype=torch.float64)
    mean = torch.tensor(p.phases, dtype=torch.float64)[:, None] * shares * (p.dt / p.n_agents)
    count = torch.arange(1.0, poisson_quantile(float(mean.max())) + 1.0, dtype=torch.float64)
    cdf = torch.special.gammaincc(count, mean[..., None])
    classes = shares.cumsum(0)[:-1]
    channels = (p.servers, p.service_rate, p.price, p.capacity)
    columns = (*channels, risk, risk > p.risk_limit, torch.stack(late), cdf, p.phases, classes)
    return Tables(*(torch.as_tensor(x).to(dtype=torch.float32, device=device) for x in columns))


def poisson_quantile(mean: float, tail: float = TAIL) -> int:
    """Smallest n with ``P(Poisson(mean) > n) < tail``."""
    n, term = 0, math.exp(-mean)
    total = term
    while 1.0 - total > tail and n < 10_000:
        n += 1
        term *= mean / n
        total += term
    return n


def most_completions(p: BankingParams) -> int:
    """Most completions in a channel that one slot can hold, exceeded with probability below ``TAIL``."""
    return max(
        poisson_quantile(c * mu * p.dt) for c, mu in zip(p.servers, p.service_rate, strict=True)
    )


def draw(p: BankingParams, n_envs: int, generator: torch.Generator) -> Noise:
    """All random numbers of one step, none of which depends on the state."""

    def tensor(*shape: int) -> Tensor:
        return torch.empty((n_envs, *shape), device=generator.device)

    each = (p.n_agents, len(p.shares))
    if p.clock == "event":
        return {
            "event": tensor().uniform_(generator=generator),
            "kind": tensor().uniform_(generator=generator),
            "amount": tensor(*each).normal_(generator=generator),
        }
    service = tensor(N_CHANNELS, most_completions(p)).uniform_(generator=generator)
    noise = {
        "arrival": tensor(*each).uniform_(generator=generator),
        "amount": tensor(*each).normal_(generator=generator),
        # Standard exponential; `exponential_` takes the logarithms one by one on the CPU.
        "service": -(1.0 - service).log(),
    }
    if p.burst:
        noise["switch"] = tensor().uniform_(generator=generator)
    return noise


def route(state: BankingState, choice: Tensor, t: Tables) -> Routed:
    """Send the buffered payments where ``choice`` says.

    A channel takes payments in while it has room, routers in index order (classes in order within a
    router); what is turned away stays in the buffer. Whether a payment will miss its deadline is
    charged here as a probability, from what it finds ahead (exact for first come, first served;
    payments sent together share the chance of the first).

    Args:
        state: before routing.
        choice: ``[n_envs, n_agents, n_classes]`` int64, channel 0 .. 2, or 3 to keep the payments.
        t: constants.
    """
    channel = torch.arange(N_CHANNELS, device=choice.device)
    want = torch.where(choice.unsqueeze(-1) == channel, state.buffer.unsqueeze(-1), 0.0)
    flat = want.flatten(1, 2)
    before = flat.cumsum(1) - flat  # [n_envs, n_agents * n_classes, 3]
    room = (t.capacity - state.queue).unsqueeze(1)
    taken = (room - before).clamp(min=0.0).minimum(flat).view_as(want)
    found = (state.queue.unsqueeze(1) + before).view_as(want).minimum(t.capacity).long()
    late = t.late[channel, found]
    each = state.worth / state.buffer.clamp(min=1.0)  # mean amount of a payment, $
    moved = taken * each.unsqueeze(-1)
    lost = moved * (1.0 - (1.0 - t.risk) * (1.0 - late))
    gone = taken.sum(-1)
    return Routed(
        state.queue + taken.sum((1, 2)),
        state.buffer - gone,
        state.worth - gone * each,
        taken.sum(2),
        (taken * late).sum((1, 2, 3)),
        (taken * t.risky).sum((1, 2, 3)),
        moved.sum((2, 3)),
        lost.sum((2, 3)),
    )


def serve_slot(p: BankingParams, t: Tables, routed: Routed, phase: Tensor, noise: Noise) -> Served:
    """One slot: every channel completes payments, then the slot's arrivals stand in the buffers.

    A channel with m payments completes the next one after an exponential time with rate
    ``mu min(m, c)``, then the one after it with the rate that is left, and so on: the M/M/c queue itself,
    not a slotted copy of it with less capacity. For ``m <= c`` the number completed is
    Binomial(m, 1 - exp(-mu dt)).
    """
    gap = noise["service"]
    left = routed.queue.unsqueeze(-1) - torch.arange(gap.shape[-1], device=gap.device)
    rate = t.rate.unsqueeze(-1) * left.minimum(t.servers.unsqueeze(-1))
    time = torch.where(left > 0, gap / rate.clamp(min=1e-9), 2.0 * p.dt).cumsum(-1)
    done = time < p.dt
    completed = done.float().sum(-1)  # sums of booleans are made of 64-bit integers, slowly
    saved = torch.where(done, p.dt - time, 0.0).sum((1, 2))
    cdf = t.arrival_cdf[phase] if p.burst else t.arrival_cdf  # [n_envs or 1, n_classes, n]
    arrived = (noise["arrival"].unsqueeze(-1) >= cdf.unsqueeze(1)).float().sum(-1)
    waiting = p.dt * routed.buffer.sum((1, 2)) + 0.5 * p.dt * arrived.sum((1, 2))
    latency = p.dt * routed.queue.sum(-1) - saved + waiting
    if p.burst:
        switch = noise["switch"] < 1.0 - math.exp(-p.dt / p.burst_time)
        phase = torch.where(switch, 1 - phase, phase)
    return Served(
        routed.queue - completed,
        completed.sum(-1),
        arrived,
        _amount(p, arrived, noise),
        latency,
        phase,
    )


def serve_event(p: BankingParams, t: Tables, routed: Routed, phase: Tensor, noise: Noise) -> Served:
    """One event of the uniformised chain: an arrival, a completion, a phase switch, or nothing.

    The time to the event has mean ``1 / event_rate`` and does not depend on the state; its mean is
    charged.
    """
    mark = noise["event"] * p.event_rate
    arrivals = t.phase_rate[phase]
    router = (mark / arrivals * p.n_agents).floor()  # n_agents and above: no arrival
    kind = (noise["kind"].unsqueeze(-1) >= t.class_cdf).sum(-1)
    here = router.unsqueeze(-1) == torch.arange(p.n_agents, device=mark.device)
    sort = kind.unsqueeze(-1) == torch.arange(len(p.shares), device=mark.device)
    arrived = (here.unsqueeze(-1) & sort.unsqueeze(1)).float()
    full = t.rate * t.servers
    start = max(p.phases) + full.cumsum(0) - full
    busy = t.rate * routed.queue.minimum(t.servers)
    inside = mark.unsqueeze(-1) - start
    done = ((inside >= 0) & (inside < busy)).float()
    latency = (routed.queue.sum(-1) + routed.buffer.sum((1, 2))) / p.event_rate
    if p.burst:
        phase = torch.where(mark >= p.event_rate - 1.0 / p.burst_time, 1 - phase, phase)
    amount = _amount(p, arrived, noise)
    return Served(routed.queue - done, done.sum(-1), arrived, amount, latency, phase)


def _amount(p: BankingParams, arrived: Tensor, noise: Noise) -> Tensor:
    """Amounts of new payments in $; those of one class, router and slot share one draw."""
    spread = p.amount_spread
    return arrived * p.amount * torch.exp(spread * noise["amount"] - 0.5 * spread**2)
