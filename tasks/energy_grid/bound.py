"""A lower bound on the cost of a day: the linear programme of someone who knows it in advance."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import numpy as np
import torch

from marl_td.tasks.base import Optimum
from marl_td.tasks.energy_grid import storage
from marl_td.tasks.energy_grid.dispatch import economic_dispatch, fuel_cost
from marl_td.tasks.energy_grid.network import Grid, draw_grid
from marl_td.tasks.energy_grid.params import EnergyGridParams
from marl_td.tasks.energy_grid.pooled import pooled
from marl_td.tasks.energy_grid.reference import make_reference, mean_net_load

SEGMENTS = 8
"""Straight pieces that stand for a generator's quadratic cost, from below."""
LARGEST = 60
"""Generators up to which the linear programme is solved; it takes seconds there and minutes beyond."""


def optimum(params: EnergyGridParams) -> Optimum:
    """Least cost in $ per MWh: :func:`lower_bound`, or in large grids the looser :func:`unconstrained`."""
    value = _cached(json.dumps(dataclasses.asdict(params)))
    method = "linear programme"
    if params.n_agents > LARGEST:
        method = "economic dispatch without ramps and lines"
        method += ", batteries as one," if params.n_storage > 0 else ""
    how = f"{method} of the mean day, known in advance; it is convex, so noise only adds cost"
    return Optimum(value, "lower", how)


@functools.lru_cache(maxsize=32)
def _cached(key: str) -> float:
    params = EnergyGridParams(**json.loads(key))
    grid = draw_grid(params)
    net = _episode(mean_net_load(grid), params.max_steps)
    energy = params.dt * float(grid.load.sum()) * _episode(grid.profile, params.max_steps).sum()
    find = lower_bound
    if params.n_agents > LARGEST:
        find = unconstrained if params.n_storage == 0 else pooled
    return float(find(params, grid, net) / energy)


def _episode(day: torch.Tensor, n_steps: int) -> Any:
    """Rows of a day, repeated, for the steps of an episode."""
    return day[torch.arange(n_steps) % day.shape[0]].numpy()


def lower_bound(params: EnergyGridParams, grid: Grid, net: Any) -> float:
    """Least cost in $ of meeting the net loads ``net`` (MW, ``[n_steps, N]``), known in advance.

    Variables per step: output of every generator in ``SEGMENTS`` pieces and its move, power unserved and in
    surplus, what every bus feeds in, flow of every line within its limit and above it, what every battery
    takes, feeds in and holds. Ramps bind from the start state on; batteries start empty, and nothing forbids
    one to take and feed in at once (which only lowers the bound). The pieces are the envelope of tangents,
    which lies below the quadratic cost. As the cost is convex in the net loads, the cost at their mean bounds
    the mean cost of all days from below (Jensen), whoever dispatches with whatever knowledge; and a blackout
    costs at least what unserved load does.
    """
    from scipy.optimize import linprog

    width, slope, base = tangent_pieces(grid)
    reference = make_reference(params, grid)
    sizes = _sizes(grid)
    start = reference.start.numpy() - grid.least.numpy()
    matrix, right = _equations(params, grid, net, start, sizes)
    free, limit = np.full(sizes[4], np.inf), reference.limit.numpy()
    room, ramp = (grid.most - grid.least).numpy(), grid.ramp.numpy()
    beyond = np.full(2 * sizes[5], np.inf)
    battery = np.repeat([params.storage_power] * 2 + [params.storage_energy], params.n_storage)
    high = np.concatenate([width, room, ramp, [np.inf] * 2, free, limit, beyond, battery])
    none = np.zeros(2 * sizes[5] + battery.size)
    low = np.concatenate([0 * width, 0 * room, -ramp, [0.0] * 2, -free, -limit, none])
    price = np.zeros(sum(sizes))
    price[: sizes[0]] = slope
    price[sum(sizes[:3]) : sum(sizes[:4])] = params.unserved_cost, params.surplus_cost
    price[sum(sizes[:6]) : sum(sizes[:8])] = params.overload_cost
    n_steps = net.shape[0]
    result = linprog(
        np.tile(params.dt * price, n_steps),
        A_eq=matrix,
        b_eq=right,
        bounds=np.tile(np.stack([low, high], 1), (n_steps, 1)),
        method="highs-ipm",
    )
    if result.status != 0:
        raise RuntimeError(f"the linear programme of the day has no solution: {result.message}")
    return float(result.fun) + params.dt * n_steps * base


def _sizes(grid: Grid) -> list[int]:
    """Variables per step: pieces, outputs above least, moves, gap, buses, 3 x lines, 3 x batteries."""
    n_gen, (n_lines, n_bus), n_storage = grid.most.shape[0], grid.ptdf.shape, len(grid.storage_bus)
    return [n_gen * SEGMENTS, n_gen, n_gen, 2, n_bus, *[n_lines] * 3, *[n_storage] * 3]


