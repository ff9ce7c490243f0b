"""How vehicles move, when they appear, what the shield allows and what is a collision. Pure functions.

The shield keeps three promises from step to step, and braking fully always keeps them:

* no vehicle's *stop point*, where it would stand if it braked fully, lies beyond its leader's (less a vehicle
  and a gap); with the same braking, gaps then never close;
* no vehicle's stop point lies beyond the line, unless it is *committed*;
* of two vehicles whose movements conflict at most one is committed and not yet past the conflict.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.intersection.params import IntersectionParams
from marl_td.tasks.intersection.paths import LENGTH, Paths
from marl_td.tasks.layout import written

GAP = 1.0
"""Distance kept to the vehicle ahead, in m, beside its length."""
SLACK = 0.5
"""How far before the line a stop point must lie, in m: rounding cannot use it up."""
FAR = 1e6


class IntersectionState(NamedTuple):
    """State of the vehicles, ``[n_envs, n_agents]`` unless said otherwise; in the order of arrival.

    ============  ========  =================================================================
    ``s``         float32   position of the front along the path, m
    ``v``         float32   speed, m/s
    ``a``         float32   acceleration in the last step, m/s2
    ``movement``  int64     0 to 11
    ``comes``     int64     step of arrival
    ``active``    bool      on the road
    ``done``      bool      has left the junction
    ``committed`` bool      can no longer stop before the line
    ``works``     bool      follows its agent; others accelerate as far as the shield lets them
    ``unheard``   bool      vehicles that an agent does not see, ``[n_envs, n_agents, n_agents]``, or no
                            columns without ``message_dropout``
    ``request``   bool      said "request" in the last step; never without ``messages``
    ``step``      int64     steps done, ``[n_envs]``
    ============  ========  =================================================================
    """

    s: Tensor
    v: Tensor
    a: Tensor
    movement: Tensor
    comes: Tensor
    active: Tensor
    done: Tensor
    committed: Tensor
    works: Tensor
    unheard: Tensor
    request: Tensor
    step: Tensor


class Pairs(NamedTuple):
    """Relations of vehicle i (row) to vehicle j (column), ``[n_envs, n_agents, n_agents]``."""

    conflict: Tensor
    """Their movements conflict, and j is on the road and not yet past it, bool."""
    ahead: Tensor
    """j is ahead of i on the path they still share, bool."""


def stop_distance(params: IntersectionParams, v: Tensor) -> Tensor:
    """How far vehicles go until they stand if they brake fully in every step, m."""
    drop = params.braking * params.dt
    n = (v / drop).floor()
    return params.dt * (n * v - 0.5 * drop * n * n + 0.5 * (v - n * drop))


def move(params: IntersectionParams, s: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Position and speed after a step at acceleration ``a``; the speed stays in its limits."""
    new = (v + a * params.dt).clamp(0.0, params.max_speed)
    return s + 0.5 * (v + new) * params.dt, new


def pairs(paths: Paths, state: IntersectionState) -> Pairs:
    """Who is in whose way."""
    row, column = state.movement.unsqueeze(-1), state.movement.unsqueeze(-2)
    there = state.active.unsqueeze(-2)
    # Written, because movements stay: one look into each table does for all pairs of a step.
    # Where there is no conflict, its end is at -1e9 m.
    before = state.s.unsqueeze(-2) < written(paths.leave[column, row] + LENGTH)
    index = torch.arange(state.s.shape[1], device=state.s.device)
    near = state.s.unsqueeze(-2) - LENGTH < written(paths.shared[row, column])
    return Pairs(
        conflict=before & there,
        ahead=near & there & (index < index.unsqueeze(-1)),
    )


def lane_limit(params: IntersectionParams, state: IntersectionState, found: Pairs) -> Tensor:
    """Where the stop point of each vehicle may lie because of its leader, m; 1e6 without one."""
    stop = state.s + stop_distance(params, state.v)
    behind = torch.where(found.ahead, stop.unsqueeze(-2) - LENGTH - GAP, FAR)
    return behind.amin(-1)


