"""Places for all drones from which they see as much as possible at once: what static coverage can reach."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]

FINE = 8
"""Places along a side of a cell that are tried for a drone."""


def seen_share(places: Places, side: float, n_cells: int, radius: float) -> float:
    """Share of the cells whose middle is within ``radius`` of one of ``places`` ``[n, 2]``."""
    middle = (np.arange(n_cells) + 0.5) * side / n_cells
    dx = (middle - places[:, :1]) ** 2  # [n, n_cells]
    dy = (middle - places[:, 1:]) ** 2
    return float((dx[:, :, None] + dy[:, None, :] <= radius**2 + 1e-9).any(0).mean())


@lru_cache(maxsize=16)
def greedy_cover(n: int, side: float, n_cells: int, radius: float) -> float:
    """Share of the cells seen from places that are chosen one after the other, each for most new cells.

    Of the places tried, no choice sees more than 1 / (1 - 1/e) = 1.58 times as many (Nemhauser et al. 1978).
    """
    from scipy.ndimage import correlate

    cell = side / n_cells
    reach = math.ceil(radius / cell) + 1
    way = np.arange(-reach, reach + 1) + 0.5
    shift = np.arange(FINE) / FINE
    dx = ((way[:, None] - shift) * cell) ** 2  # [cells, shifts]
    masks = dx.T[:, None, :, None] + dx.T[None, :, None, :] <= radius**2 + 1e-9
    kernels = np.unique(masks.reshape(-1, len(way), len(way)), axis=0).astype(float)
    kernels = kernels[kernels.sum((1, 2)) >= kernels.sum((1, 2)).max() - 1]
    left = np.ones((n_cells, n_cells))
    for _ in range(n):
        gains = np.stack([correlate(left, kernel, mode="constant") for kernel in kernels])
        which, row, column = np.unravel_index(gains.argmax(), gains.shape)
        rows, columns = np.nonzero(kernels[which])
        rows, columns = rows + row - reach, columns + column - reach
        inside = (np.minimum(rows, columns) >= 0) & (np.maximum(rows, columns) < n_cells)
        left[rows[inside], columns[inside]] = 0.0
    return float(1.0 - left.mean())


@lru_cache(maxsize=16)
def kmeans_cover(n: int, side: float, n_cells: int, radius: float, starts: int = 8) -> float:
    """Share of the cells seen from the centres of a k-means clustering of them, best of several starts.

    Lloyd's algorithm, which lloyd of :mod:`marl_td.tasks.drones.policies` flies.
    """
    rng = np.random.default_rng(0)
    middle = (np.arange(n_cells) + 0.5) * side / n_cells
    cells = np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2)
    best = 0.0
    for _ in range(starts):
        places = cells[rng.choice(len(cells), n, replace=False)]
        for _ in range(60):
            owner = ((cells[:, None] - places) ** 2).sum(-1).argmin(1)
            count = np.bincount(owner, minlength=n)
            total = np.stack([np.bincount(owner, cells[:, axis], n) for axis in (0, 1)], -1)
            moved = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], places)
            if np.allclose(moved, places):
                break
            places = moved
        best = max(best, seen_share(places, side, n_cells, radius))
    return best
