"""Priority inheritance with backtracking (PIBT): a planner for one step of many robots, for baselines only.

Okumura et al. 2022, "Priority Inheritance with Backtracking for Iterative Multi-agent Path Finding",
https://arxiv.org/abs/1901.11282. Robots choose one after the other; who wants an occupied cell lends its
priority to the robot there, which must make room or the choice is taken back. This is sequential by nature
and runs in Python, one environment after the other: nothing that a task itself uses.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def pibt(cell: Tensor, beside: Tensor, cost: Tensor, priority: Tensor, far: float) -> Tensor:
    """Actions ``[n_envs, n]`` that never collide: every robot gets the cell that it goes for.

    Args:
        cell: where the robots stand, ``[n_envs, n]``, all different.
        beside: where each action leads, ``[n_envs, n, n_actions]``; one of them is to stay.
        cost: how much each action is liked, the lower the better, all different.
        priority: who chooses first, the higher the sooner, ``[n_envs, n]``.
        far: actions of this cost or more are not possible; robots without any are left out and stay.
    """
    order = cost.argsort(-1)
    number = (cost < far).sum(-1)
    ranked = beside.gather(-1, order)
    turn = priority.argsort(-1, descending=True)
    rows = [value.tolist() for value in (cell, ranked, order, number, turn)]
    planned = [_plan(*row) for row in zip(*rows, strict=True)]
    return torch.tensor(planned, device=cell.device)


def _plan(
    cell: list[int],
    ranked: list[list[int]],
    order: list[list[int]],
    number: list[int],
    turn: list[int],
) -> list[int]:
    """The actions in one environment."""
    options = [cells[:n] for cells, n in zip(ranked, number, strict=True)]
    holder = {c: i for i, c in enumerate(cell) if options[i]}
    target: list[int | None] = [None] * len(cell)
    taken: dict[int, int] = {}
    for i in turn:
        if target[i] is None and options[i]:
            _choose(i, cell, options, holder, target, taken)
    pairs = zip(options, target, order, strict=True)
    return [actions[cells.index(goal)] if goal in cells else 0 for cells, goal, actions in pairs]


def _choose(
    first: int,
    cell: list[int],
    options: list[list[int]],
    holder: dict[int, int],
    target: list[int | None],
    taken: dict[int, int],
) -> None:
    """Fix the target of a robot and of all that must make room for it."""
    waiting: list[tuple[int, Iterator[int]]] = [(first, iter(options[first]))]
    while waiting:
        i, left = waiting[-1]
        for goal in left:
            there = holder.get(goal)
            if goal in taken or (there is not None and target[there] == cell[i]):
                continue
            taken[goal], target[i] = i, goal
            if there is None or target[there] is not None:
                return
            waiting.append((there, iter(options[there])))
            break
        else:
            taken[cell[i]], target[i] = i, cell[i]
            waiting.pop()
