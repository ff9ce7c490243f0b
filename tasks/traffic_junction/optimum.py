"""The best share of episodes without a collision.

On the easy map, two one-way roads that cross, a controller that sees all cars is a finite-horizon dynamic
programme over the occupied cells of the two roads: how long a car has been there does not matter for
collisions. On the other maps only the bound that no share exceeds 1 is given; the rule beside it says how
much it leaves.
"""

from __future__ import annotations

import functools

import numpy as np

from marl_td.tasks.base import Optimum
from marl_td.tasks.failures import dead_count
from marl_td.tasks.traffic_junction.params import TrafficJunctionParams

MAX_SIZE = 11
"""Cells of a road up to which the programme is solved (4 million states)."""


def optimum(params: TrafficJunctionParams) -> Optimum:
    """The largest probability of an episode without a collision, or a bound of it."""
    dead = dead_count(params.dead_agents, params.n_agents)
    if params.layout == "easy" and params.size <= MAX_SIZE and not dead:
        value = best_share(
            params.size, params.n_agents, params.p_arrive, params.max_steps, params.safe_entry
        )
        how = (
            f"backward induction over {params.max_steps} steps and the occupied cells of both roads; "
            "one controller that sees all cars"
        )
        return Optimum(value, "upper", how)
    return Optimum(1.0, "upper", "a share: every episode without a collision")


@functools.lru_cache(maxsize=32)
def best_share(
    size: int, n_cars: int, p_arrive: float, n_steps: int, safe_entry: bool = False
) -> float:
    """Probability that no collision happens in ``n_steps`` steps from empty roads, under the best control.

    Two roads of ``size`` cells cross in cell ``size // 2``. States are pairs of bit masks, the lowest bit the
    entry; a state's value is the probability of reaching the end without a collision.
    """
    n = 1 << size
    after, n_after = _moves(size)
    masks = np.arange(n)
    count = np.array([bin(mask).count("1") for mask in range(n)])
    cross = (masks >> size // 2) & 1
    value = ~(cross[:, None] & cross[None, :]).astype(bool)
    collides = ~value
    value = value.astype(float)
    for _ in range(n_steps):
        best = _arrived(value, count, n_cars, p_arrive, safe_entry)
        best[collides] = 0.0
        best = _best_of(_best_of(best, after, n_after).T, after, n_after).T
        best[collides] = 0.0
        value = best
    return float(value[0, 0])


def _moves(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks that a road can have after a step, ``[n_masks, most]`` padded by repetition, and how many."""
    found = []
    for mask in range(1 << size):
        ways = {0}
        for cell in range(size):
            if mask >> cell & 1:
                # From the entry on, so that only the car behind can be in the way, and only of who stays.
                step = 1 << (cell + 1) & ((1 << size) - 1)
                stay = 1 << cell
                ways = {w | stay for w in ways if not w & stay} | {w | step for w in ways}
        found.append(sorted(ways))
    most = max(map(len, found))
    table = np.array([ways + [ways[0]] * (most - len(ways)) for ways in found])
    return table, np.array([len(ways) for ways in found])


def _best_of(value: np.ndarray, after: np.ndarray, n_after: np.ndarray) -> np.ndarray:
    """Row by row the largest value, element by element, over the rows that can follow it."""
    best = value[after[:, 0]]
    for k in range(1, after.shape[1]):
        rows = np.flatnonzero(n_after > k)
        best[rows] = np.maximum(best[rows], value[after[rows, k]])
    return best


def _arrived(
    value: np.ndarray, count: np.ndarray, n_cars: int, p: float, safe_entry: bool
) -> np.ndarray:
    """Expected value after arrivals, ``[n_masks, n_masks]``; the first road's entry is served first."""

    def entered(value: np.ndarray, axis: int) -> np.ndarray:
        masks = np.arange(len(count))
        taken = (masks & 1).astype(bool)
        more = np.take(value, masks | 1, axis)
        shape = (-1, 1) if axis == 0 else (1, -1)
        there = taken.reshape(shape)
        more = np.where(there, value if safe_entry else 0.0, more)
        full = count[:, None] + count[None, :] >= n_cars
        return np.where(full, value, (1 - p) * value + p * more)

    # The last that happens is taken first: the second road's arrival sees the first's.
    return entered(entered(value, 1), 0)
