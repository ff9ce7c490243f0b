"""Driving by rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.grid import look

if TYPE_CHECKING:
    from marl_td.tasks.traffic_junction.task import TrafficJunction


@dataclass
class AlwaysGas:
    """Nobody ever brakes: what communication and caution are measured against."""

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``: gas, or the only available action without a car."""
        mask = tensordict.get(("agents", "action_mask"))
        return tensordict.set(("agents", "action"), (~mask[..., 0]).long())


@dataclass
class RightOfWay:
    """Centralised: of those who want a cell the one that entered first goes, if the cell gets free.

    It reads the place and route of every car. Who is blocked follows from the claims of the cells and the
    chains of cars behind blocked ones, without a loop over agents; a ring of cars moves as one.
    """

    task: TrafficJunction

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``."""
        route, place, wait = (
            tensordict.get(("agents", "info", name)).squeeze(-1)
            for name in ("route", "place", "wait")
        )
        mask = tensordict.get(("agents", "action_mask"))
        driving = mask[..., 0]
        path, outside = self.task.tables.path, self.task.n_cells
        on_road = route.long().clamp(min=0), place.long().clamp(min=0)
        cell = torch.where(driving, path[on_road], outside)
        target = torch.where(driving, path[on_road[0], on_road[1] + 1], outside)
        age = torch.where(mask[..., 1], wait, float(self.task.params.max_steps) + 1.0)
        moves = may_move(cell, target, age, outside)
        return tensordict.set(("agents", "action"), (~(moves & driving)).long())


def may_move(cell: Tensor, target: Tensor, age: Tensor, outside: int) -> Tensor:
    """Which cars can all move at once without a collision, ``[n_envs, n_agents]`` bool.

    Args:
        cell: where the cars stand, ``[n_envs, n_agents]``; ``outside`` for no car.
        target: the cells they want, likewise; ``outside`` is always free.
        age: who claims a cell first: the oldest, of equals the one with the lowest index.
        outside: number of road cells.
    """
    n_envs, n = cell.shape
    index = torch.arange(n, device=cell.device)
    rank = (index - age * n).long()  # different, the least goes first
    first = torch.full((n_envs, outside + 1), torch.iinfo(torch.long).max, device=cell.device)
    first.scatter_reduce_(1, target, rank, "amin")
    blocked = (look(first, target) != rank) & (target != outside)
    holder = torch.full((n_envs, outside + 1), n, device=cell.device)
    holder.scatter_(1, cell, index.expand(n_envs, -1))
    holder[:, outside] = n
    ahead = look(holder, target)
    blocked = torch.cat([blocked, torch.zeros_like(blocked[:, :1])], 1)
    ahead = torch.cat([ahead, torch.full_like(ahead[:, :1], n)], 1)
    for _ in range(max(1, (n - 1).bit_length())):
        blocked = blocked | look(blocked, ahead)
        ahead = look(ahead, ahead)
    return ~blocked[:, :n]
