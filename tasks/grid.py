"""Boards of square cells: where things stand, what is around them, and moves without collisions.

A cell is one number, its index in the board with a margin of wall around it, so a neighbour is a constant
away and a view never leaves the tensor. What has left the board stands ``nowhere``, a cell behind the wall
that nobody sees or enters. All functions take whole batches: ``[n_envs, n]`` cells of n things.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Board:
    """A square board.

    Args:
        size: cells along a side, at least 1.
        sight: how far a view reaches, in cells, at least 1; it is the width of the margin.
        device: where the tables live.
    """

    def __init__(self, size: int, sight: int, device: torch.device | str = "cpu") -> None:
        self.size = size
        self.width = size + 2 * sight
        """Cells in a row, with the margin: the distance of a cell to the one below."""
        self.nowhere = (size + 2 * sight) * self.width + self.width // 2
        """Where things stand that have left the board."""
        self.n_cells = (size + 3 * sight + 1) * self.width
        place = torch.arange(size, device=device)
        self.inside = ((place + sight).unsqueeze(-1) * self.width + place + sight).flatten()
        """The cells of the board, row by row, ``[size * size]``."""
        self.wall = torch.ones(self.n_cells, dtype=torch.bool, device=device)
        """Cells that cannot be entered, ``[n_cells]``."""
        self.wall[self.inside] = False
        self.directions = torch.tensor([-self.width, self.width, -1, 1], device=device)
        """What leads up, down, left and right, ``[4]``."""
        near = torch.arange(-sight, sight + 1, device=device)
        self.window = (near.unsqueeze(-1) * self.width + near).flatten()
        """What leads to the cells of a view, row by row, ``[(2 * sight + 1) ** 2]``."""

    def place(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of cells, counted from 0 on the board."""
        margin = (self.width - self.size) // 2
        return cell // self.width - margin, cell % self.width - margin

    def around(self, cell: Tensor) -> Tensor:
        """The cells above, below, left and right of ``cell`` ``[n_envs, n]``: ``[n_envs, n, 4]``."""
        return cell.unsqueeze(-1) + self.directions

    def holders(self, cell: Tensor) -> Tensor:
        """Who stands where: ``[n_envs, n_cells]``, the index of the thing, n where there is none."""
        n_envs, n = cell.shape
        held = torch.full((n_envs, self.n_cells), n, device=cell.device)
        held.scatter_(1, cell, torch.arange(n, device=cell.device).expand(n_envs, -1))
        held[:, self.nowhere] = n
        return held

    def taken(self, cell: Tensor) -> Tensor:
        """Whether a cell holds one of the things, ``[n_envs, n_cells]`` bool."""
        taken = torch.zeros((cell.shape[0], self.n_cells), dtype=torch.bool, device=cell.device)
        taken.scatter_(1, cell, True)
        taken[:, self.nowhere] = False
        return taken


def look(table: Tensor, cell: Tensor) -> Tensor:
    """Entries of ``table`` ``[n_envs, n_cells]`` at ``cell`` ``[n_envs, *shape]``."""
    return table.gather(1, cell.flatten(1)).reshape(cell.shape)


def turns(draw: Tensor) -> Tensor:
    """A random order of n things, no two alike, from uniform draws ``[n_envs, n]``; the least is first."""
    n = draw.shape[1]
    return (draw * 2**24).long() * n + torch.arange(n, device=draw.device)


def move_in_turn(
    board: Board, cell: Tensor, target: Tensor, turn: Tensor, closed: Tensor
) -> Tensor:
    """Where things stand after each, one after the other, has entered its target if that was free.

    The outcome is that of the loop over the things in the order of ``turn``, without the loop. Everyone moves
    at most once, so whoever wants a cell enters it if (1) its holder's turn was before and the holder left,
    and (2) nobody with a turn between the two wanted it as well. (2) takes one look; (1) hangs on holders
    with earlier turns only, so it is settled along chains without cycles, whose length every hop doubles.

    Args:
        board: the board.
        cell: where they stand, ``[n_envs, n]``, all different except for ``nowhere``.
        target: the cells they want; their own to stay.
        turn: who goes first, different integers ``[n_envs, n]``.
        closed: cells that nobody can enter, ``[n_envs, n_cells]`` bool.

    Returns:
        The new cells, ``[n_envs, n]``.
    """
    n_envs, n = cell.shape
    last = torch.iinfo(turn.dtype).max
    holder = look(board.holders(cell), target)
    # One more column: the holder of an empty cell, who left before everyone else.
    turn_of = torch.cat([turn, torch.full_like(turn[:, :1], -1)], 1)
    wants = (target != cell) & ~look(closed, target) & (look(turn_of, holder) < turn)
    claim = torch.where(wants, turn, last)
    first = torch.full((n_envs, board.n_cells), last, device=cell.device)
    first.scatter_reduce_(1, target, claim, "amin")
    moves = wants & (look(first, target) == turn)
    moves = torch.cat([moves, torch.ones_like(moves[:, :1])], 1)
    holder = torch.cat([holder, torch.full_like(holder[:, :1], n)], 1)
    for _ in range(max(1, (n - 1).bit_length())):
        moves = moves & look(moves, holder)
        holder = look(holder, holder)
    return torch.where(moves[:, :n], target, cell)
