"""Classical control of the crossing: who may commit to it, while everybody else drives as fast as that lets.

All of them brake by the shield's rule themselves, so they are free of collisions without the shield, too.
They send no requests (``messages``) and read none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.intersection import dynamics
from marl_td.tasks.intersection.dynamics import IntersectionState, Pairs
from marl_td.tasks.intersection.params import GROUP
from marl_td.tasks.intersection.sensing import read_state

if TYPE_CHECKING:
    from marl_td.tasks.intersection.task import Intersection

STANDS = 1.0
"""Speed in m/s below which a vehicle has stopped at the line (one step of braking is 0.6 m/s)."""


@dataclass
class Driver:
    """Accelerates wherever it may. Whoever reaches the junction first crosses first.

    Args:
        task: the task, for its paths and parameters.
    """

    task: Intersection

    def waits(self, state: IntersectionState, found: Pairs) -> Tensor | None:
        """Vehicles that may not commit yet, beside those that a committed vehicle is in the way of."""
        return None

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``; reads the global state."""
        task, p = self.task, self.task.params
        state = read_state(p, tensordict.get("state"))
        found = dynamics.pairs(task.paths, state)
        go, keep = torch.full_like(state.v, p.acceleration), torch.zeros_like(state.v)
        fits, commits = dynamics.wants(p, state, keep, found)
        goes = dynamics.guard(p, state, go, found, self.waits(state, found))[0] & state.active
        keeps = fits & ~commits & ~goes & state.active
        if task.continuous:
            a = torch.where(goes, go, torch.where(keeps, keep, -p.braking))
            silent = [torch.zeros_like(a)] if p.messages else []
            return tensordict.set((GROUP, "action"), torch.stack([a, *silent], -1))
        return tensordict.set((GROUP, "action"), torch.where(goes, 2, keeps.long()))


@dataclass
class FirstCome(Driver):
    """First come, first served: nobody commits before an earlier vehicle in its way has passed."""

    def waits(self, state: IntersectionState, found: Pairs) -> Tensor:
        """Vehicles with an earlier conflicting one that is not yet past, on the road or before it."""
        conflict = self.task.paths.conflict[
            state.movement.unsqueeze(-1), state.movement.unsqueeze(-2)
        ]
        queue = ~state.active & ~state.done & (state.comes <= state.step.unsqueeze(-1))
        index = torch.arange(queue.shape[1], device=queue.device)
        earlier = index < index.unsqueeze(-1)
        return (earlier & (found.conflict | (conflict & queue.unsqueeze(-2)))).any(-1)


@dataclass
class AllWayStop(Driver):
    """Everybody stops at the line, and one vehicle at a time crosses."""

    def waits(self, state: IntersectionState, found: Pairs) -> Tensor:
        """Vehicles that have not stopped, or while any other is in the junction."""
        moving = state.v > STANDS
        inside = state.committed & state.active
        turn = (~moving & ~inside & state.active & self._at_line(state)).long()
        later = turn.cumsum(-1) > 1  # of those at the line the earliest goes
        return moving | inside.any(-1, keepdim=True) | later

    def _at_line(self, state: IntersectionState) -> Tensor:
        return state.s > self.task.params.approach - dynamics.SLACK - 2.0


def baselines(task: Intersection) -> dict[str, Policy]:
    """The classical policies of the task."""
    return {
        "all_way_stop": AllWayStop(task),
        "first_come_first_served": FirstCome(task),
        "first_there_first": Driver(task),
    }
