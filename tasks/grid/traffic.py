"""What a robot sees of the others around it: who goes first, and where they have to go."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.grid.board import Board, look

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
    """Views of the others, :data:`N_PLANES` planes ``[n_envs, n, view]`` int8.

    The planes: 1 for robots with an earlier turn, which get a cell that both want; 1 for those with a later
    one; whether they have to go down (1) or up (-1); and right (1) or left (-1). Work and memory grow with
    robots times view: nothing is pairs of robots.

    Args:
        board: the board.
        cell: where the robots stand, ``[n_envs, n]``.
        way: where they have to go, ``[n_envs, n]``, see :func:`ways`.
        turn: different integers ``[n_envs, n]``, the lowest goes first; their size is below 2 ** 28.
        unheard: cells of the views of which nothing is seen, bool ``[n_envs, n, view]``, or None.
    """
    nobody = torch.iinfo(torch.int32).max  # its way is WAYS - 1, which is none
    codes = torch.full((len(cell), board.n_cells), nobody, dtype=torch.int32, device=cell.device)
    codes.scatter_(1, cell, ((turn << SHIFT) + way).int())
    seen = look(codes, cell.unsqueeze(-1) + board.window)
    hidden = (board.window == 0) if unheard is None else (board.window == 0) | unheard
    seen = torch.where(hidden, nobody, seen)
    earlier = (seen >> SHIFT) < turn.unsqueeze(-1).int()  # which nobody's is not
    later = (seen != nobody) & ~earlier
    goes = (seen & (WAYS - 1)).to(torch.int8)
    up, down, left, right = ((goes == way).to(torch.int8) for way in range(1, 5))
    return [earlier.to(torch.int8), later.to(torch.int8), down - up, right - left]
