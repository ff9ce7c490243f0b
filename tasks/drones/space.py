"""Who is near whom, and which cells a drone sees; nothing here grows with drones x drones.

A few points are all looked at. Of many, those in the squares around: points are sorted by the squares they
lie in, row by row, so that the squares around a point are three strips of three neighbouring squares, and
the points of a strip are one run of that order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.layout import written
from marl_td.tasks.order import smallest


class Near(NamedTuple):
    """The nearest points, nearest first; where fewer are in reach, ``found`` is false."""

    which: Tensor
    """Which point, ``[n_envs, n_queries, k]`` int64."""
    offset: Tensor
    """From the query to it, ``[n_envs, n_queries, k, 2]``."""
    found: Tensor
    """``[n_envs, n_queries, k]`` bool."""


def nearest(
    query: Tensor,
    point: Tensor,
    present: Tensor,
    *,
    side: float,
    radius: float,
    k: int,
    crowd: int,
    among_themselves: bool = False,
) -> Near:
    """The ``k`` nearest points within ``radius`` of each query.

    Exact with at most ``3 * crowd`` points. With more it is as long as no strip of three squares, of side
    ``radius`` or a little more, holds more than ``crowd`` of them; of more, those of the lowest squares and
    indices are looked at. Memory grows with ``n_queries * crowd``.

    Args:
        query: places in ``[0, side]``, ``[n_envs, n_queries, 2]``.
        point: likewise, ``[n_envs, n_points, 2]``, ``n_points`` at least 1.
        present: points that count, ``[n_envs, n_points]`` bool.
        side: of the area.
        radius: reach, at most ``side``.
        k: number of points asked for, at least 1.
        crowd: see above, at least 1.
        among_themselves: queries are the points, and none is near itself.
    """
    n_points = point.shape[1]
    width = max(min(crowd, n_points), math.ceil(k / 3))
    if k <= n_points <= 3 * width:
        who = torch.arange(n_points, device=point.device).expand(*query.shape[:2], -1)
        valid = present.unsqueeze(1)
        offset = point.unsqueeze(1) - query.unsqueeze(2)
    else:
        who, valid = _in_strips(query, point, present, max(1, int(side // radius)), side, width)
        pairs = who.flatten(1).unsqueeze(-1).expand(-1, -1, 2)
        offset = point.gather(1, pairs).unflatten(1, who.shape[1:]) - query.unsqueeze(2)
    if among_themselves:
        valid = valid & (who != torch.arange(n_points, device=point.device).unsqueeze(-1))
    distance = torch.where(valid, offset.square().sum(-1), torch.inf)
    best = smallest(distance, k)
    chosen = offset.gather(2, best.unsqueeze(-1).expand(-1, -1, -1, 2))
    return Near(who.gather(2, best), chosen, distance.gather(2, best) <= radius**2)


def _in_strips(
    query: Tensor, point: Tensor, present: Tensor, n_squares: int, side: float, width: int
) -> tuple[Tensor, Tensor]:
    """Points of the three strips around each query, and which of them there are.

    Both ``[n_envs, n_queries, 3 * width]``; there are ``n_squares`` along a side of the area, and ``width``
    points of a strip are looked at.
    """
    square = (point * (n_squares / side)).long().clamp(0, n_squares - 1)
    key = torch.where(present, square[..., 1] * n_squares + square[..., 0], n_squares**2)
    key, order = key.sort(dim=-1, stable=True)

    at = (query * (n_squares / side)).long().clamp(0, n_squares - 1)
    row = at[..., 1:] + torch.arange(-1, 2, device=at.device)  # [n_envs, n_queries, 3]
    first = row * n_squares + (at[..., :1] - 1).clamp_min(0)
    last = row * n_squares + (at[..., :1] + 1).clamp_max(n_squares - 1)
    start = torch.searchsorted(key, first.flatten(1)).view_as(first)
    end = torch.searchsorted(key, last.flatten(1), right=True).view_as(first)
    end = torch.where((row >= 0) & (row < n_squares), end, 0)

    slot = start.unsqueeze(-1) + torch.arange(width, device=at.device)
    valid = (slot < end.unsqueeze(-1)).flatten(2)
    who = order.gather(1, slot.clamp_max(point.shape[1] - 1).flatten(1)).view(valid.shape)
    return who, valid


def cell_window(radius: float, cell: float, device: torch.device) -> Tensor:
    """Columns (and rows) that a drone may see, counted from its own, ``[n]``."""
    reach = math.ceil(radius / cell)
    return torch.arange(-reach, reach + 1, device=device)


def seen_cells(
    position: Tensor, alive: Tensor, window: Tensor, radius: float, cell: float, n_cells: int
) -> Tensor:
    """Numbers ``row * n_cells + column`` of the cells with their middle within ``radius`` of each drone.

    Args:
        position: ``[n_envs, n_agents, 2]``.
        alive: drones that see, ``[n_envs, n_agents]`` bool.
        window: from :func:`cell_window`, ``[n]``.
        radius: of sight.
        cell: side of a cell.
        n_cells: along a side.

    Returns:
        ``[n_envs, n_agents, n * n]`` int64; ``n_cells ** 2`` for cells of the window that are not seen.
    """
    own = (position / cell).long().clamp(0, n_cells - 1)
    place = written(own.unsqueeze(-1) + window)  # [n_envs, n_agents, 2, n]
    way = ((place + 0.5) * cell - position.unsqueeze(-1)).square()
    inside = (place >= 0) & (place < n_cells) & alive[..., None, None]
    x, y = torch.where(inside, way, torch.inf).unbind(2)
    near = x.unsqueeze(2) + y.unsqueeze(3) <= radius**2  # rows, columns
    column, row = place.unbind(2)
    number = row.unsqueeze(3) * n_cells + column.unsqueeze(2)
    return written(torch.where(near, number, n_cells**2).flatten(2))
