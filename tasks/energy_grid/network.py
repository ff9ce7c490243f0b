"""The grid itself: generators, loads, lines, and how power flows over them. Drawn once, in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.energy_grid.params import EnergyGridParams

MIN_OUTPUT = 0.1
"""Least output of a generator over its capacity."""


class Grid(NamedTuple):
    """Constants of a grid; G generators, J loads, N buses, L lines."""

    least: Tensor
    """Least output, MW ``[G]``."""
    most: Tensor
    """Capacity, MW ``[G]``."""
    ramp: Tensor
    """Largest change of the output per step, MW ``[G]``."""
    quadratic: Tensor
    """a of the cost a p^2 + b p in $ / h, ``[G]``."""
    linear: Tensor
    """b of the cost, $ / MWh ``[G]``."""
    at_bus: Tensor
    """1 where a generator feeds a bus, ``[G, N]``."""
    load: Tensor
    """Mean load at the daily peak, MW ``[J]``."""
    load_bus: Tensor
    """1 where a load takes from a bus, ``[J, N]``."""
    wind: Tensor
    """Mean wind power of every bus, MW ``[N]``."""
    profile: Tensor
    """Load of every step of a day over the peak load, ``[steps of a day]``."""
    # Multiply by `linear(x, table)`: to a compiled loop `table.T` is a second input that shares its memory.
    ptdf: Tensor
    """Flow on every line per MW fed in at a bus and taken out at bus 0, ``[L, N]``."""
    ends: Tensor
    """Buses that each line joins, int64 ``[L, 2]``; a flow from the first to the second is positive."""
    susceptance: Tensor
    """Of every line, per unit, ``[L]``."""
    storage_bus: Tensor
    """1 where a battery feeds a bus, ``[n_storage, N]``."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Grid:
        """The grid on another device, its floats in another precision."""
        return Grid(*(x.to(device, dtype) if x.is_floating_point() else x.to(device) for x in self))


def draw_grid(params: EnergyGridParams) -> Grid:
    """The grid of ``params``: the cheap generators are slow, and stand together at the first buses."""
    p, rng = params, torch.Generator().manual_seed(params.grid_seed)

    def uniform(n: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=rng, dtype=torch.float64)

    most = p.mean_size * uniform(p.n_agents, 0.5, 1.5)
    rank = torch.randperm(p.n_agents, generator=rng).double() / (p.n_agents - 1)  # 0: the cheapest
    linear = 10.0 + 35.0 * rank
    quadratic = uniform(p.n_agents, 5.0, 10.0) / (
        2 * most
    )  # marginal cost rises by 5 to 10 $ / MWh
    ramp = p.ramp_scale * (0.02 + 0.08 * rank) * most
    bus = (rank * p.n_buses).long().clamp_max(p.n_buses - 1)  # cheap ones at the first buses
    peak = float(most.sum()) / p.capacity_margin
    weight = uniform(p.n_loads, 0.5, 1.5)
    load_at = torch.randint(p.n_buses, (p.n_loads,), generator=rng)
    windy = uniform(p.n_buses, 0.0, 1.0)
    ends = _lines(p.n_buses, rng)
    susceptance = uniform(ends.shape[0], 5.0, 15.0)
    battery = torch.arange(p.n_storage) * p.n_buses // max(p.n_storage, 1)
    return Grid(
        least=MIN_OUTPUT * most,
        most=most,
        ramp=ramp,
        quadratic=quadratic,
        linear=linear,
        at_bus=torch.nn.functional.one_hot(bus, p.n_buses).double(),
        load=peak * weight / weight.sum(),
        load_bus=torch.nn.functional.one_hot(load_at, p.n_buses).double(),
        wind=p.wind_share * peak * windy / windy.sum(),
        profile=day_profile(max(1, round(24.0 / p.dt)), p.dt),
        ptdf=transfer_factors(ends, susceptance, p.n_buses),
        ends=ends,
        susceptance=susceptance,
        storage_bus=torch.nn.functional.one_hot(battery, p.n_buses).double(),
    )


def _lines(n_buses: int, rng: torch.Generator) -> Tensor:
    """A ring, and half as many lines across it, ``[L, 2]``."""
    here = torch.arange(n_buses)
    ring = torch.stack([here, (here + 1) % n_buses], -1)
    first = torch.randperm(n_buses, generator=rng)[: n_buses // 2]
    leap = torch.randint(2, max(3, n_buses - 1), (n_buses // 2,), generator=rng)
    across = torch.stack([first, (first + leap) % n_buses], -1)
    return torch.cat([ring, across[(across[:, 0] != across[:, 1])]])


def day_profile(n_steps: int, dt: float) -> Tensor:
    """Load of a day over its peak: low at night, a shoulder in the morning, the peak in the evening."""
    hour = torch.arange(n_steps, dtype=torch.float64) * dt
    shape = torch.full_like(hour, 0.6)
    for height, middle, width in ((0.25, 8.5, 2.0), (0.12, 13.0, 4.0), (0.4, 19.0, 2.5)):
        away = (hour - middle + 12.0) % 24.0 - 12.0
        shape = shape + height * (-((away / width) ** 2)).exp()
    return shape / shape.max()


def transfer_factors(ends: Tensor, susceptance: Tensor, n_buses: int) -> Tensor:
    """Power transfer distribution factors ``[L, n_buses]`` of the DC load flow, bus 0 balancing.

    Flow = diag(susceptance) A theta with the incidence matrix A, and A' diag(susceptance) A theta =
    injections, solved without bus 0 (Wood, Wollenberg & Sheble, "Power Generation, Operation, and Control",
    chapter 7).
    """
    n_lines = ends.shape[0]
    incidence = torch.zeros((n_lines, n_buses), dtype=torch.float64)
    incidence.scatter_(1, ends[:, :1], 1.0)
    incidence.scatter_(1, ends[:, 1:], -1.0)
    branch = susceptance.unsqueeze(-1) * incidence
    nodal = incidence.T @ branch
    factors = torch.zeros_like(branch)
    factors[:, 1:] = torch.linalg.solve(nodal[1:, 1:], branch[:, 1:].T).T
    return factors
