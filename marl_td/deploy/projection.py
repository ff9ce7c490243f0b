"""Projection of actions onto what a shield allows, in NumPy.

The method is that of ``marl_td/tasks/shield/projection.py``, which says how and why, and compiles; this file
needs no torch. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marl_td.deploy.signature import Array

ROUNDS = 300
"""Rounds over the blocks, where there is more than one; it stops before when nothing changes."""
MARGIN = 4e-6
"""By how much of the largest possible ``|rows| @ |x|`` a corrected point stays inside, for float32."""


@dataclass(frozen=True)
class HalfSpaces:
    """``weights[i] @ x[columns[i]] <= limit[i]``, no column twice: ``[r, s]``, ``[r, s]``, ``[r]``."""

    columns: Array
    weights: Array
    limit: Array

    def value(self, point: Array) -> Array:
        """``weights @ x`` ``[B, r]`` of points ``[B, n]``."""
        return np.asarray((self.weights * point[..., self.columns]).sum(-1))


class SafeSet:
    """A box cut by half-spaces.

    Args:
        low: lower bounds ``[n]``.
        high: upper bounds ``[n]``.
        blocks: the half-spaces.
        centre: a point inside of all of them, ``[n]``.

    Raises:
        ValueError: if ``centre`` is not inside, or a bound is not finite.
    """

    def __init__(
        self, low: Array, high: Array, blocks: Sequence[HalfSpaces], centre: Array
    ) -> None:
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("linear constraints need actions with finite bounds.")
        self.low, self.high, self.blocks, self.centre = low, high, list(blocks), centre
        reach = np.maximum(np.abs(low), np.abs(high))
        self.inner = []
        for block in self.blocks:
            scale = np.abs(block.limit) + (np.abs(block.weights) * reach[block.columns]).sum(-1)
            self.inner.append(block.limit - MARGIN * scale)
        in_box = bool(((centre > low) & (centre < high)).all())
        if not in_box or any(
            (block.value(centre) >= inner).any()
            for block, inner in zip(self.blocks, self.inner, strict=True)
        ):
            raise ValueError("the centre given does not keep the constraints.")

    def project(self, point: Array) -> Array:
        """The points of the set nearest to ``point`` ``[B, n]`` clipped to the box, float32."""
        start = np.clip(np.asarray(point, dtype=np.float64), self.low, self.high)
        inside = np.ones(len(start), dtype=bool)
        for block in self.blocks:
            inside &= (block.value(start) <= block.limit).all(-1)
        out = start.astype(np.float32)
        if not inside.all():
            outside = ~inside
            out[outside] = self._pulled(self._nearest(start[outside])).astype(np.float32)
        return out

    def _nearest(self, start: Array) -> Array:
        """Block coordinate ascent on the multipliers; with one block the first round is exact."""
        shift = start.copy()
        multipliers = [np.zeros((len(start), len(block.limit))) for block in self.blocks]
        for _ in range(ROUNDS if len(self.blocks) > 1 else 1):
            before = shift.copy()
            for index, block in enumerate(self.blocks):
                near = shift[:, block.columns] + multipliers[index][..., None] * block.weights
                multipliers[index] = self._multiplier(near, index)
                shift[:, block.columns] = near - multipliers[index][..., None] * block.weights
            if np.abs(shift - before).max() < 1e-9:
                break
        return np.clip(shift, self.low, self.high)

    def _multiplier(self, point: Array, index: int) -> Array:
        """How far along the normals ``point`` ``[B, r, s]`` must go, ``[B, r]``."""
        block, limit = self.blocks[index], self.inner[index]
        weights, low, high = block.weights, self.low[block.columns], self.high[block.columns]
        moves = weights != 0
        slope = np.where(moves, weights, 1.0)
        times = np.concatenate([(point - low) / slope, (point - high) / slope], -1)
        times = np.where(np.concatenate([moves, moves], -1), times, 0.0).clip(min=0.0)
        there = point[..., None, :] - times[..., None] * weights[:, None, :]
        there = np.clip(there, low[:, None, :], high[:, None, :])
        value = (weights[:, None, :] * there).sum(-1) - limit[:, None]
        now = (weights * np.clip(point, low, high)).sum(-1) - limit
        above = value >= 0
        far = np.finfo(np.float64).max
        begin = np.where(above, times, 0.0).max(-1)
        upper = np.minimum(np.where(above, value, far).min(-1), now)
        end = np.where(above, far, times).min(-1)
        lower = np.where(above, -far, value).max(-1)
        with np.errstate(all="ignore"):  # rows that are kept need no step
            length = begin + (end - begin) * (upper / (upper - lower))
        return np.asarray(np.where(now > 0, length, 0.0))

    def _pulled(self, point: Array) -> Array:
        """``point`` moved towards the centre until no half-space is left."""
        share = np.zeros((len(point), 1))
        for block, inner in zip(self.blocks, self.inner, strict=True):
            value, middle = block.value(point), block.value(self.centre)
            over = np.where(value > inner, (value - inner) / np.maximum(value - middle, 1e-12), 0.0)
            share = np.maximum(share, over.max(-1, keepdims=True))
        return np.asarray(point + np.clip(share, 0.0, 1.0) * (self.centre - point))
