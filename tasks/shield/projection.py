"""Euclidean projection of batched actions onto a box cut by half-spaces, compilable and without host syncs.

The set is ``{x : low <= x <= high, rows @ x <= limit}``. Half-spaces come in blocks of rows that share no
column (one constraint, for every agent its own row). With one block the projection is exact: along a row's
normal the clipped point is piecewise linear, so its multiplier follows from the values at the points where
a coordinate meets a bound. Several blocks are solved one after the other, round and round (Dykstra 1983,
https://doi.org/10.1080/01621459.1983.10477029, here as block coordinate ascent on the multipliers, with
the box inside every block), each round with a semismooth Newton's step on all multipliers together (Qi and
Sun 1993, https://doi.org/10.1007/BF01581275), cut back to where the dual function is largest. What is left of
a violation is taken away by a pull towards the set's centre, so the result always lies in the set.

:mod:`marl_td.deploy` holds the same in NumPy for machines without torch; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.base import require

ROUNDS = 8
"""Rounds over the blocks, each with one of Newton's steps, where there is more than one block."""
SHARES = (1.0, 0.5, 0.25, 0.1, 0.0)
"""Shares of Newton's step that are tried."""
RIDGE = 1e-2
"""Keeps a step short where half-spaces are nearly parallel; it moves no solution."""
MARGIN = 4e-6
"""By how much of the largest possible ``|rows| @ |x|`` a corrected point stays inside, for float32."""

Array = np.ndarray[Any, Any]


class Block(NamedTuple):
    """Half-spaces ``weights[i] @ x[columns[i]] <= limit[i]`` whose columns are all different."""

    columns: Array
    """int ``[r, s]``."""
    weights: Array
    """float ``[r, s]``."""
    limit: Array
    """float ``[r]``."""


class _Rows(NamedTuple):
    columns: Tensor
    weights: Tensor
    limit: Tensor
    inner: Tensor
    """The limit less the margin, ``[r]``."""
    low: Tensor
    high: Tensor


