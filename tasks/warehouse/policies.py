"""What the policies by rule of :mod:`marl_td.tasks.grid.policies` need to know of the warehouse."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.warehouse.floor import Floor


def situation(floor: Floor, tensordict: TensorDictBase) -> tuple[Tensor, Tensor, Tensor]:
    """The one map, and row and column of robots and goals; see :mod:`marl_td.tasks.grid.token_passing`."""
    place = tensordict.get(("agents", "info", "position")).long()
    goal = tensordict.get(("agents", "info", "goal")).long().squeeze(-1)
    goals = torch.stack(floor.board.place(floor.goals[goal]), -1)
    return torch.zeros_like(goal[:, 0]), place, goals


def step_costs(floor: Floor, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Cells ``[n_envs, n_agents]``, and how far the goal is after each action, ``[.., n_agents, 5]``.

    Reads places and goals off the info of the robots. Dead ones can only stay, at the cost of ``FAR``.
    """
    board = floor.board
    place = tensordict.get(("agents", "info", "position")).long()
    goal = tensordict.get(("agents", "info", "goal")).long()
    number = place[..., 0] * board.shape[1] + place[..., 1]
    cell = torch.where(place[..., 0] >= 0, board.inside[number.clamp(min=0)], board.nowhere)
    after = torch.cat([cell.unsqueeze(-1), board.around(cell)], -1)
    return cell, floor.distance(goal, after).clamp(max=FAR).float()
