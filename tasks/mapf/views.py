"""The state of path finding, and what an agent sees of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.grid.traffic import traffic, ways
from marl_td.tasks.mapf.tables import MapTables

PATIENCE = 10.0
"""Steps of waiting that an observation shows as 1."""


class MapfState(NamedTuple):
    """Where everybody stands and wants to be; integers are int64."""

    map: Tensor
    """Which map, ``[n_envs]``."""
    cell: Tensor
    """Cells on the :class:`~marl_td.tasks.grid.Board`, ``[n_envs, n_agents]``; ``nowhere`` if gone."""
    goal: Tensor
    """Goals, counted row by row on the board, ``[n_envs, n_agents]``."""
    way: Tensor
    """Shortest way to the goal when it was given, in steps, ``[n_envs, n_agents]``."""
    waited: Tensor
    """Steps since a goal was last reached, ``[n_envs, n_agents]``."""
    stood: Tensor
    """Steps that an agent has stood on its goal (mode nothing), ``[n_envs, n_agents]``."""
    time: Tensor
    """Steps since the start, ``[n_envs]``."""
    unheard: Tensor
    """Cells of whose agents nothing is seen, bool ``[n_envs, n_agents, view]``, or 0 wide."""


def view(tables: MapTables, state: MapfState, dropout: bool) -> list[Tensor]:
    """Obstacles, agents and goal around every agent, each ``[n_envs, n_agents, side, side]``."""
    board = tables.board
    sight, agents = board.margin, board.view(board.taken(state.cell), state.cell).float()
    if dropout:
        heard = ~state.unheard | (board.window == 0)
        agents = agents * heard.reshape(agents.shape)
    places = zip(board.place(board.inside[state.goal]), board.place(state.cell), strict=True)
    near = torch.arange(-sight, sight + 1, dtype=torch.int32, device=tables.device)
    down, right = ((to - at).clamp(-sight, sight).int()[..., None, None] for to, at in places)
    goal = ((down == near.unsqueeze(-1)) & (right == near)).float()
    return [board.view(tables.shown, state.cell, state.map).float(), agents, goal]


def guide(tables: MapTables, state: MapfState, dropout: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Views of the others; which moves lead closer, how far the goal is and how long it has been.

    The first ``[n_envs, n_agents, side, side]``, the second ``[n_envs, n_agents, width]``, 6 wide together.
    """
    around = tables.steps_around(state.map, state.goal, state.cell)
    steps = distance(tables, state)
    turn = torch.arange(steps.shape[1], device=tables.device).expand_as(steps)
    unheard = state.unheard if dropout else None
    others = traffic(tables.board, state.cell, ways(around, steps), turn, unheard)
    closer = torch.where(around == FAR, 0, steps.unsqueeze(-1) - around)
    waited = (state.waited / PATIENCE).clamp(max=1.0)
    own = torch.stack([steps / sum(tables.board.shape), waited], -1)
    return others, [closer, own]


def distance(tables: MapTables, state: MapfState) -> Tensor:
    """Shortest ways to the goals, ``[n_envs, n_agents]``; 0 for those who have left."""
    here = state.cell != tables.board.nowhere
    number = torch.where(here, tables.board.number(state.cell), 0)
    return torch.where(here, tables.steps(state.map, state.goal, number), 0)
