"""Shortest paths on a map, computed once per map before anything runs (NumPy, on the CPU).

A map is ``free`` ``[rows, columns]`` bool; cells are counted row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FAR = 32_767
"""Distance to what cannot be reached."""


def distance_fields(free: Array, goals: Array) -> Array:
    """Steps from every cell to every goal, by breadth-first search from all goals at once.

    Args:
        free: the map, ``[rows, columns]`` bool.
        goals: free cells, ``[n_goals]``.

    Returns:
        int16 ``[n_goals, rows * columns]``; ``FAR`` where there is no way, and in walls.
    """
    rows, columns = free.shape
    padded = np.zeros((rows + 2, columns + 2), dtype=bool)
    padded[1:-1, 1:-1] = free
    width = columns + 2
    row, column = np.divmod(goals, columns)
    at = np.arange(len(goals)) * padded.size + (row + 1) * width + column + 1
    unseen = np.tile(padded.ravel(), len(goals))
    field = np.full(unseen.size, FAR, dtype=np.int16)
    finder = np.empty(unseen.size, dtype=np.int32)
    distance = 0
    while at.size:
        unseen[at] = False
        field[at] = distance
        found = (at[:, None] + np.array([-width, width, -1, 1])).ravel()
        found = found[unseen[found]]
        number = np.arange(found.size, dtype=np.int32)
        finder[found] = number
        at = found[finder[found] == number]  # each cell once
        distance += 1
    return field.reshape(-1, *padded.shape)[:, 1:-1, 1:-1].reshape(len(goals), -1)


def components(free: Array) -> Array:
    """Which connected part of the map each cell belongs to: ``[rows * columns]``, -1 in walls."""
    from scipy.ndimage import label

    return np.asarray(label(free)[0]).ravel().astype(np.int64) - 1


def read_maps(text: str) -> Array:
    """Maps from rows of ``.`` (free) and ``#`` (obstacle) with spaces between, ``/`` between maps.

    Returns:
        ``[n_maps, rows, columns]`` bool.

    Raises:
        ValueError: if there are other letters, or rows or maps of different size.
    """
    maps = [part.split() for part in text.split("/")]
    widths = {len(row) for rows in maps for row in rows}
    letters = {letter for rows in maps for row in rows for letter in row}
    if letters - set(".#") or len(widths) != 1 or len({len(rows) for rows in maps}) != 1:
        raise ValueError(
            f"maps are rows of '.' and '#', all of one size, with '/' between maps; got '{text}'."
        )
    return np.array([[[letter == "." for letter in row] for row in rows] for rows in maps])
