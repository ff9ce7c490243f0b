"""Prioritised planning: one agent after the other, around the paths of those before it; for baselines only.

Silver 2005, "Cooperative Pathfinding", AIIDE, pages 117-122. Agents plan in some order, each a path in space
and time that arrives as early as the paths before it allow
(:class:`~marl_td.tasks.grid.space_time.Reservations`). That is neither optimal nor complete: where an agent
finds no path, the next order begins with it (Andreychuk & Yakovlev 2018, "Two techniques that enhance the
performance of multi-robot prioritized path planning", AAMAS), and some such orders later comes a random one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from tensordict import TensorDictBase

from marl_td.tasks.grid.space_time import Path, Reservations
from marl_td.tasks.grid.token_passing import Situation

RESTARTS, ORDERS = 2, 10
"""Random orders, and orders made of each by putting first who found no path."""
GONE = -1
"""Where those are that have left the board."""


class Problem(NamedTuple):
    """Who has to go where; a cell is ``row * (columns + 1) + column``."""

    free: int
    """Where agents can be, one bit per cell."""
    width: int
    """Bits per row."""
    starts: list[int]
    goals: list[int]
    leaves: bool
    """Whether an agent leaves the board at its goal; else it stays there and is in the way."""


def prioritised(problem: Problem) -> list[Path] | None:
    """Paths without collisions, or None if none of the orders gives them; by torch's global generator."""
    for _ in range(RESTARTS):
        order = torch.randperm(len(problem.starts)).tolist()
        for _ in range(ORDERS):
            paths, stuck = in_order(problem, order)
            if stuck is None:
                return [paths[i] for i in range(len(order))]
            order.remove(stuck)
            order.insert(0, stuck)
    return None


def in_order(problem: Problem, order: list[int]) -> tuple[dict[int, Path], int | None]:
    """The paths of agents in this order, and the first one for which there is none."""
    table = Reservations(problem.free, problem.width)
    paths: dict[int, Path] = {}
    for i in order:
        path = table.earliest(problem.starts[i], problem.goals[i], not problem.leaves)
        if path is None:
            return paths, i
        table.reserve(path, rests=not problem.leaves)
        paths[i] = path
    return paths, None


class _Plan(NamedTuple):
    """What is to happen in one environment."""

    world: tuple[int, list[int]]
    """The map and the goals that it is made for."""
    cells: list[list[int]]
    """Where everybody is, by time."""
    actions: list[list[int]]
    """What everybody does, by time; afterwards all stay."""


@dataclass
class PrioritisedPlanning:
    """Centralised: plans when an episode begins, and carries that out; if no order works, all stay.

    It plans anew wherever agents, goals or the map are not as they should be by its plan.
    """

    free: list[int]
    """The maps, see :class:`Problem`."""
    width: int
    leaves: bool
    situation: Situation
    _plans: dict[int, _Plan] = field(default_factory=dict)
    _times: dict[int, int] = field(default_factory=dict)

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``; reads where everybody is and wants to be."""
        which, place, goal = self.situation(tensordict)
        here, there = (at[..., 0] * self.width + at[..., 1] for at in (place, goal))
        here = torch.where(place[..., 0] >= 0, here, GONE)
        rows = zip(which.tolist(), here.tolist(), there.tolist(), strict=True)
        actions = [self._act(env, *row) for env, row in enumerate(rows)]
        return tensordict.set(("agents", "action"), torch.tensor(actions, device=here.device))

    def _act(self, env: int, which: int, here: list[int], goals: list[int]) -> list[int]:
        """Everybody's action in one environment."""
        plan, time = self._plans.get(env), self._times.get(env, 0)
        if plan is None or plan.world != (which, goals) or plan.cells[time] != here:
            plan, time = self._plan(which, here, goals), 0
        self._plans[env], self._times[env] = plan, min(time + 1, len(plan.actions))
        return plan.actions[time] if time < len(plan.actions) else [0] * len(here)

    def _plan(self, which: int, here: list[int], goals: list[int]) -> _Plan:
        active = [i for i, cell in enumerate(here) if cell != GONE]
        ways = [here[i] for i in active], [goals[i] for i in active]
        found = prioritised(Problem(self.free[which], self.width, *ways, self.leaves))
        paths = [[cell] for cell in here]
        for i, path in zip(active, found or [], strict=False):
            paths[i] = path
        cells, actions = [here], []
        for time in range(1, max(map(len, paths))):
            cells.append([self._at(path, time) for path in paths])
            actions.append([_action(path, time, self.width) for path in paths])
        return _Plan((which, goals), cells, actions)

    def _at(self, path: Path, time: int) -> int:
        """Where an agent is after ``time`` steps, at least 1."""
        return path[time] if time < len(path) - 1 else GONE if self.leaves else path[-1]


def _action(path: Path, time: int, width: int) -> int:
    """What leads along a path to where it is after ``time`` steps; to stay when it has ended."""
    step = path[time] - path[time - 1] if time < len(path) else 0
    return (0, -width, width, -1, 1).index(step)
