"""The maps of a task, what hangs together on them, and all distances: computed once, on the CPU."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from marl_td.tasks.base import require
from marl_td.tasks.grid.distance import Array, components, distance_fields, read_maps
from marl_td.tasks.mapf.params import MapfParams

ATTEMPTS = 200
"""How often a map is drawn anew that has no room for all agents."""


class Maps(NamedTuple):
    """Maps of the same shape, and tables over their cells, which are counted row by row."""

    free: Array
    """``[n_maps, rows, columns]`` bool."""
    distance: Array
    """Steps between any two cells, int16 ``[n_maps, n_cells, n_cells]``."""
    members: Array
    """The cells, those of a connected part together, walls last, ``[n_maps, n_cells]``."""
    first: Array
    """Where the part of a cell begins in ``members``; ``n_cells`` for walls."""
    number: Array
    """How many cells the part of a cell has."""
    rank: Array
    """Which of its part's cells it is."""


def make_maps(params: MapfParams) -> Maps:
    """The maps of a task, from a small cache.

    Raises:
        ValueError: if the agents do not fit: each needs a start and a goal that hang together.
    """
    p = params
    return _make(p.layout, p.grid_size, p.density, p.n_maps, p.map_seed, p.n_agents)


@functools.lru_cache(maxsize=4)
def _make(layout: str, size: int, density: float, n_maps: int, seed: int, n_agents: int) -> Maps:
    if layout:
        free = read_maps(layout)
        room = min(n_pairs(one) for one in free)
        require(
            room >= n_agents,
            f"the layout has starts and goals for {room} agents; {n_agents} do not fit.",
        )
    else:
        generator = np.random.default_rng(seed)
        free = np.stack([_draw(generator, size, density, n_agents) for _ in range(n_maps)])
    n_cells = free[0].size
    every = np.arange(n_cells)
    tables = [_hang_together(one) for one in free]
    distance = np.stack([distance_fields(one, every) for one in free])
    return Maps(free, distance, *(np.stack(table) for table in zip(*tables, strict=True)))


def n_pairs(free: Array) -> int:
    """How many pairs of start and goal a map has room for."""
    part = components(free)
    return int((np.bincount(part[part >= 0], minlength=1) // 2).sum())


def _draw(generator: np.random.Generator, size: int, density: float, n_agents: int) -> Array:
    """A random map with room for the agents."""
    for _ in range(ATTEMPTS):
        free: Array = generator.random((size, size)) >= density
        if n_pairs(free) >= n_agents:
            return free
    raise ValueError(
        f"{n_agents} agents, each with a start and a goal, do not fit on {size} x {size} cells with "
        f"obstacles at density {density:g}; raise grid_size or lower density."
    )


def _hang_together(free: Array) -> tuple[Array, Array, Array, Array]:
    """``members``, ``first``, ``number`` and ``rank`` of one map."""
    part = components(free)
    n_cells = part.size
    part = np.where(part < 0, n_cells, part)
    members = np.argsort(part, kind="stable")
    number = np.bincount(part, minlength=n_cells + 1)
    start = np.cumsum(number) - number
    rank = np.empty(n_cells, dtype=np.int64)
    rank[members] = np.arange(n_cells)
    first = np.where(part == n_cells, n_cells, start[part])
    return members, first, number[part], rank - start[part]
