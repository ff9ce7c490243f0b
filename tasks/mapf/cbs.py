"""Least sum of costs for a few agents: conflict-based search (CBS), on the CPU.

Sharon et al. 2015, "Conflict-based search for optimal multi-agent pathfinding", Artificial Intelligence 219,
https://doi.org/10.1016/j.artint.2014.11.006. Everybody plans alone; where two plans collide, one branch
forbids it to the one and another branch to the other. The cheapest open branch is a lower bound at any time,
and the optimum once its plans do not collide.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from marl_td.tasks.grid.distance import FAR

Path = list[int]
Ban = tuple[int, int, int]
"""A forbidden step (from, to, time of arrival); from -1 forbids the cell ``to``, whoever comes from where."""


class Found(NamedTuple):
    """A sum of costs, and whether it is the least one or only a lower bound of it."""

    cost: int
    exact: bool


class Problem(NamedTuple):
    """Who has to go where; cells are counted row by row."""

    starts: list[int]
    goals: list[int]
    steps: list[list[int]]
    """Shortest ways to every agent's goal from every cell."""
    beside: list[list[int]]
    """The cells that can be entered from every cell, itself included."""
    leaves: bool
    """Whether an agent leaves the board at its goal; else it stays there and is in the way."""


def least_cost(problem: Problem, max_nodes: int) -> Found:
    """The least sum of costs, or a lower bound of it after ``max_nodes`` branches."""
    agents = range(len(problem.starts))
    paths = [_search(problem, i, frozenset()) for i in agents]
    cost = sum(len(path) - 1 for path in paths if path)
    bans: list[frozenset[Ban]] = [frozenset() for _ in agents]
    order = itertools.count()
    clashes = _count(problem, paths)
    queue: list[tuple[int, int, int, list[Path], list[frozenset[Ban]]]]
    queue = [(cost, clashes, next(order), paths, bans)]
    for _ in range(max_nodes):
        cost, clashes, _, paths, bans = heapq.heappop(queue)
        if not clashes:
            return Found(cost, True)
        for who, ban in next(_collisions(problem, paths)):
            banned = [*bans]
            banned[who] = bans[who] | {ban}
            path = _search(problem, who, banned[who])
            if path:
                new = [*paths]
                new[who] = path
                total = cost + len(path) - len(paths[who])
                heapq.heappush(queue, (total, _count(problem, new), next(order), new, banned))
        if not queue:
            break
    return Found(queue[0][0] if queue else cost, False)


def _search(problem: Problem, who: int, bans: frozenset[Ban]) -> Path:
    """A shortest path of one agent that keeps off what is forbidden; empty if there is none."""
    start, goal, steps = problem.starts[who], problem.goals[who], problem.steps[who]
    latest = max((time for old, cell, time in bans if old < 0 and cell == goal), default=-1)
    last = max((time for _, _, time in bans), default=0)
    ends = -1 if problem.leaves else latest
    queue: list[tuple[int, int, int, tuple[int, ...]]] = [(steps[start], 0, start, (start,))]
    seen = set()
    limit = last + len(steps)
    while queue:
        _, time, cell, path = heapq.heappop(queue)
        time = -time
        if cell == goal and time > ends:
            return list(path)
        if (cell, time) in seen or time > limit:
            continue
        seen.add((cell, time))
        for after in problem.beside[cell]:
            arrival = time + 1
            if (-1, after, arrival) in bans or (cell, after, arrival) in bans:
                continue
            if steps[after] < FAR and (after, arrival) not in seen:
                entry = (arrival + steps[after], -arrival, after, (*path, after))
                heapq.heappush(queue, entry)
    return []


def _collisions(
    problem: Problem, paths: list[Path]
) -> Iterator[tuple[tuple[int, Ban], tuple[int, Ban]]]:
    """Pairs of what to forbid to one agent or to the other, in order of time."""
    for time in range(1, max(len(path) for path in paths)):
        holder: dict[int, int] = {}
        came: dict[tuple[int, int], int] = {}
        for i, path in enumerate(paths):
            if time >= len(path) and problem.leaves:
                continue
            cell, before = path[min(time, len(path) - 1)], path[min(time - 1, len(path) - 1)]
            j = holder.setdefault(cell, i)
            if j != i:
                yield (j, (-1, cell, time)), (i, (-1, cell, time))
            if cell != before:
                came[before, cell] = i
                other = came.get((cell, before))
                if other is not None:
                    yield (other, (cell, before, time)), (i, (before, cell, time))


def _count(problem: Problem, paths: list[Path]) -> int:
    return sum(1 for _ in _collisions(problem, paths))
