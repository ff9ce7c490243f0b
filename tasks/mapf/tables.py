"""The maps as tensors: where one can stand, how far things are, and random places that hang together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.grid import Board, look
from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.mapf.maps import Maps


class MapTables:
    """Tables over all maps; a cell is counted row by row unless it is called a cell of the board.

    Args:
        maps: the maps.
        sight: how far a view reaches, in cells.
        device: where the tables live.
    """

    def __init__(self, maps: Maps, sight: int, device: torch.device) -> None:
        self.device = device
        rows, columns = maps.free.shape[1:]
        self.board = board = Board((rows, columns), sight, device)
        self.n_maps, self.n_cells = len(maps.free), rows * columns
        self.wall = board.wall.expand(self.n_maps, -1).clone()
        """Cells of the board that cannot be entered, ``[n_maps, board.n_cells]``."""
        self.wall[:, board.inside] = self._tensor(~maps.free)
        row, column = board.place(torch.arange(board.n_cells, device=device))
        near = (row >= -1) & (row <= rows) & (column >= -1) & (column <= columns)
        self.shown = (self.wall & near).to(torch.int8)
        """1 for cells that are seen as obstacles, like pogema's: beyond the edge of the board nothing is."""
        self.distance = self._tensor(maps.distance).flatten()
        self.longest = int(maps.distance[maps.distance < FAR].max())
        """Steps of the longest of all shortest ways."""
        self.members, self.first, self.number, self.rank = map(self._tensor, maps[2:])

    def _tensor(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.as_tensor(values, device=self.device).flatten(1)

    def steps(self, maps: Tensor, goal: Tensor, start: Tensor) -> Tensor:
        """Shortest ways between cells ``[n_envs, n]`` on maps ``[n_envs]``; ``FAR`` if there is none."""
        index = (maps.unsqueeze(-1) * self.n_cells + goal) * self.n_cells + start
        return self.distance[index].long()

    def steps_around(self, maps: Tensor, goal: Tensor, cell: Tensor) -> Tensor:
        """Shortest ways from the four neighbours of cells of the board, ``[n_envs, n, 4]``."""
        beside = self.board.around(cell)
        number = self.board.number(beside).clamp(0, self.n_cells - 1).flatten(1)
        far = goal.unsqueeze(-1).expand_as(beside).flatten(1)
        steps = self.steps(maps, far, number).reshape(beside.shape)
        return torch.where(self.blocked(maps, beside), FAR, steps)

    def blocked(self, maps: Tensor, cell: Tensor) -> Tensor:
        """Whether cells of the board ``[n_envs, *shape]`` cannot be entered."""
        on_map = maps.reshape(-1, *[1] * (cell.ndim - 1)) * self.board.n_cells + cell
        return self.wall.flatten()[on_map]

    def places(self, maps: Tensor, draw: Tensor, n_agents: int) -> tuple[Tensor, Tensor]:
        """Starts and goals ``[n_envs, n_agents]``: random pairs of cells that hang together.

        All are different. In every part of a map the cells are put in random order and make pairs from the
        first on; of all pairs those are taken whose starts have the lowest draws.

        Args:
            maps: which map, ``[n_envs]``.
            draw: uniform in [0, 1), ``[n_envs, n_cells]``.
            n_agents: number of pairs; every map has so many.
        """
        first, number = self.first[maps], self.number[maps]
        order = draw.argsort(dim=1, stable=True)
        order = order.gather(1, first.gather(1, order).argsort(dim=1, stable=True))
        begin = first.gather(1, order)  # part by part now, each in random order; walls last
        nth = torch.arange(self.n_cells, device=self.device) - begin
        opens = (nth % 2 == 0) & (nth + 1 < number.gather(1, order)) & (begin < self.n_cells)
        key = torch.where(opens, draw.gather(1, order), 2.0)
        chosen = key.argsort(dim=1, stable=True)[:, :n_agents]
        return order.gather(1, chosen), order.gather(1, chosen + 1)

    def other(self, maps: Tensor, cell: Tensor, draw: Tensor) -> Tensor:
        """Random other cells ``[n_envs, n]`` that hang together with ``cell``; ``draw`` in [0, 1)."""
        others = look(self.number[maps], cell) - 1
        nth = torch.minimum((draw * others).long(), others - 1)
        nth = nth + (nth >= look(self.rank[maps], cell))
        return look(self.members[maps], look(self.first[maps], cell) + nth)
