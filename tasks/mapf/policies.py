"""The policies by rule, and what those of :mod:`marl_td.tasks.grid` need to know of path finding."""

from __future__ import annotations

import functools

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.grid.policies import baselines
from marl_td.tasks.grid.space_time import as_bits
from marl_td.tasks.grid.token_passing import TokenPassing
from marl_td.tasks.mapf.prioritised import PrioritisedPlanning
from marl_td.tasks.mapf.tables import MapTables


def rules(tables: MapTables, mode: str) -> dict[str, Policy]:
    """The policies by name; which planner depends on whether goals are given once."""
    found = baselines(tables.board, functools.partial(step_costs, tables))
    board = tables.board
    free = (~board.without_margin(tables.wall)).unflatten(1, board.shape).cpu().numpy()
    bits, width = [as_bits(one) for one in free], board.shape[1] + 1
    if mode == "restart":
        return found | {"token_passing": TokenPassing(bits, width, situation, found["pibt"])}
    return found | {"prioritised": PrioritisedPlanning(bits, width, mode == "finish", situation)}


def situation(tensordict: TensorDictBase) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, and row and column of agents and goals; see :mod:`marl_td.tasks.grid.token_passing`."""
    info = tensordict.get(("agents", "info"))
    return info["map"][:, 0, 0].long(), info["position"].long(), info["goal"].long()


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
