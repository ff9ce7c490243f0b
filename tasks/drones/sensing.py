"""What drones know: ages around them, other drones, targets; and the maps of the global state."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from marl_td.tasks.drones import space
from marl_td.tasks.drones.params import BLOCKS, VIEW, DronesParams
from marl_td.tasks.layout import squares, written


def cell_number(params: DronesParams, place: Tensor) -> Tensor:
    """Number ``row * n_cells + column`` of the cell of each ``place`` ``[..., 2]``."""
    cell = (place / params.cell).long().clamp(0, params.n_cells - 1)
    return cell[..., 1] * params.n_cells + cell[..., 0]


def in_sight(params: DronesParams, age: Tensor, target: Tensor) -> Tensor:
    """Targets in a cell that is seen (of age 0), ``[n_envs, n_targets]`` bool."""
    return age.flatten(1).gather(1, cell_number(params, target)) == 0.0


def ages(params: DronesParams, age: Tensor, position: Tensor) -> Tensor:
    """Mean age in s of the 8 x 8 blocks around each drone, ``[n_envs, n_agents, 64]``, rows from below.

    The means over all squares of ``pool ** 2`` cells are computed once, and each drone reads 64 of them.

    Args:
        params: of the drones.
        age: ``[n_envs, n_cells, n_cells]``.
        position: ``[n_envs, n_agents, 2]``.
    """
    edge = params.pool - 1  # squares that begin further out than this are empty
    margin = VIEW // 2 * params.pool - edge
    means = pad(age, [edge] * 4)
    means = _running_mean(_running_mean(means, 1, params.pool), 2, params.pool)
    means = written(pad(means, [margin] * 4))
    width = means.shape[-1]
    own = (position / params.cell).long().clamp(0, params.n_cells - 1)  # the corner of its view
    first = torch.arange(len(age), device=age.device).unsqueeze(-1) * width**2
    corner = first + own[..., 1] * width + own[..., 0]
    return squares(means, corner, VIEW, params.pool).flatten(2)


def _running_mean(values: Tensor, dim: int, width: int) -> Tensor:
    """Means of ``width`` values that follow each other along ``dim``."""
    n = values.shape[dim] - width + 1
    values = written(values)
    total = values.narrow(dim, 0, n)
    for shift in range(1, width):
        total = total + values.narrow(dim, shift, n)
    return total / width


def others(
    params: DronesParams, position: Tensor, velocity: Tensor, alive: Tensor, heard: Tensor
) -> Tensor:
    """The nearest other drones, ``[n_envs, n_agents, 5 * n_seen]``: offset, velocity, 1; or zeros."""
    near = space.nearest(
        position,
        position,
        alive,
        side=params.side,
        radius=params.comm_radius,
        k=params.n_seen,
        crowd=params.crowd,
        among_themselves=True,
    )
    index = near.which.flatten(1).unsqueeze(-1).expand(-1, -1, 2)
    moving = velocity.gather(1, index).unflatten(1, near.which.shape[1:])
    moving = (moving - velocity.unsqueeze(2)) / params.max_speed
    known = (near.found & heard).unsqueeze(-1)
    seen = torch.cat([near.offset / params.comm_radius, moving, known], -1)
    return torch.where(known, seen, 0.0).flatten(2)


def targets(params: DronesParams, position: Tensor, target: Tensor) -> Tensor:
    """The nearest targets in sight, ``[n_envs, n_agents, 3 * n_seen]``: offset, 1; or zeros."""
    near = space.nearest(
        position,
        target,
        torch.ones_like(target[..., 0], dtype=torch.bool),
        side=params.side,
        radius=params.sensing_radius,
        k=params.n_seen,
        crowd=params.crowd,
    )
    found = near.found.unsqueeze(-1)
    seen = torch.cat([near.offset / params.sensing_radius, found], -1)
    return torch.where(found, seen, 0.0).flatten(2)


def age_map(params: DronesParams, age: Tensor) -> Tensor:
    """Mean age of 10 x 10 blocks over ``sweep_time``, ``[n_envs, 100]``, rows from below."""
    blocks = age.unflatten(2, (BLOCKS, -1)).unflatten(1, (BLOCKS, -1))
    return blocks.mean((2, 4)).flatten(1) / params.sweep_time


def density(params: DronesParams, place: Tensor, weight: Tensor) -> Tensor:
    """Sum of ``weight`` ``[n_envs, n]`` in 10 x 10 blocks, ``[n_envs, 100]``, rows from below."""
    block = (place * (BLOCKS / params.side)).long().clamp(0, BLOCKS - 1)
    number = block[..., 1] * BLOCKS + block[..., 0]
    empty = torch.zeros((place.shape[0], BLOCKS**2), device=place.device)
    return empty.scatter_add(1, number, weight)
