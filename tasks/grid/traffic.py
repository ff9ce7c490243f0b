"""What a robot sees of the others around it: who goes first, and where they have to go."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.grid.board import Board

N_PLANES = 4
SHIFT = 3
WAYS = 1 << SHIFT
"""A way is 0 (none) to 4; the number of codes kept for it in the lowest bits of a robot's number."""


def ways(around: Tensor, steps: Tensor) -> Tensor:
    """The way to the goal, ``[n_envs, n]``: 1 up, 2 down, 3 left, 4 right, 0 if it is reached.

    Args:
        around: shortest ways from the cells above, below, left and right, ``[n_envs, n, 4]``.
        steps: shortest ways from the own cells, ``[n_envs, n]``.
    """
    return torch.where(around.amin(-1) < steps, around.argmin(-1) + 1, 0)


def traffic(
    board: Board, cell: Tensor, way: Tensor, turn: Tensor, unheard: Tensor | None
) -> list[Tensor]:
    """Views of the others, :data:`N_PLANES` planes ``[n_envs, n, side, side]``.

    The planes: 1 for robots with an earlier turn, which get a cell that both want; 1 for those with a later
    one; whether they have to go down (1) or up (-1); and right (1) or left (-1). Work and memory grow with
    robots times view: nothing is pairs of robots.

    Args:
        board: the board.
        cell: where the robots stand, ``[n_envs, n]``.
        way: where they have to go, ``[n_envs, n]``, see :func:`ways`.
        turn: different integers ``[n_envs, n]``, the lowest goes first; their size is below 2 ** 28.
        unheard: cells of the views of which nothing is seen, bool ``[n_envs, n, side ** 2]``, or None.
    """
    nobody = torch.iinfo(torch.int32).max  # its way is WAYS - 1, which is none
    codes = torch.full((len(cell), board.n_cells), nobody, dtype=torch.int32, device=cell.device)
    codes.scatter_(1, cell, ((turn << SHIFT) + way).int())
    seen = board.view(codes, cell)
    if unheard is not None:
        seen = torch.where(unheard.reshape(seen.shape), nobody, seen)
    own = turn.int()[..., None, None]
    before, after = (seen >> SHIFT) < own, (seen >> SHIFT) > own  # its own number is neither
    goes = torch.where(before | after, seen & (WAYS - 1), 0)
    up, down, left, right = ((goes == way).float() for way in range(1, 5))
    return [before.float(), (after & (seen != nobody)).float(), down - up, right - left]
