"""Closed back-and-forth (boustrophedon) tours: one rectangle of the area for each drone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SPACING = 0.5
"""Distance between points of a tour in m."""

Points = NDArray[np.float64]


def rectangles(n: int, side: float) -> Points:
    """Left, bottom, right and top of ``n`` equal rectangles that fill a square, ``[n, 4]``."""
    n_rows = max(rows for rows in range(1, int(n**0.5) + 1) if n % rows == 0)
    n_columns = n // n_rows
    width, height = side / n_columns, side / n_rows
    column, row = np.meshgrid(np.arange(n_columns), np.arange(n_rows))
    left, bottom = column.ravel() * width, row.ravel() * height
    return np.stack([left, bottom, left + width, bottom + height], -1)


def lanes(width: float, height: float, margin: float, n_lanes: int) -> Points:
    """Corners of a closed tour in a rectangle from 0: an even number of lanes upwards and downwards.

    All but the first and the last lane stop short of the bottom, along which the tour comes back.
    """
    gap = (width - 2.0 * margin) / (n_lanes - 1)
    low, high = margin, height - margin
    short = low + (gap if n_lanes > 2 else 0.0)
    corners = []
    for lane in range(n_lanes):
        x = margin + gap * lane
        start = low if lane == 0 else short if lane % 2 == 0 else high
        end = low if lane == n_lanes - 1 else high if lane % 2 == 0 else short
        corners += [(x, start), (x, end)]
    return np.array(corners)


def points_of(corners: Points) -> Points:
    """Points along a closed polygon, about ``SPACING`` apart, ``[n, 2]``."""
    parts = []
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        n = max(1, round(float(np.hypot(*(end - start))) / SPACING))
        parts.append(start + np.arange(n)[:, None] / n * (end - start))
    return np.concatenate(parts)


def mean_age(tour: Points, width: float, height: float, sight: float, longest: float) -> float:
    """Mean age, in m of way, where a drone flies a tour for ever; ``longest`` where it never looks."""
    n_x, n_y = max(2, round(width)), max(2, round(height))
    x, y = (np.arange(n_x) + 0.5) * width / n_x, (np.arange(n_y) + 0.5) * height / n_y
    spot = np.stack(np.meshgrid(x, y), -1).reshape(-1, 1, 2)
    seen = np.hypot(*(spot - tour).transpose(2, 0, 1)) <= sight  # [spots, points]
    n = len(tour)
    ages = np.full(len(seen), longest)
    for spot_index in np.flatnonzero(seen.any(1)):
        at = np.flatnonzero(seen[spot_index])
        gaps = np.diff(np.append(at, at[0] + n)).astype(float)
        ages[spot_index] = min(longest, SPACING * (gaps * (gaps - 1.0)).sum() / (2.0 * n))
    return float(ages.mean())


@lru_cache(maxsize=16)
def best_tours(n: int, side: float, sight: float, longest: float) -> Points:
    """Tours of ``n`` drones with the least mean age, over margins and numbers of lanes, along either side.

    Args:
        n: number of drones.
        side: of the area in m.
        sight: of a drone in m.
        longest: what a spot counts that is never seen, in m of way.

    Returns:
        Points ``[n, n_points, 2]``, which nobody may change: the next caller gets them, too.
    """
    frame = rectangles(n, side)
    width, height = frame[0, 2] - frame[0, 0], frame[0, 3] - frame[0, 1]
    best, found = np.inf, np.zeros((1, 2))
    for turned in (False, True):
        w, h = (height, width) if turned else (width, height)
        most = max(2, 2 * int(np.ceil(w / sight / 2.0)) + 2)
        for n_lanes in range(2, most + 1, 2):
            for share in np.linspace(0.3, 1.0, 8):
                margin = min(share * sight, 0.45 * w, 0.45 * h)
                tour = points_of(lanes(w, h, margin, n_lanes))
                age = mean_age(tour, w, h, sight, longest)
                if age < best:
                    best, found = age, tour[:, ::-1] if turned else tour
    placed = frame[:, None, :2] + found
    placed.setflags(write=False)
    return placed