def guard(
    params: IntersectionParams,
    state: IntersectionState,
    a: Tensor,
    found: Pairs,
    waits: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The shield: which accelerations pass, others must brake fully; and who is committed afterwards.

    Args:
        params: the task's parameters.
        state: the state.
        a: wanted accelerations, ``[n_envs, n_agents]``, m/s2.
        found: :func:`pairs` of the state.
        waits: vehicles that may not commit for some other reason, bool.

    Returns:
        ``passes`` and ``committed``, bool ``[n_envs, n_agents]``.
    """
    fits, commits = wants(params, state, a, found)
    held = (found.conflict & state.committed.unsqueeze(-2)).any(-1)
    if waits is not None:
        held = held | waits
    could = fits & commits & ~held & state.active
    index = torch.arange(a.shape[1], device=a.device)
    first = index < index.unsqueeze(-1)  # of those who would commit at once the earliest does
    tie = (found.conflict & could.unsqueeze(-2) & first).any(-1)
    may = could & ~tie
    passes = fits & (~commits | may)
    return passes, state.committed | may


def allowed(
    params: IntersectionParams, state: IntersectionState, a: Tensor, found: Pairs
) -> Tensor:
    """Accelerations that the shield lets pass unless another vehicle commits at the same time, bool."""
    fits, commits = wants(params, state, a, found)
    held = (found.conflict & state.committed.unsqueeze(-2)).any(-1)
    return fits & (~commits | ~held)


def wants(
    params: IntersectionParams, state: IntersectionState, a: Tensor, found: Pairs
) -> tuple[Tensor, Tensor]:
    """Whether an acceleration keeps behind the leader, and whether it would commit the vehicle."""
    s, v = move(params, state.s, state.v, a)
    stop = s + stop_distance(params, v)
    fits = stop <= lane_limit(params, state, found)
    return fits, ~state.committed & (stop > params.approach - SLACK)


def appear(
    params: IntersectionParams, paths: Paths, state: IntersectionState, step: Tensor
) -> IntersectionState:
    """Vehicles whose time has come enter their lane, as fast as lets them stop behind the last one.

    Args:
        params: the task's parameters.
        paths: the junction.
        state: the state.
        step: the step that begins, ``[n_envs]``.
    """
    waiting = ~state.active & ~state.done
    lane = state.movement // 3
    index = torch.arange(lane.shape[1], device=lane.device)
    before = (lane.unsqueeze(-1) == lane.unsqueeze(-2)) & (index < index.unsqueeze(-1))
    first = ~(before & waiting.unsqueeze(-2)).any(-1)
    found = pairs(paths, state)
    room = lane_limit(params, state, found)
    close = (found.ahead & (state.s < LENGTH + GAP).unsqueeze(-2)).any(-1)
    here = state.comes <= step.unsqueeze(-1)
    enters = waiting & first & here & ~close & (room >= 0.0)
    # A speed whose braking distance is at most the room: v^2 / (2 b) + v dt / 2 is never below it.
    half, b = 0.5 * params.dt, params.braking
    safe = b * ((half * half + 2.0 * room.clamp(min=0.0) / b).sqrt() - half)
    return state._replace(
        active=state.active | enters,
        v=torch.where(enters, safe.clamp(max=params.max_speed), state.v),
    )


def collided(paths: Paths, state: IntersectionState) -> Tensor:
    """Vehicles that overlap with another, ``[n_envs, n_agents]`` bool: in a lane or in a conflict."""
    row, column = state.movement.unsqueeze(-1), state.movement.unsqueeze(-2)
    mine, other = state.s.unsqueeze(-1), state.s.unsqueeze(-2)
    both = state.active.unsqueeze(-1) & state.active.unsqueeze(-2)
    enter, leave = paths.enter[row, column], paths.leave[row, column]
    enter_t, leave_t = paths.enter[column, row], paths.leave[column, row]
    inside = (mine > enter) & (mine - LENGTH < leave)
    inside = inside & (other > enter_t) & (other - LENGTH < leave_t)
    front = torch.maximum(mine, other) - LENGTH
    touching = ((mine - other).abs() < LENGTH) & (front < paths.shared[row, column])
    index = torch.arange(mine.shape[1], device=mine.device)
    different = index != index.unsqueeze(-1)
    return (both & different & (inside | touching)).any(-1)
