"""What path finding cannot beat: the least sum of costs for a few agents, shortest ways for many."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from marl_td.tasks.base import Optimum
from marl_td.tasks.mapf.cbs import Found, Problem, least_cost

if TYPE_CHECKING:
    from marl_td.tasks.mapf.task import Mapf
    from marl_td.tasks.mapf.views import MapfState

MAX_AGENTS = 10
"""The least sum of costs is searched for so many agents at most."""
STARTS, MAX_NODES = 128, 200
"""Random starts that are solved, and branches of the search for each."""
_known: dict[str, Optimum] = {}


def bound(task: Mapf) -> Optimum:
    """Upper bound of the score, found once per process and setting."""
    key = repr(task.params)
    if key not in _known:
        few = task.params.n_agents <= MAX_AGENTS and task.params.mode != "restart"
        _known[key] = _searched(task) if few else _shortest(task)
    return _known[key]


def _shortest(task: Mapf) -> Optimum:
    """Nobody is faster than on a shortest way."""
    state = _starts(task)
    ways = torch.where(task.alive(state)["agents"], state.way, 0).sum(-1).double()
    how = "without others all would be on shortest ways, "
    how += f"{ways.mean().item():.1f} steps for all agents of an episode ({STARTS} starts)"
    return Optimum((ways / ways).mean().item(), "upper", how)


def _starts(task: Mapf) -> MapfState:
    generator = torch.Generator(device=task.device).manual_seed(0)
    return task.reset(STARTS, task.draw_reset(STARTS, generator))


def _searched(task: Mapf) -> Optimum:
    """Mean over random starts of shortest ways / least sum of costs, or / a lower bound of it."""
    state = _starts(task)
    way = torch.where(task.alive(state)["agents"], state.way.clamp(max=task.params.max_steps), 0)
    ways = way.sum(-1).double()
    found = [solve(task, state, env) for env in range(STARTS)]
    cost = torch.tensor([one.cost for one in found], dtype=torch.float64, device=ways.device)
    # Whoever does not arrive costs all steps; the others cost no less than their ways.
    late = task.params.max_steps + ways - way.amax(-1)
    score = ways / torch.minimum(cost, late)
    half = 1.96 * score.std().item() / STARTS**0.5
    exact = sum(one.exact for one in found)
    how = (
        f"conflict-based search on {STARTS} starts, {exact} of them solved, a lower bound of the costs in "
        f"the others; +- {half:.3f} (95 %) for the choice of starts"
    )
    return Optimum(score.mean().item(), "upper", how)


def solve(task: Mapf, state: MapfState, env: int, max_nodes: int = MAX_NODES) -> Found:
    """The least sum of costs in one environment, without regard to the time limit."""
    here = state.cell[env] != task.board.nowhere
    starts = task.board.number(state.cell[env][here]).tolist()
    goals = state.goal[env][here].tolist()
    if not starts:
        return Found(0, True)
    which = int(state.map[env])
    tables, n = task.tables, task.tables.n_cells
    to = tables.distance.reshape(-1, n, n)[which]
    steps = [to[goal].tolist() for goal in goals]
    beside = _beside(task.board.shape, tuple((to.diagonal() == 0).tolist()))
    return least_cost(
        Problem(starts, goals, steps, beside, task.params.mode == "finish"), max_nodes
    )


@functools.lru_cache(maxsize=128)
def _beside(shape: tuple[int, int], free: tuple[bool, ...]) -> list[list[int]]:
    """The free cells in reach of a step from each cell, itself included."""
    rows, columns = shape
    found = []
    for cell in range(rows * columns):
        row, column = divmod(cell, columns)
        near = [(row, column), (row - 1, column), (row + 1, column)]
        near += [(row, column - 1), (row, column + 1)]
        inside = [r * columns + c for r, c in near if 0 <= r < rows and 0 <= c < columns]
        found.append([place for place in inside if free[place]])
    return found
