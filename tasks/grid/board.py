"""Boards of square cells: where things stand and what is around them.

A cell is one number, its index in the board with a margin of wall around it, so a neighbour is a constant
away and a view never leaves the tensor. What has left the board stands ``nowhere``, a cell behind the wall
that nobody sees or enters. All functions take whole batches: ``[n_envs, n]`` cells of n things.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.layout import squares

MOVE_NAMES = ("stay", "up", "down", "left", "right")
"""Names of the five moves, in the order in which tasks number them."""


class Board:
    """A board of square cells.

    Args:
        size: cells along a side, at least 1; or (rows, columns).
        sight: how far a view reaches, in cells, at least 1; it is the width of the margin.
        device: where the tables live.
    """

    def __init__(
        self, size: int | tuple[int, int], sight: int, device: torch.device | str = "cpu"
    ) -> None:
        self.shape = (size, size) if isinstance(size, int) else size
        """Rows and columns of the board."""
        rows, columns = self.shape
        self.margin = sight
        self.width = columns + 2 * sight
        """Cells in a row, with the margin: the distance of a cell to the one below."""
        self.nowhere = (rows + 2 * sight) * self.width + self.width // 2
        """Where things stand that have left the board."""
        self.n_cells = (rows + 3 * sight + 1) * self.width
        down, right = (torch.arange(n, device=device) + sight for n in self.shape)
        self.inside = (down.unsqueeze(-1) * self.width + right).flatten()
        """The cells of the board, row by row, ``[rows * columns]``."""
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
        return cell // self.width - self.margin, cell % self.width - self.margin

    def number(self, cell: Tensor) -> Tensor:
        """Which of the cells inside a cell is, counted row by row; for cells on the board only."""
        row, column = self.place(cell)
        return row * self.shape[1] + column

    def around(self, cell: Tensor) -> Tensor:
        """The cells above, below, left and right of ``cell`` ``[n_envs, n]``: ``[n_envs, n, 4]``."""
        return cell.unsqueeze(-1) + self.directions

    def without_margin(self, table: Tensor) -> Tensor:
        """Entries of ``table`` ``[*B, n_cells]`` for the cells inside, ``[*B, rows * columns]``.

        The same as ``table[..., inside]``, and read faster, as a part of a tensor.
        """
        rows, columns = self.shape
        whole = table[..., self.margin * self.width : (self.margin + rows) * self.width]
        grid = whole.unflatten(-1, (rows, self.width))
        return grid[..., self.margin : self.margin + columns].flatten(-2)

    def blank(self, like: Tensor) -> Tensor:
        """An integer per cell and environment, ``[n_envs, n_cells]``, that has no value yet.

        Whoever asks for a few cells writes those first: to fill the board takes longer than a step.
        """
        return torch.empty((like.shape[0], self.n_cells), dtype=torch.long, device=like.device)

    def holders(self, cell: Tensor, at: Tensor) -> Tensor:
        """Who stands ``at`` cells ``[n_envs, *shape]``: the index of the thing, n where there is none."""
        n = cell.shape[1]
        place = at.flatten(1)
        number = torch.arange(n, device=cell.device).expand_as(cell)
        held = self.blank(cell)
        held.scatter_(1, place, n).scatter_(1, cell, number)
        return torch.where(at == self.nowhere, n, look(held, at))

    def taken(self, cell: Tensor) -> Tensor:
        """Whether a cell holds one of the things, ``[n_envs, n_cells]`` int8, 1 or 0."""
        taken = torch.zeros((cell.shape[0], self.n_cells), dtype=torch.int8, device=cell.device)
        taken.scatter_(1, cell, 1)
        taken[:, self.nowhere] = 0
        return taken

    def view(self, table: Tensor, cell: Tensor, row: Tensor | None = None) -> Tensor:
        """Entries of ``table`` around cells ``[n_envs, n]``: ``[n_envs, n, side, side]``.

        The same as ``table[row, cell + window]``, and read faster, as pieces of rows.

        Args:
            table: ``[n_rows, n_cells]``.
            cell: in the middle of the views.
            row: of the table, ``[n_envs]``; None: the only one, or by environment.
        """
        side = 2 * self.margin + 1
        if row is None:
            row = torch.arange(len(table), device=cell.device)
        corner = row.unsqueeze(-1) * self.n_cells + cell - self.margin * (self.width + 1)
        return squares(table.unflatten(1, (-1, self.width)), corner, side)


def look(table: Tensor, cell: Tensor) -> Tensor:
    """Entries of ``table`` ``[n_envs, n_cells]`` at ``cell`` ``[n_envs, *shape]``."""
    return table.gather(1, cell.flatten(1)).reshape(cell.shape)
