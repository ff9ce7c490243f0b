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
    """Centralised: of those who want a cell the one whose queue reaches an entry goes, else the oldest.

    Who enters cannot be stopped, so a queue that reaches an entry is about to be hit. It reads the place and
    route of every car. Who is blocked follows from the claims of the cells and the
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
        late = float(self.task.params.max_steps) + 1.0
        entries = torch.isin(cell, self.task.tables.entry)
        age = wait + late * queues_back(cell, target, entries, outside)
        age = torch.where(mask[..., 1], age, 2.0 * late)  # nobody stops a dead agent's car
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
    return ~_spread(blocked, _who(cell, target, outside))


def queues_back(cell: Tensor, target: Tensor, entries: Tensor, outside: int) -> Tensor:
    """Cars behind which others stand, cell by cell, back to an entry, ``[n_envs, n_agents]`` bool.

    Args:
        cell: where the cars stand, ``[n_envs, n_agents]``; ``outside`` for no car.
        target: the cells they want, likewise.
        entries: cars that stand at an entry, ``[n_envs, n_agents]`` bool.
        outside: number of road cells.
    """
    return _spread(entries, _who(target, cell, outside))


def _who(there: Tensor, wanted: Tensor, outside: int) -> Tensor:
    """Index of a car whose ``there`` is one's ``wanted``, ``[n_envs, n_agents]``; n_agents if none is."""
    n_envs, n = there.shape
    held = torch.full((n_envs, outside + 1), n, device=there.device)
    held.scatter_(1, there, torch.arange(n, device=there.device).expand(n_envs, -1))
    held[:, outside] = n
    return look(held, wanted)


def _spread(flag: Tensor, link: Tensor) -> Tensor:
    """Whether a flag is set anywhere along the chain of links from each car; every hop doubles its reach."""
    n = flag.shape[1]
    flag = torch.cat([flag, torch.zeros_like(flag[:, :1])], 1)
    link = torch.cat([link, torch.full_like(link[:, :1], n)], 1)
    for _ in range(max(1, (n - 1).bit_length())):
        flag = flag | look(flag, link)
        link = look(link, link)
    return flag[:, :n]
