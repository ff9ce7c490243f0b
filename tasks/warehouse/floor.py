"""The floor as tensors, the state of the robots on it, and what a robot sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.grid import Board
from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.grid.traffic import traffic, ways
from marl_td.tasks.warehouse.layout import Layout

REGIONS = 8
"""Regions along a side of the floor that the global state counts robots in."""
PATIENCE, STANDING = 10.0, 5.0
"""Steps since a goal was reached, and since the last move, that an observation shows as 1."""


class WarehouseState(NamedTuple):
    """Where the robots are and what they carry out; integers are int64."""

    cell: Tensor
    """Cells on the :class:`~marl_td.tasks.grid.Board`, ``[n_envs, n_agents]``; ``nowhere`` if dead."""
    pick: Tensor
    """Which of the picks the order is at, ``[n_envs, n_agents]``."""
    drop: Tensor
    """Which of the drops it goes to, ``[n_envs, n_agents]``."""
    loaded: Tensor
    """Whether it has been picked, ``[n_envs, n_agents]`` bool."""
    waited: Tensor
    """Steps since a goal was last reached, ``[n_envs, n_agents]``."""
    stood: Tensor
    """Steps since it last moved, ``[n_envs, n_agents]``."""
    unheard: Tensor
    """Cells of whose robots nothing is seen, bool ``[n_envs, n_agents, view]``, or 0 wide."""


class Floor:
    """Tables over the cells of the board.

    Args:
        layout: the floor.
        sight: how far a view reaches, in cells.
        device: where the tables live.
    """

    def __init__(self, layout: Layout, sight: int, device: torch.device) -> None:
        rows, columns = layout.free.shape
        self.board = board = Board((rows, columns), sight, device)
        free = torch.as_tensor(layout.free.ravel(), device=device)
        self.wall = board.wall.clone()
        """Cells that cannot be entered, ``[board.n_cells]``."""
        self.wall[board.inside] = ~free
        self.shown = self.wall.to(torch.int8).unsqueeze(0)
        """The same as ones and zeros, ``[1, board.n_cells]``."""
        self.cells = board.inside[torch.as_tensor(layout.free.ravel().nonzero()[0], device=device)]
        """The free cells, ``[n_free]``."""
        self.n_picks, self.n_drops = len(layout.picks), len(layout.drops)
        self.goals = board.inside[
            torch.as_tensor(layout.picks.tolist() + layout.drops.tolist(), device=device)
        ]
        """Cells of the picks and then the drops, ``[n_goals]``."""
        steps = torch.full((len(self.goals), board.n_cells), FAR, dtype=torch.int16, device=device)
        steps[:, board.inside] = torch.as_tensor(layout.steps, device=device)
        self.steps = steps.flatten()
        """Shortest ways to every goal from every cell; ``FAR`` from walls, ``[n_goals * n_cells]``."""
        row, column = board.place(torch.arange(board.n_cells, device=device))
        region = row * REGIONS // rows * REGIONS + column * REGIONS // columns
        self.region = torch.where(self.wall, 0, region)
        """The region of a free cell, ``[board.n_cells]``."""

    def goal(self, state: WarehouseState) -> Tensor:
        """Where every robot has to go next, an index into ``goals``, ``[n_envs, n_agents]``."""
        return torch.where(state.loaded, self.n_picks + state.drop, state.pick)

    def distance(self, goal: Tensor, cell: Tensor) -> Tensor:
        """Shortest ways from cells of the board to goals of the same shape."""
        return self.steps[goal * self.board.n_cells + cell].long()

    def here(self, state: WarehouseState) -> Tensor:
        """Which robots are on the floor, ``[n_envs, n_agents]`` bool."""
        return state.cell != self.board.nowhere

    def turn(self, state: WarehouseState) -> Tensor:
        """Who gets a cell that several want: the lowest, ``[n_envs, n_agents]``; who has waited longest."""
        n = state.cell.shape[1]
        return torch.arange(n, device=state.cell.device) - n * state.waited

    def observe(self, state: WarehouseState, dropout: bool, dead: bool) -> Tensor:
        """Observations ``[n_envs, n_agents, 5 * view + 8]``; see the task.

        ``dropout`` and ``dead`` say whether messages are lost and whether there are dead robots.
        """
        board, here, goal = self.board, self.here(state), self.goal(state)
        around = self.distance(goal.unsqueeze(-1), board.around(state.cell))
        steps = self.distance(goal, state.cell)
        unheard = state.unheard if dropout else None
        way = ways(around, steps)
        others = traffic(board, state.cell, way, self.turn(state), unheard)
        walls = board.view(self.shown, state.cell).float()
        closer = torch.where(around == FAR, 0, steps.unsqueeze(-1) - around)
        times = (state.waited / PATIENCE, state.stood / STANDING)
        waited, stood = (time.clamp(max=1.0) for time in times)
        own = torch.stack([steps / sum(board.shape), state.loaded.float(), waited, stood], -1)
        planes = torch.stack([walls, *others], 2).flatten(2)
        seen = torch.cat([planes, closer, own], -1)
        return torch.where(here.unsqueeze(-1), seen, 0.0) if dead else seen

    def crowds(self, state: WarehouseState) -> Tensor:
        """Robots, loaded ones, goals in each region, ``[n_envs, 3 * REGIONS ** 2]``; 1 if spread evenly."""
        here = self.here(state)
        cells = torch.where(here, state.cell, self.cells[0])
        place, goal = self.region[cells], self.region[self.goals[self.goal(state)]]
        parts = []
        for where, weight in ((place, here), (place, here & state.loaded), (goal, here)):
            count = torch.zeros((len(here), REGIONS**2), device=here.device)
            parts.append(count.scatter_add_(1, where, weight.float()))
        return torch.cat(parts, -1) * (REGIONS**2 / here.shape[1])
