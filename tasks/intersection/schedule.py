"""When vehicles cross if only the order matters: rules, and the best order as a mixed-integer programme.

A schedule gives every vehicle a crossing time, not before its release. If ``i`` crosses before ``j``, at
least ``separation[i, j]`` seconds lie between (none where it is 0); some orders are fixed, as in a lane. This
is a job-shop problem with release times, after Dresner & Stone 2008, "A Multiagent Approach to
Autonomous Intersection Management", https://doi.org/10.1613/jair.2502, for the reservations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


SOLVED, STOPPED = 0, 1
"""Ends of the solver: optimal, or a limit was reached."""


class Problem(NamedTuple):
    """Vehicles in the order of arrival.

    ``release`` ``[n]`` s; ``separation`` ``[n, n]`` s, at least 0; ``fixed`` ``[n, n]`` bool, true where the
    row must cross before the column; ``slack`` ``[n]``: a vehicle's delay is how much its time exceeds
    release + slack, and at least 0.
    """

    release: Array
    separation: Array
    fixed: Array
    slack: Array

    def delay(self, time: Array) -> Array:
        """Delay of each vehicle for crossing times ``[n]``."""
        late: Array = np.maximum(time - self.release - self.slack, 0.0)
        return late


def simple(
    release: Array, movement: Array, conflict: Array, separation: float = 2.5, headway: float = 2.0
) -> Problem:
    """Equal separations: ``separation`` between conflicting movements, ``headway`` within an approach.

    Args:
        release: times of arrival at the line, rising, ``[n]``, s.
        movement: 0 to 11, ``[n]``.
        conflict: which movements conflict, ``[12, 12]`` bool.
        separation: s.
        headway: s.
    """
    lane = movement // 3
    same = (lane[:, None] == lane[None, :]) & ~np.eye(len(lane), dtype=bool)
    apart = np.where(conflict[movement[:, None], movement[None, :]], separation, 0.0)
    apart = np.where(same, headway, apart)
    return Problem(release, apart, np.triu(same), np.zeros(len(release)))


def in_order(problem: Problem) -> Array:
    """First come, first served in the strict sense: everybody waits for all earlier vehicles in the way."""
    time = np.zeros(len(problem.release))
    for i, release in enumerate(problem.release):
        before = [time[k] + problem.separation[k, i] for k in range(i) if problem.separation[k, i]]
        time[i] = max([release, *before])
    return time


def reserve(problem: Problem) -> Array:
    """First come, first served by reservation: each takes the first time that the earlier ones left free."""
    time = np.zeros(len(problem.release))
    for i, release in enumerate(problem.release):
        forced = [time[k] + problem.separation[k, i] for k in range(i) if problem.fixed[k, i]]
        at = max([release, *forced])
        near = [k for k in range(i) if problem.separation[k, i] and not problem.fixed[k, i]]
        for k in sorted(near, key=lambda k: time[k]):
            after = time[k] + problem.separation[k, i]
            if at < after - 1e-9 and at + problem.separation[i, k] > time[k] + 1e-9:
                at = after
        time[i] = at
    return time


def one_at_a_time(problem: Problem, separation: float) -> Array:
    """One vehicle after the other in the order of arrival, whatever their movements."""
    time = np.zeros(len(problem.release))
    last = -np.inf
    for i, release in enumerate(problem.release):
        last = time[i] = max(release, last + separation)
    return time


def best(problem: Problem, max_nodes: int = 100_000) -> float:
    """Least sum of delays over all orders, s, or a lower bound of it if ``max_nodes`` are not enough.

    A mixed-integer programme with one binary per pair whose order is open, solved by HiGHS. No optimal
    schedule delays a vehicle by more than :func:`in_order` delays all together: that bounds every time.

    Raises:
        RuntimeError: if the solver ends without a bound.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    n = len(problem.release)
    worst = float(problem.delay(in_order(problem)).sum())
    if n < 2 or worst <= 1e-9:
        return worst
    latest = problem.release + problem.slack + worst
    rows: list[dict[int, float]] = []
    right: list[float] = []
    n_binary = 0

    def after(i: int, j: int, extra: dict[int, float], ease: float) -> None:
        """``t_j - t_i + extra >= separation - ease``."""
        rows.append({i: -1.0, j: 1.0, **extra})
        right.append(float(problem.separation[i, j]) - ease)

    for i in range(n):
        rows.append({n + i: 1.0, i: -1.0})  # delay_i >= t_i - release_i - slack_i
        right.append(-float(problem.release[i] + problem.slack[i]))
        for j in range(i + 1, n):
            if not (problem.separation[i, j] or problem.separation[j, i]):
                continue
            if problem.fixed[i, j] or problem.release[j] >= latest[i]:
                after(i, j, {}, 0.0)
                continue
            binary, n_binary = 2 * n + n_binary, n_binary + 1  # 1: i first
            slip = float(latest[i] - problem.release[j] + problem.separation[i, j])
            back = float(latest[j] - problem.release[i] + problem.separation[j, i])
            after(i, j, {binary: -slip}, slip)
            after(j, i, {binary: back}, 0.0)
    size = 2 * n + n_binary
    entries = [(r, c, v) for r, row in enumerate(rows) for c, v in row.items()]
    r, c, v = zip(*entries, strict=True)
    whole = np.concatenate([np.zeros(2 * n), np.ones(n_binary)])
    low = np.concatenate([problem.release, np.zeros(n + n_binary)])
    high = np.concatenate([latest, np.full(n, worst), np.ones(n_binary)])
    for presolve in (True, False):  # now and then the solver fails after its presolve
        found = milp(
            np.concatenate([np.zeros(n), np.ones(n), np.zeros(n_binary)]),
            constraints=LinearConstraint(csr_array((v, (r, c)), (len(rows), size)), right, np.inf),
            bounds=Bounds(low, high),
            integrality=whole,
            options={"node_limit": max_nodes, "mip_rel_gap": 1e-6, "presolve": presolve},
        )
        if found.status in (SOLVED, STOPPED):
            break
    bound = found.fun if found.status == SOLVED else getattr(found, "mip_dual_bound", None)
    if bound is None or not np.isfinite(bound):
        raise RuntimeError(f"the crossing order was not solved: {found.message}")
    return max(float(bound), 0.0)
