"""Robots by rule: straight to the goal, with steps aside, and with priorities that are handed on (PIBT).

A task says where its robots are and how far each action leaves them from their goals; the rest is the same
for all. Ties between equally short ways are broken at random, by torch's global generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.grid.board import Board, look
from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.grid.pibt import pibt

GROUP = "agents"
STAY = 0

Costs = Callable[[TensorDictBase], tuple[Tensor, Tensor]]
"""Where the robots stand, ``[n_envs, n]`` cells of the board, and the steps to their goals after each of the
actions stay, up, down, left and right, float ``[n_envs, n, 5]``: ``FAR`` and more if it is not possible."""


@dataclass
class ShortestPath:
    """Decentralised: every robot takes a shortest way, whoever is there, and stays on its goal.

    With probability ``sidestep`` it makes a random step instead: a robot that waits for another one that
    waits for it would stand there for ever.
    """

    costs: Costs
    sidestep: float = 0.0

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``."""
        cost = self.costs(tensordict)[1]
        aside = torch.where(cost < FAR, torch.rand_like(cost), FAR)
        astray = (torch.rand_like(cost[..., :1]) < self.sidestep) & (cost[..., :1] > 0.0)
        unable = (cost >= FAR).all(-1)  # has left the map
        cost = torch.where(astray, aside, cost + 0.5 * torch.rand_like(cost))
        return tensordict.set((GROUP, "action"), torch.where(unable, STAY, cost.argmin(-1)))


@dataclass
class PriorityInheritance:
    """Centralised: PIBT; those choose first who have waited for longest, of equal ways the free one."""

    board: Board
    costs: Costs

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``; reads where everybody is and wants to be."""
        cell, cost = self.costs(tensordict)
        beside = torch.cat([cell.unsqueeze(-1), self.board.around(cell)], -1)
        cost = cost + 0.4 * look(self.board.taken(cell), beside) + 0.5 * torch.rand_like(cost)
        waited = tensordict.get((GROUP, "info", "waited")).squeeze(-1)
        priority = waited + torch.rand_like(waited)
        return tensordict.set((GROUP, "action"), pibt(cell, beside, cost, priority, FAR))


def baselines(board: Board, costs: Costs) -> dict[str, Policy]:
    """The policies by name."""
    return {
        "shortest_path": ShortestPath(costs),
        "sidestep": ShortestPath(costs, sidestep=0.2),
        "pibt": PriorityInheritance(board, costs),
    }
