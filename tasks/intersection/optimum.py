"""A lower bound of the mean delay: the best crossing order, under what every shielded vehicle must keep.

With the shield a vehicle commits to the junction only when no conflicting committed vehicle is before the end
of their conflict. So between the commitments of two such vehicles at least the time passes that the first one
needs to leave the conflict, from where it can just still stop and at the speed that makes this fastest.
Mixed-integer programmes over random arrivals give the least delay under these separations alone; that
vehicles have to slow down for them, and cannot know the arrivals to come, is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from marl_td.tasks.base import Optimum
from marl_td.tasks.intersection.dynamics import GAP, SLACK
from marl_td.tasks.intersection.params import IntersectionParams, braking_distance
from marl_td.tasks.intersection.paths import LENGTH, Paths, paths
from marl_td.tasks.intersection.schedule import Array, Problem, best, in_order

if TYPE_CHECKING:
    from marl_td.tasks.intersection.task import Intersection

N_VEHICLES = 384
"""About so many vehicles are scheduled: 32 sequences of 12, 64 of 6."""
MAX_NODES = 100
"""Nodes per programme; one that needs more gives the bound that it has proved by then."""
MARGIN = 15.0
"""An arrival so close to the time limit, in s, might be left out by a policy: the bound is then 0."""
N_SPEEDS = 241


def optimum(task: Intersection) -> Optimum:
    """The mean delay per vehicle in s that no policy can undercut in expectation (cached)."""
    p = task.params
    if not p.shield:
        return Optimum(0.0, "lower", "without the shield: no vehicle is faster than alone")
    mean, half = _bound(json.dumps(dataclasses.asdict(p) | {"messages": False}))
    how = (
        f"mixed-integer programmes of the crossing order over {n_sequences(p)} sequences of arrivals, "
        f"95 % interval of their mean +- {half:.2f} s"
    )
    return Optimum(mean, "lower", how)


def n_sequences(params: IntersectionParams) -> int:
    """How many sequences of arrivals the bound is a mean of."""
    return min(max(N_VEHICLES // params.n_agents, 8), 64)


@functools.lru_cache(maxsize=32)
def _bound(key: str) -> tuple[float, float]:
    from marl_td.tasks.intersection.task import Intersection

    params = IntersectionParams(**json.loads(key))
    task = Intersection(params)
    generator = torch.Generator().manual_seed(0)
    n = n_sequences(params)
    state = task.reset(n, task.draw_reset(n, generator))
    sequences = zip(state.comes.numpy(), state.movement.numpy(), strict=True)
    found = np.array([least_delay(params, *one) / params.n_agents for one in sequences])
    return float(found.mean()), float(1.96 * found.std(ddof=1) / n**0.5)


def least_delay(params: IntersectionParams, comes: Array, movement: Array) -> float:
    """Lower bound of the sum of delays of one sequence of arrivals, s.

    Args:
        params: the task's parameters.
        comes: steps of arrival, rising, ``[n]``.
        movement: 0 to 11, ``[n]``.
    """
    problem = commitments(params, paths(params.approach), comes, movement)
    limit = params.dt * params.max_steps
    late = params.dt * comes[-1] > limit - MARGIN
    if late or in_order(problem).max() > limit:
        return 0.0
    return best(problem, MAX_NODES)


def commitments(
    params: IntersectionParams, junction: Paths, comes: Array, movement: Array
) -> Problem:
    """What any shielded control of these vehicles satisfies; times are those of the commitments."""
    p, top = params, params.max_speed
    line = p.approach - SLACK
    row, column = movement[:, None], movement[None, :]
    conflict = junction.conflict.numpy()[row, column]
    beyond = junction.leave.numpy()[row, column] + LENGTH - line
    apart = np.where(conflict, fastest(p, np.where(conflict, beyond, 0.0)), 0.0)
    # A stop point advances by at most this per second: speed, and the braking distance that it adds.
    rate = top * (1 + p.acceleration / p.braking) + p.acceleration * p.dt / 2
    lane = movement // 3
    same = (lane[:, None] == lane[None, :]) & ~np.eye(len(lane), dtype=bool)
    apart = np.where(same, (LENGTH + GAP) / rate, apart)
    reach = (line - braking_distance(p, top)) / top - p.dt
    end = junction.end.numpy()[movement].astype(float)
    slack = end / top - reach - fastest(p, end - line)
    return Problem(p.dt * comes + reach, apart, np.triu(same), slack)


def fastest(params: IntersectionParams, distance: Array) -> Array:
    """Least time in s from a commitment until the front is ``distance`` m beyond the last stop point.

    Over all speeds at the commitment; the vehicle then accelerates as much as it can.
    """
    p = params
    speed = np.linspace(0.0, p.max_speed, N_SPEEDS)
    stop = np.array([braking_distance(p, v) for v in speed])
    way = np.asarray(distance, dtype=float)[..., None] + stop
    rise = (p.max_speed**2 - speed**2) / (2 * p.acceleration)  # distance until the limit is reached
    rising = (
        np.sqrt(speed**2 + 2 * p.acceleration * np.minimum(way, rise)) - speed
    ) / p.acceleration
    time: Array = (rising + np.maximum(way - rise, 0.0) / p.max_speed).min(-1)
    return time