def _equations(
    params: EnergyGridParams, grid: Grid, net: Any, start: Any, sizes: list[int]
) -> tuple[Any, Any]:
    """All equations of the programme; ``start`` holds the outputs before the first step, above least."""
    from scipy.sparse import csr_matrix, identity, kron, vstack

    n_steps, n_bus = net.shape
    n_gen, n_lines, n_storage = sizes[1], sizes[5], sizes[8]
    least, at_bus = grid.least.numpy(), csr_matrix(grid.at_bus.numpy())
    stored_at, all_of_it = csr_matrix(grid.storage_bus.numpy()), np.ones((1, n_storage))
    one, line, each = (identity(n, format="csr") for n in (n_gen, n_lines, n_storage))
    into, out_of = params.dt * storage.one_way(params), params.dt / storage.one_way(params)
    rows = [
        _row(
            sizes, {0: kron(one, np.ones((1, SEGMENTS))), 1: -one}
        ),  # an output is its pieces' sum,
        _row(sizes, {1: one, 2: -one}),  # and the output before (put in below) + the move
        _row(  # what a bus feeds in
            sizes, {1: -at_bus.T, 4: identity(n_bus), 8: stored_at.T, 9: -stored_at.T}
        ),
        _row(  # balance
            sizes,
            {1: np.ones((1, n_gen)), 3: np.array([[1.0, -1.0]]), 8: -all_of_it, 9: all_of_it},
        ),
        _row(sizes, {4: grid.ptdf.numpy(), 5: -line, 6: -line, 7: line}),  # flow = within +- above
        _row(sizes, {8: -into * each, 9: out_of * each, 10: each}),  # held = before + what is left
    ]
    before = [csr_matrix(row.shape) for row in rows]
    before[1], before[5] = _row(sizes, {1: -one}), _row(sizes, {10: -each})
    right = [
        np.zeros((n_steps, n_gen)),
        np.concatenate([start[None], np.zeros((n_steps - 1, n_gen))]),
        (at_bus.T @ least)[None] - net,
        net.sum(1, keepdims=True) - least.sum(),
        np.zeros((n_steps, n_lines + n_storage)),
    ]
    earlier = csr_matrix(np.eye(n_steps, k=-1))
    matrix = kron(identity(n_steps), vstack(rows), "csr") + kron(earlier, vstack(before), "csr")
    return matrix, np.concatenate(right, 1).ravel()


def _row(sizes: list[int], blocks: dict[int, Any]) -> Any:
    """Rows of the programme for one step: ``blocks`` at their groups of variables, 0 elsewhere."""
    from scipy.sparse import csr_matrix, hstack

    n_rows = next(iter(blocks.values())).shape[0]
    parts = [blocks.get(i, csr_matrix((n_rows, size))) for i, size in enumerate(sizes)]
    return hstack([csr_matrix(part) for part in parts], format="csr")


def unconstrained(params: EnergyGridParams, grid: Grid, net: Any) -> float:
    """Least cost in $ of the net loads ``[n_steps, N]`` without ramps and lines, by bisection.

    What load lies outside the generators' limits is charged as unserved or surplus.
    """
    demand = torch.as_tensor(net).sum(-1)
    shape = (demand.shape[0], grid.most.shape[0])
    power, _ = economic_dispatch(grid, demand, grid.least.expand(shape), grid.most.expand(shape))
    gap = power.sum(-1) - demand
    other = params.unserved_cost * (-gap).clamp_min(0) + params.surplus_cost * gap.clamp_min(0)
    return params.dt * float((fuel_cost(grid, power) + other).sum())


def tangent_pieces(grid: Grid) -> tuple[Any, Any, float]:
    """Widths (MW) and slopes ($ / MWh) of all pieces ``[G x SEGMENTS]``; cost at least output below, $ / h.

    Tangents at the middles of equal pieces cross at the pieces' ends, so that the envelope's slopes are the
    marginal costs in the middles; it lies a (width / 2)^2 below the cost at the ends.
    """
    width = ((grid.most - grid.least) / SEGMENTS).unsqueeze(-1).repeat(1, SEGMENTS)
    middle = grid.least.unsqueeze(-1) + width * (torch.arange(SEGMENTS) + 0.5)
    slope = 2.0 * grid.quadratic.unsqueeze(-1) * middle + grid.linear.unsqueeze(-1)
    at_least = (grid.quadratic * grid.least + grid.linear) * grid.least
    below = grid.quadratic * (width[:, 0] / 2) ** 2
    return width.flatten().numpy(), slope.flatten().numpy(), float((at_least - below).sum())