class SafeSet:
    """A box cut by half-spaces, onto which batches of points are projected.

    Args:
        low: finite lower bounds ``[n]``.
        high: finite upper bounds ``[n]``, above ``low``.
        blocks: the half-spaces.
        device: where the points are.

    Raises:
        ValueError: if a bound is not finite, or no point lies inside all half-spaces.
    """

    def __init__(
        self, low: Array, high: Array, blocks: Sequence[Block], device: torch.device | str = "cpu"
    ) -> None:
        finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
        require(finite, "linear constraints need actions with finite bounds.")
        width = len(low)
        reach = np.maximum(np.abs(low), np.abs(high))
        self.low = torch.tensor(low, dtype=torch.float32, device=device)
        self.high = torch.tensor(high, dtype=torch.float32, device=device)
        self.blocks: list[_Rows] = []
        dense = []
        for block in (_normalised(block) for block in blocks):
            scale = np.abs(block.limit) + (np.abs(block.weights) * reach[block.columns]).sum(-1)
            inner = block.limit - MARGIN * scale
            parts = (block.weights, block.limit, inner, low[block.columns], high[block.columns])
            floats = [torch.tensor(part, dtype=torch.float32, device=device) for part in parts]
            self.blocks.append(_Rows(torch.tensor(block.columns, device=device), *floats))
            rows = np.zeros((len(block.limit), width))
            np.put_along_axis(rows, block.columns, block.weights, axis=-1)
            dense.append((rows, inner))
        rows = np.concatenate([part[0] for part in dense])
        inner = np.concatenate([part[1] for part in dense])
        middle = centre(low, high, rows, inner)
        self.centre, self.rows, self.inner = (
            torch.tensor(part, dtype=torch.float32, device=device) for part in (middle, rows, inner)
        )
        self.normals = (
            self.rows.T.contiguous()
        )  # a view would be an alias, which loops in graphs refuse
        self.at_centre = [_dot(rows, self.centre) for rows in self.blocks]

    def project(self, point: Tensor) -> Tensor:
        """The point of the set nearest to ``point`` ``[*B, n]`` clipped to the box; itself if inside."""
        start = point.clamp(self.low, self.high)
        inside = torch.ones_like(start[..., 0], dtype=torch.bool)
        for rows in self.blocks:
            inside = inside & (_dot(rows, start) <= rows.limit).all(-1)
        return torch.where(inside.unsqueeze(-1), start, self._pulled(self._nearest(start)))

    def _nearest(self, start: Tensor) -> Tensor:
        """The projection of ``start``, up to what several blocks may leave of a violation."""
        lengths = [start.new_zeros((*start.shape[:-1], len(rows.limit))) for rows in self.blocks]
        if len(self.blocks) == 1:
            return self._point(start, torch.cat(self._swept(start, lengths), -1))[0]
        best, least = start, torch.full_like(start[..., 0], torch.inf)
        shares = torch.tensor(SHARES, device=start.device).reshape(-1, *[1] * start.ndim)
        for _ in range(ROUNDS):
            swept = torch.cat(self._swept(start, lengths), -1)
            tried = (swept + shares * (self._newton(start, swept) - swept)).clamp_min(0.0)
            point, excess, _ = self._point(start, tried)
            error = torch.minimum(tried, -excess).abs().amax(-1)
            dual = 0.5 * (point - start).square().sum(-1) + (tried * excess).sum(-1)
            better = error.amin(0) < least
            best = torch.where(better.unsqueeze(-1), _pick(point, error.argmin(0)), best)
            least = torch.minimum(error.amin(0), least)
            found = _pick(tried, dual.argmax(0))
            lengths = list(found.split([len(rows.limit) for rows in self.blocks], -1))
        return best

    def _swept(self, start: Tensor, lengths: list[Tensor]) -> list[Tensor]:
        """One round over the blocks: each block's multipliers given the others'."""
        shift = start - (torch.cat(lengths, -1).unsqueeze(-1) * self.rows).sum(-2)
        out = []
        for rows, length in zip(self.blocks, lengths, strict=True):
            near = shift[..., rows.columns] + length.unsqueeze(-1) * rows.weights
            found = multiplier(near, rows.weights, rows.inner, rows.low, rows.high)
            near = near - found.unsqueeze(-1) * rows.weights
            shift = torch.index_copy(shift, -1, rows.columns.flatten(), near.flatten(start_dim=-2))
            out.append(found)
        return out

    def _newton(self, start: Tensor, lengths: Tensor) -> Tensor:
        """One of Newton's steps from the multipliers ``[*B, m]``: what holds the point is kept."""
        _, excess, free = self._point(start, lengths)
        active = lengths + excess > 0
        gram = (self.rows * free.unsqueeze(-2).float()) @ self.normals
        target = excess + (gram @ lengths.unsqueeze(-1)).squeeze(-1) + RIDGE * lengths
        target = torch.where(active, target, 0.0)
        both = active.unsqueeze(-1) & active.unsqueeze(-2)
        matrix = torch.where(both, gram, 0.0) + torch.diag_embed(RIDGE + (~active).float())
        return torch.linalg.solve_ex(matrix, target).result.clamp_min(0.0)

    def _point(self, start: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The point of multipliers ``[*B, m]``, its excess over each limit, and which entries are free."""
        point = start - (lengths.unsqueeze(-1) * self.rows).sum(-2)
        free = (point > self.low) & (point < self.high)
        point = point.clamp(self.low, self.high)
        return point, (self.rows * point.unsqueeze(-2)).sum(-1) - self.inner, free

    def _pulled(self, point: Tensor) -> Tensor:
        """``point`` moved towards the centre until no half-space is left; itself if none is."""
        share = torch.zeros_like(point[..., :1])
        for rows, middle in zip(self.blocks, self.at_centre, strict=True):
            value = _dot(rows, point)
            over = (value - rows.inner) / (value - middle).clamp_min(1e-12)
            over = torch.where(value > rows.limit, over, 0.0)
            share = share.maximum(over.amax(-1, keepdim=True))
        return point + share.clamp(0.0, 1.0) * (self.centre - point)


def multiplier(point: Tensor, weights: Tensor, limit: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Length ``t >= 0`` at which ``clip(point - t * weights, low, high)`` comes to lie in a half-space.

    Args:
        point: ``[*B, r, s]``.
        weights: of the half-spaces ``weights @ x <= limit``, ``[r, s]``.
        limit: ``[r]``; some ``x`` of the box must lie below it.
        low: of the box, ``[r, s]``.
        high: of the box, ``[r, s]``.

    Returns:
        ``[*B, r]``.
    """

    def excess(x: Tensor, limit: Tensor) -> Tensor:
        return (weights_of(x) * x).sum(-1) - limit

    def weights_of(x: Tensor) -> Tensor:
        return weights if x.ndim == point.ndim else weights.unsqueeze(-2)

    moves = weights != 0
    slope = torch.where(moves, weights, 1.0)
    at_bounds = torch.cat([(point - low) / slope, (point - high) / slope], -1)
    at_bounds = torch.where(torch.cat([moves, moves], -1), at_bounds, 0.0).clamp_min(0.0)
    there = point.unsqueeze(-2) - at_bounds.unsqueeze(-1) * weights.unsqueeze(-2)
    value = excess(
        there.maximum(low.unsqueeze(-2)).minimum(high.unsqueeze(-2)), limit.unsqueeze(-1)
    )
    now = excess(point.maximum(low).minimum(high), limit)
    # Values fall along the way: the last point above the limit and the first below it are neighbours.
    above = value >= 0
    far = torch.finfo(point.dtype).max
    begin = torch.where(above, at_bounds, 0.0).amax(-1)
    upper = torch.where(above, value, far).amin(-1).minimum(now)
    end = torch.where(above, far, at_bounds).amin(-1)
    lower = torch.where(above, -far, value).amax(-1)
    length = begin + (end - begin) * (upper / (upper - lower))
    return torch.where(now > 0, length, 0.0)


def centre(low: Array, high: Array, rows: Array, limit: Array) -> Array:
    """The middle of the largest ball in the set, relative to the box's sides ``[n]``.

    Raises:
        ValueError: if nothing lies inside.
    """
    from scipy.optimize import linprog

    side = high - low
    scaled = rows * side  # columns measured in sides of the box
    lengths = np.linalg.norm(scaled, axis=-1)
    identity, ones = np.eye(len(low)), np.ones((len(low), 1))
    matrix = np.concatenate(
        [
            np.concatenate([scaled, lengths[:, None]], -1),
            np.concatenate([identity, ones], -1),
            np.concatenate([-identity, ones], -1),
        ]
    )
    bound = np.concatenate([limit - rows @ low, np.ones(len(low)), np.zeros(len(low))])
    objective = np.zeros(len(low) + 1)
    objective[-1] = -1.0
    found = linprog(objective, matrix, bound, bounds=[(None, None)] * (len(low) + 1))
    require(
        found.status == 0 and found.x[-1] > 1e-6,
        "no action lies inside all linear constraints of the shield; loosen a limit (an equality cannot be "
        "asked for).",
    )
    return np.asarray(low + side * found.x[:-1])


def _normalised(block: Block) -> Block:
    """The same half-spaces with weights of length 1.

    Raises:
        ValueError: for a row of zeros, or a number that is not finite.
    """
    length = np.linalg.norm(block.weights, axis=-1)
    finite = bool(np.isfinite(length).all() and np.isfinite(block.limit).all())
    require(finite, "the weights and limits of a shield must be finite numbers.")
    require(
        bool((length > 0).all()), "every linear constraint of a shield needs a weight besides 0."
    )
    return Block(block.columns, block.weights / length[:, None], block.limit / length)


def _pick(values: Tensor, at: Tensor) -> Tensor:
    """Row ``values[at[b], b]`` for each ``b``: ``values`` ``[k, *B, n]``, ``at`` ``[*B]``."""
    index = at.unsqueeze(-1).expand_as(values[0]).unsqueeze(0)
    return values.gather(0, index).squeeze(0)


def _dot(rows: _Rows, point: Tensor) -> Tensor:
    """``weights @ point[columns]`` ``[*B, r]``."""
    return (rows.weights * point[..., rows.columns]).sum(-1)
