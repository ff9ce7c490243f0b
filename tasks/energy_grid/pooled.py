"""A bound for large grids with batteries: generators as one, batteries as one, no ramps and no lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from marl_td.tasks.energy_grid import storage
from marl_td.tasks.energy_grid.dispatch import economic_dispatch, fuel_cost
from marl_td.tasks.energy_grid.network import Grid
from marl_td.tasks.energy_grid.params import EnergyGridParams

TANGENTS = 100
"""Straight lines that stand for the cost of all generators, from below."""


def pooled(params: EnergyGridParams, grid: Grid, net: Any) -> float:
    """Least cost in $ of meeting the net loads ``net`` (MW, ``[n_steps, N]``) by linear programme.

    The cheapest cost of a total output is convex in it, and its slope is the price of economic dispatch: its
    tangents lie below it. Batteries of one kind can do no more one by one than together.

    Variables of a step: output, its cost per hour, unserved, surplus, taken by, fed in by and held in the
    batteries.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, identity, kron

    least, most = float(grid.least.sum()), float(grid.most.sum())
    total = torch.linspace(least, most, TANGENTS, dtype=torch.float64)
    shape = (TANGENTS, grid.most.shape[0])
    power, price = economic_dispatch(grid, total, grid.least.expand(shape), grid.most.expand(shape))
    base = fuel_cost(grid, power) - price * total
    demand = np.asarray(net).sum(-1)
    n_steps, dt, share = len(demand), params.dt, storage.one_way(params)
    each = identity(n_steps, format="csr")
    tangents = np.zeros((TANGENTS, 7))
    tangents[:, 0], tangents[:, 1] = price.numpy(), -1.0
    step = np.array(
        [[1.0, 0.0, 1.0, -1.0, -1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, -dt * share, dt / share, 1.0]]
    )
    before = csr_matrix(np.array([[0.0] * 7, [0.0] * 6 + [-1.0]]))
    costs = np.array([0.0, 1.0, params.unserved_cost, params.surplus_cost, 0.0, 0.0, 0.0])
    most_power, most_held = (
        params.n_storage * x for x in (params.storage_power, params.storage_energy)
    )
    free: tuple[float, float | None] = (0.0, None)
    bounds = [(least, most), (None, None), free, free, *[(0.0, most_power)] * 2, (0.0, most_held)]
    result = linprog(
        np.tile(dt * costs, n_steps),
        A_ub=kron(each, tangents, "csr"),
        b_ub=np.tile(-base.numpy(), n_steps),
        A_eq=kron(each, step, "csr") + kron(csr_matrix(np.eye(n_steps, k=-1)), before, "csr"),
        b_eq=np.stack([demand, 0.0 * demand], 1).ravel(),
        bounds=bounds * n_steps,
        method="highs-ipm",
    )
    if result.status != 0:
        raise RuntimeError(f"the linear programme of the day has no solution: {result.message}")
    return float(result.fun)
