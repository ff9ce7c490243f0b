"""Token passing among robots that always have a goal, with windows; a planner for baselines only.

Ma et al. 2017, "Lifelong Multi-Agent Path Finding for Online Pickup and Delivery Tasks",
https://arxiv.org/abs/1705.10868: the token is everybody's path. Robots take it one after the other, each
plans a path around all the others', and keeps it. There a path ends where its robot can stay for ever without
closing the way of others, so a path is always found; on floors without such places it is not. Here, as in
rolling-horizon collision resolution (Li et al. 2021, "Lifelong Multi-Agent Path Finding in Large-Scale
Warehouses", https://arxiv.org/abs/2005.07371), paths are free of collisions for a number of steps only, and
are planned anew before these are over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.grid.space_time import Path, Reservations

WINDOW, LEAST = 16, 10
"""Steps that are planned, and how many must be left of a path; with fewer a robot takes the token."""
ORDERS = 10
"""Orders in which all plan together before a step is left to another policy."""

Situation = Callable[[TensorDictBase], tuple[Tensor, Tensor, Tensor]]
"""Which map ``[n_envs]``, and row and column of robots (below 0: not there) and goals ``[n_envs, n, 2]``."""


class Token:
    """The paths of all robots on one floor.

    Args:
        free: where robots can be; cells are those of :class:`~marl_td.tasks.grid.space_time.Reservations`.
        width: bits per row of the floor.
    """

    def __init__(self, free: int, width: int) -> None:
        self._free, self._width = free, width
        self._paths: dict[int, Path] = {}
        self._goals: dict[int, int] = {}
        self._ideal: set[int] = set()
        """Whose paths reach their goals as early as without others."""
        self._table = Reservations(free, width)

    def step(self, cells: dict[int, int], goals: dict[int, int]) -> dict[int, int] | None:
        """Where the robots go in this step, without collisions; None if no paths are found.

        Args:
            cells: where each robot is, in the order in which they take the token.
            goals: where each has to go.
        """
        kept = {i: path[0] for i, path in self._paths.items()} == cells
        stuck = self._renew(cells, goals) if kept else None
        if not (kept and stuck is None) and not self._all_anew(cells, goals, stuck):
            self._paths = {}
            return None
        self._table.advance()
        for path in self._paths.values():
            del path[0]
        return {i: path[0] for i, path in self._paths.items()}

    def _renew(self, cells: dict[int, int], goals: dict[int, int]) -> int | None:
        """Let those plan who have a new goal or little path left; gives who needs others to make room.

        Who arrives as early as without others has nothing to gain.
        """
        for i, cell in cells.items():
            path, goal = self._paths[i], goals[i]
            if goal == self._goals[i] and (len(path) > LEAST or i in self._ideal):
                continue
            self._table.release(path)
            new = self._table.towards(cell, goal, WINDOW)
            way = self._table.shortest(cell, goal)
            if len(new) > WINDOW:
                self._paths[i], self._goals[i] = new, goal
                ideal = goal in new and new.index(goal) == way
                (self._ideal.add if ideal else self._ideal.discard)(i)
            self._table.reserve(self._paths[i])
            closer = goal in new or self._table.shortest(new[-1], goal) < way
            if not closer or len(self._paths[i]) == 1:
                return i
        return None

    def _all_anew(self, cells: dict[int, int], goals: dict[int, int], first: int | None) -> bool:
        """New paths for all; who finds none comes first in the next order."""
        order = list(cells)
        for _ in range(ORDERS):
            if first is not None:
                order.remove(first)
                order.insert(0, first)
            first, table, paths = None, Reservations(self._free, self._width), {}
            for i in order:
                paths[i] = table.towards(cells[i], goals[i], WINDOW)
                if len(paths[i]) <= WINDOW:
                    first = i
                    break
                table.reserve(paths[i])
            if first is None:
                self._paths, self._goals, self._table = paths, dict(goals), table
                self._ideal = set()
                return True
        return False


@dataclass
class TokenPassing:
    """Centralised: who has waited for longest takes the token first.

    Where one finds no path, and where robots are not where their paths have led, all plan anew. If that fails
    in every order that is tried, ``otherwise`` plays the step.
    """

    free: list[int]
    """The maps, see :class:`Token`."""
    width: int
    situation: Situation
    otherwise: Policy
    _tokens: dict[int, tuple[int, Token]] = field(default_factory=dict)

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``; reads where everybody is and wants to be."""
        which, place, goal = self.situation(tensordict)
        waited = tensordict.get(("agents", "info", "waited")).squeeze(-1)
        turn = (waited + torch.rand_like(waited)).argsort(-1, descending=True)
        cell, goal = (at[..., 0] * self.width + at[..., 1] for at in (place, goal))
        rows = [part.tolist() for part in (which, cell, goal, turn)]
        actions = [self._act(env, *row) for env, row in enumerate(zip(*rows, strict=True))]
        if None in actions:
            spare = self.otherwise(tensordict.clone()).get(("agents", "action")).tolist()
            actions = [spare[env] if row is None else row for env, row in enumerate(actions)]
        return tensordict.set(("agents", "action"), torch.tensor(actions, device=cell.device))

    def _act(
        self, env: int, which: int, cell: list[int], goal: list[int], turn: list[int]
    ) -> list[int] | None:
        """Everybody's action in one environment."""
        if env not in self._tokens or self._tokens[env][0] != which:
            self._tokens[env] = which, Token(self.free[which], self.width)
        order = [i for i in turn if cell[i] >= 0]
        after = self._tokens[env][1].step({i: cell[i] for i in order}, {i: goal[i] for i in order})
        if after is None:
            return None
        leads = (0, -self.width, self.width, -1, 1)
        return [leads.index(after[i] - at) if i in after else 0 for i, at in enumerate(cell)]
