"""The routing problem as a Markov decision process on the numbers in the three channels.

State: the number of payments in each channel just after routing, on a truncated grid
``[n_phases, size_0, size_1, size_2]``, with the arrival phase in front (one phase without bursts). Arrivals
are seen and routed one by one with full knowledge of the state, which is what a single router with
fresh loads could do. Float64 on the CPU; torch only for its shifts and small matrix products.

Source: Puterman, "Markov Decision Processes" (1994), section 8.5 (relative value iteration and its
bounds) and 11.5 (uniformisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.banking.params import N_CHANNELS, BankingParams

EXTRA = (43, 35, 17)
"""Places kept per channel beyond its servers: with the default servers a grid of 46 x 40 x 26."""
CLOSED = 1e6
"""Value of routing into a full channel."""


class Solution(NamedTuple):
    """Result of relative value iteration: bounds of the mean cost per payment, and the best channel.

    ``low`` and ``high`` bound the optimal long-run cost per payment on the grid, in s; ``table`` holds the
    best channel for a payment of a class that finds a state, ``[n_classes, n_phases, *sizes]`` int64.
    """

    low: float
    high: float
    table: Tensor


def grid_sizes(params: BankingParams, extra: Sequence[int] = EXTRA) -> tuple[int, ...]:
    """Number of loads kept per channel: 0 to ``servers + extra``, or to its capacity if that is less."""
    columns = zip(params.servers, extra, params.capacity, strict=True)
    return tuple(min(c + more, room) + 1 for c, more, room in columns)


class Chain:
    """The truncated chain of a parameter set, under either clock.

    Args:
        params: the task's parameters.
        clock: ``"event"`` or ``"slot"``; None takes the parameters' own.
        extra: places per channel beyond its servers.
    """

    def __init__(
        self, params: BankingParams, clock: str | None = None, extra: Sequence[int] = EXTRA
    ) -> None:
        self.params = params
        self.clock = clock or params.clock
        self.sizes = grid_sizes(params, extra)
        self.shape = (len(params.phases), *self.sizes)
        grids = [torch.arange(size, dtype=torch.float64) for size in self.sizes]
        self.number = torch.stack(torch.meshgrid(*grids, indexing="ij"))
        view = (-1, 1, 1, 1)
        self.servers = torch.tensor(params.servers, dtype=torch.float64).view(view)
        self.rate = torch.tensor(params.service_rate, dtype=torch.float64).view(view)
        self.arrivals = torch.tensor(params.phases, dtype=torch.float64).view(view)
        self.busy_rate = self.rate * torch.minimum(self.number, self.servers)
        self.event_rate = params.event_rate
        if self.clock == "slot":
            self._slot_kernels()
        self.cost = self._step_cost()
        """Expected payment-seconds spent in the system during one step, ``[n_phases, *sizes]``."""

    # ------------------------------------------------------------------ clocks
    def _slot_kernels(self) -> None:
        """Per channel: transition matrix over one slot of pure service, and expected time integral."""
        dt, self.death, integral = self.params.dt, [], []
        for c, mu, size in zip(
            self.params.servers, self.params.service_rate, self.sizes, strict=True
        ):
            number = torch.arange(size, dtype=torch.float64)
            rate = mu * number.clamp(max=c)
            block = torch.zeros(2 * size, 2 * size, dtype=torch.float64)
            block[:size, :size] = torch.diag(-rate) + torch.diag(rate[1:], -1)
            block[:size, size:] = torch.eye(size, dtype=torch.float64)
            power = torch.linalg.matrix_exp(block * dt)  # upper right: integral of exp(Q s) ds
            self.death.append(power[:size, :size])
            integral.append(power[:size, size:] @ number)
        parts = torch.meshgrid(*integral, indexing="ij")
        self.slot_time = parts[0] + parts[1] + parts[2]
        mean = self.arrivals.flatten() * dt
        most = (
            int(torch.special.gammaincc(torch.arange(1.0, 60.0), mean.max()).lt(1 - 1e-7).sum()) + 1
        )
        count = torch.arange(most + 1, dtype=torch.float64)
        law = torch.exp(count * mean.log()[:, None] - mean[:, None] - torch.lgamma(count + 1))
        law[:, -1] += 1 - law.sum(1)
        self.batch_law = law  # [n_phases, most + 1]

    def _switch(self, value: Tensor) -> Tensor:
        """Mean over the phase at the end of a slot (slot clock with bursts)."""
        if len(self.params.phases) == 1:
            return value
        p = 1.0 - float(torch.exp(torch.tensor(-self.params.dt / self.params.burst_time)))
        return (1 - p) * value + p * value.flip(0)

    def _step_cost(self) -> Tensor:
        if self.clock == "event":
            return (self.number.sum(0) / self.event_rate).expand(self.shape)
        waiting = self.arrivals * self.params.dt**2 / 2  # arrivals wait for the next slot to start
        return self.slot_time + waiting

    def arrivals_per_step(self) -> float:
        """Mean number of arrivals in one step."""
        step = 1 / self.event_rate if self.clock == "event" else self.params.dt
        return self.params.arrival_rate * step

    # ------------------------------------------------------------ one backup
    def best(self, value: Tensor, fee: Tensor) -> Tensor:
        """Value after one more payment went to its best channel, ``[n_phases, *sizes]``.

        Args:
            value: value after routing, ``[n_phases, *sizes]``.
            fee: cost of each channel for this payment, ``[n_channels]``.
        """
        out = torch.full_like(value, CLOSED)
        for k, size in enumerate(self.sizes, start=1):
            free = out.narrow(k, 0, size - 1)
            torch.minimum(free, value.narrow(k, 1, size - 1) + fee[k - 1], out=free)
        out[:, -1, -1, -1] = value[:, -1, -1, -1]  # all channels full: the payment is lost
        return out

    def best_channel(self, value: Tensor, fee: Tensor) -> Tensor:
        """The channel that :meth:`best` takes, ``[n_phases, *sizes]`` int64."""
        cost = torch.full((N_CHANNELS, *value.shape), CLOSED, dtype=value.dtype)
        for k, size in enumerate(self.sizes, start=1):
            cost[k - 1].narrow(k, 0, size - 1).copy_(value.narrow(k, 1, size - 1) + fee[k - 1])
        return cost.argmin(0)

    def backup(self, value: Tensor, fee: Tensor, law: Tensor) -> Tensor:
        """Bellman operator on the value after routing ``[n_phases, *sizes]``.

        Args:
            value: value after routing.
            fee: cost of a channel for a payment of each class, ``[n_classes, n_channels]``, s.
            law: probability of each class, ``[n_classes]``.
        """

        def routed(value: Tensor) -> Tensor:
            return sum((p * self.best(value, f) for p, f in zip(law, fee, strict=True)), 0 * value)

        if self.clock == "event":
            return self.cost + self._event(value, routed(value))
        after = self.batch_law[:, :1, None, None] * value
        for i in range(1, self.batch_law.shape[1]):
            value = routed(value)
            after += self.batch_law[:, i : i + 1, None, None] * value
        after = self._switch(after)
        for k, death in enumerate(self.death, start=1):
            after = torch.movedim(torch.movedim(after, k, -1) @ death.T, -1, k)
        return self.cost + after

    def _event(self, value: Tensor, after_arrival: Tensor) -> Tensor:
        """Mean of the next event's value on the event clock."""
        total = self.arrivals * after_arrival
        idle = self.event_rate - self.arrivals
        for k, size in enumerate(self.sizes, start=1):
            rate = self.busy_rate[k - 1]
            left = (torch.arange(size) - 1).clamp(min=0)
            total = total + rate * value.index_select(k, left)
            idle = idle - rate
        if len(self.params.phases) > 1:
            total = total + value.flip(0) / self.params.burst_time
            idle = idle - 1 / self.params.burst_time
        return (total + idle * value) / self.event_rate

    # ---------------------------------------------------------------- solving
    def solve(
        self,
        fee: Tensor | None = None,
        law: Sequence[float] = (1.0,),
        tolerance: float = 1e-6,
        max_sweeps: int = 20_000,
    ) -> Solution:
        """Relative value iteration for latency (s) plus routing fees (s per payment).

        Args:
            fee: ``[n_classes, n_channels]`` cost of routing a payment of a class to a channel, in s.
            law: probability of each class.
            tolerance: stop once the bounds of the cost per payment are this close, in s.
            max_sweeps: stop at the latest after this many sweeps; the bounds stay valid.
        """
        fee = torch.zeros(1, N_CHANNELS, dtype=torch.float64) if fee is None else fee
        weight = torch.tensor(list(law), dtype=torch.float64)
        value = torch.zeros(self.shape, dtype=torch.float64)
        per_step = self.arrivals_per_step()
        low = high = 0.0
        for sweep in range(max_sweeps):
            new = self.backup(value, fee, weight)
            if sweep % 20 == 0:
                change = new - value
                low, high = float(change.min()) / per_step, float(change.max()) / per_step
            value = new - new.flatten()[0]
            if high - low < tolerance and sweep > 0:
                break
        return Solution(low, high, torch.stack([self.best_channel(value, f) for f in fee]))

    def total_cost(self, steps: int) -> Tensor:
        """Least expected payment-seconds over a finite number of steps, ``[n_phases, *sizes]`` (by start)."""
        fee, law = torch.zeros(1, N_CHANNELS), torch.ones(1)
        value = torch.zeros(self.shape, dtype=torch.float64)
        for _ in range(steps):
            value = self.backup(value, fee, law)
        return value

    def stationary(self, share: Tensor, tolerance: float = 1e-11) -> Tensor:
        """Stationary law ``[*sizes]`` on the event clock without bursts, by power iteration.

        Args:
            share: ``[n_channels, *sizes]`` probability that an arrival which finds that state goes to a
                channel (one-hot for a deterministic policy).
            tolerance: stop once a sweep changes the law by less than this (sum of absolute changes).
        """
        law = torch.zeros(self.sizes, dtype=torch.float64)
        law[0, 0, 0] = 1.0
        down, up = (
            self.busy_rate / self.event_rate,
            share * (self.params.arrival_rate / self.event_rate),
        )
        stay = 1 - down.sum(0) - up.sum(0)
        for sweep in range(50_000):
            new = law * stay
            for k, size in enumerate(self.sizes):
                new.narrow(k, 0, size - 1).add_((law * down[k]).narrow(k, 1, size - 1))
                enter = law * up[k]
                new.narrow(k, 1, size - 1).add_(enter.narrow(k, 0, size - 1))
                new.select(k, size - 1).add_(enter.select(k, size - 1))  # a full channel loses it
            if sweep % 50 == 0 and float((new - law).abs().sum()) < tolerance:
                return new / new.sum()
            law = new
        return law / law.sum()
