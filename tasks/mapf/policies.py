"""What the policies by rule of :mod:`marl_td.tasks.grid.policies` need to know of path finding."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.mapf.tables import MapTables


def step_costs(tables: MapTables, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Cells ``[n_envs, n_agents]``, and how far the goal is after each action, ``[.., n_agents, 5]``.

    Reads places, goals and the map off the info of the agents. Those who have left can only stay, at the
    cost of ``FAR``.
    """
    place = tensordict.get(("agents", "info", "position")).long()
    goal = tensordict.get(("agents", "info", "goal")).long()
    maps = tensordict.get(("agents", "info", "map"))[..., 0, 0].long()
    columns = tables.board.shape[1]
    here = place[..., 0] >= 0
    number, target = (at[..., 0] * columns + at[..., 1] for at in (place, goal))
    number = torch.where(here, number, 0)
    cell = torch.where(here, tables.board.inside[number], tables.board.nowhere)
    steps = torch.where(here, tables.steps(maps, target, number), FAR)
    around = tables.steps_around(maps, target, cell)
    return cell, torch.cat([steps.unsqueeze(-1), around], -1).float()
