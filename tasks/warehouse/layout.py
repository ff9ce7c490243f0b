"""The floor of a warehouse: shelves, aisles, where orders are picked and where they are delivered.

Blocks of shelves, two deep, stand in rows with aisles of one cell around them; left and right are three
free columns, with a delivery station at each row of blocks on the very edge::

    . . . P P P P P . P P P P P . . .
    D . . # # # # # . # # # # # . . D
    . . . # # # # # . # # # # # . . .
    . . . P P P P P . P P P P P . . .
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np

from marl_td.tasks.base import require
from marl_td.tasks.grid.distance import Array, components, distance_fields
from marl_td.tasks.warehouse.params import WarehouseParams

EDGE = 3
"""Free columns on the left and on the right."""
SLENDER = 1.6
"""Rows of blocks for each column of blocks."""
MAX_PICKS = 256
"""Cells where orders are picked, at most; of more, so many are taken at equal distances."""


class Layout(NamedTuple):
    """A floor; cells are counted row by row."""

    free: Array
    """Where robots can be, ``[rows, columns]`` bool."""
    picks: Array
    """Cells where orders are picked, ``[n_picks]``."""
    drops: Array
    """Cells where they are delivered, ``[n_drops]``."""
    steps: Array
    """Shortest ways from every cell to the picks and then the drops, int16 ``[n_goals, n_cells]``."""


def make_layout(params: WarehouseParams) -> Layout:
    """The floor of a task, from a small cache.

    Raises:
        ValueError: if the robots do not fit, or not all of the floor hangs together.
    """
    p = params
    return _make(p.layout, p.n_agents, p.density, p.shelf_length)


@functools.lru_cache(maxsize=4)
def _make(text: str, n_agents: int, density: float, shelf_length: int) -> Layout:
    letters = _letters(text) if text else _smallest(n_agents / density, shelf_length)
    free = letters != "#"
    picks, drops = (np.flatnonzero(letters.ravel() == kind) for kind in "PD")
    require(len(picks) > 0 and len(drops) > 0, "the layout needs at least one 'P' and one 'D'.")
    require(components(free).max() == 0, "the floor of the layout must hang together.")
    room = int(free.sum())
    require(room >= n_agents, f"{n_agents} robots do not fit on {room} cells of floor.")
    picks = picks[np.linspace(0, len(picks) - 1, min(len(picks), MAX_PICKS)).round().astype(int)]
    return Layout(free, picks, drops, distance_fields(free, np.concatenate([picks, drops])))


def _letters(text: str) -> Array:
    """The letters of a layout, ``[rows, columns]``."""
    rows = text.split()
    known = len({len(row) for row in rows}) == 1 and not set("".join(rows)) - set(".#PD")
    require(known, f"a layout is rows of '.', '#', 'P' and 'D', all of one length; got '{text}'.")
    return np.array([list(row) for row in rows])


def _smallest(room: float, shelf_length: int) -> Array:
    """The smallest warehouse with at least ``room`` cells of floor."""
    for across in itertools.count(1):
        letters = _blocks(round(SLENDER * across), across, shelf_length)
        if (letters != "#").sum() >= room:
            break
    return letters


def _blocks(down: int, across: int, length: int) -> Array:
    """A warehouse of ``down`` times ``across`` blocks."""
    rows, columns = 3 * down + 1, across * (length + 1) - 1
    row, column = np.arange(rows)[:, None], np.arange(columns)
    shelf = column % (length + 1) < length
    letters = np.where(row % 3 == 0, np.where(shelf, "P", "."), np.where(shelf, "#", "."))
    edge = np.full((rows, EDGE), ".")
    station = np.where(row % 3 == 1, "D", ".")
    return np.concatenate([station, edge[:, 1:], letters, edge[:, 1:], station], 1)
