"""The order of numbers in memory, in which a compiled step is fast."""

from __future__ import annotations

from torch import Tensor


def written(value: Tensor) -> Tensor:
    """``value`` as numbers in memory.

    The CPU's compiler makes what is read at several places anew for each of them. This is for what is read
    by pairs of agents, by a window of cells or in a scattered order, and takes longer to make than to read.
    """
    return value.as_strided(value.shape, value.stride())


def squares(tables: Tensor, corner: Tensor, side: int, step: int = 1) -> Tensor:
    """Squares of tables, ``[n_envs, n, side, side]``, read as rows: an index per entry takes longer.

    Args:
        tables: ``[n_tables, rows, columns]``.
        corner: where each square begins, counted in entries over all tables, ``[n_envs, n]`` int64.
        side: entries along a side of a square.
        step: from one of its entries to the next, in rows and in columns.
    """
    flat, width = tables.reshape(-1), tables.shape[-1]
    n_corners = flat.numel() - (side - 1) * step * (width + 1)
    return flat.as_strided((n_corners, side, side), (1, step * width, step))[corner]


def envs_last(value: Tensor) -> Tensor:
    """``value`` ``[n_envs, ...]`` with environments next to each other in memory, for vector instructions."""
    return value.movedim(0, -1).contiguous().movedim(-1, 0)
