"""What an agent sees of the junction, and the global state (both ways)."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.intersection.dynamics import (
    FAR,
    IntersectionState,
    pairs,
)
from marl_td.tasks.intersection.params import N_MOVEMENTS, TURNS, IntersectionParams
from marl_td.tasks.intersection.paths import LENGTH, Paths
from marl_td.tasks.order import argsort, one_hot

D_OWN, D_OTHER = 5 + len(TURNS) + 3 + 1, 11
D_VEHICLE = 8 + N_MOVEMENTS
"""Columns of one vehicle in the global state. With ``messages`` all three have one more, the request."""


def width(params: IntersectionParams) -> int:
    """Width of an observation."""
    return D_OWN + params.messages + params.n_seen * (D_OTHER + params.messages)


def state_width(params: IntersectionParams) -> int:
    """Width of the global state."""
    return 1 + params.n_agents * (D_VEHICLE + params.messages)


def observe(params: IntersectionParams, paths: Paths, state: IntersectionState) -> Tensor:
    """``[n_envs, n_agents, width]``, see the task's docstring."""
    found = pairs(paths, state)
    heard = ~state.unheard if params.message_dropout > 0 else torch.ones_like(found.ahead)
    to_line = params.approach - state.s
    turn = one_hot(state.movement % 3, len(TURNS))
    held = (found.conflict & state.committed.unsqueeze(-2) & heard).any(-1)
    own = [
        torch.stack(
            [
                to_line / params.approach,
                state.v / params.max_speed,
                state.a / params.braking,
                state.committed.float(),
                torch.ones_like(to_line),
            ],
            -1,
        ),
        turn,
        _ahead(params, state, found.ahead & heard),
        held.unsqueeze(-1).float(),
        *_said(params, state.request),
    ]
    others = _others(params, paths, state, found.conflict & heard, to_line, turn)
    return torch.cat([*own, others], -1) * state.active.unsqueeze(-1)


def _said(params: IntersectionParams, request: Tensor) -> list[Tensor]:
    """One column of requests ``[..., 1]``, or none without ``messages``."""
    return [request.float().unsqueeze(-1)] if params.messages else []


def _ahead(params: IntersectionParams, state: IntersectionState, ahead: Tensor) -> Tensor:
    """The vehicle ahead: there, gap, speed, ``[n_envs, n_agents, 3]``."""
    gap = state.s.unsqueeze(-2) - LENGTH - state.s.unsqueeze(-1)
    least, who = torch.where(ahead, gap, FAR).min(-1)
    there = least < FAR
    parts = [there, least / params.approach, state.v.gather(1, who) / params.max_speed]
    return torch.stack([part.float() * there for part in parts], -1)


def _others(
    params: IntersectionParams,
    paths: Paths,
    state: IntersectionState,
    seen: Tensor,
    to_line: Tensor,
    turn: Tensor,
) -> Tensor:
    """Features of the ``n_seen`` conflicting vehicles nearest to the line or beyond it."""
    n_envs, n = to_line.shape
    k = min(params.n_seen, n)
    distance = torch.where(seen, to_line.unsqueeze(-2).expand(-1, n, -1), FAR)
    who = argsort(distance)[..., :k]
    flat = who.flatten(1)

    def of(values: Tensor) -> Tensor:
        return values.gather(1, flat).reshape(who.shape)

    there = seen.gather(-1, who)
    parts = torch.stack(
        [
            there.float(),
            of(to_line) / params.approach,
            of(state.v) / params.max_speed,
            of(state.committed.float()),
            (of(to_line) < to_line.unsqueeze(-1)).float(),
        ],
        -1,
    )
    looks = paths.looks[state.movement.unsqueeze(-1), of(state.movement)]
    said = _said(params, of(state.request))
    rows = torch.cat([parts, looks, *said], -1) * there.unsqueeze(-1)
    empty = rows.new_zeros((n_envs, n, params.n_seen - k, rows.shape[-1]))
    return torch.cat([rows, empty], 2).flatten(2)


def team_state(params: IntersectionParams, state: IntersectionState) -> Tensor:
    """``[n_envs, state_width]``, see the task's docstring."""
    came = state.comes <= state.step.unsqueeze(-1)
    numbers = [
        state.s / params.approach,
        state.v / params.max_speed,
        state.a / params.braking,
        state.committed.float(),
        state.active.float(),
        state.done.float(),
        state.works.float(),
        (came & ~state.active & ~state.done).float(),
    ]
    known = one_hot(state.movement, N_MOVEMENTS) * came.unsqueeze(-1)
    said = _said(params, state.request)
    vehicles = torch.cat([torch.stack(numbers, -1), known, *said], -1)
    time = state.step.float() / params.max_steps
    return torch.cat([time.unsqueeze(-1), vehicles.flatten(1)], -1)


def read_state(params: IntersectionParams, seen: Tensor) -> IntersectionState:
    """The state that a global state ``[n_envs, d_state]`` tells of; vehicles to come have movement 0."""
    vehicles = seen[:, 1:].unflatten(-1, (params.n_agents, -1))
    s, v, a, committed, active, done, works, waits = vehicles[..., :8].unbind(-1)
    step = (seen[:, 0] * params.max_steps).round().long()
    comes = torch.where(active + done + waits > 0.5, 0, torch.iinfo(torch.long).max)
    return IntersectionState(
        s=s * params.approach,
        v=v * params.max_speed,
        a=a * params.braking,
        movement=vehicles[..., 8:D_VEHICLE].argmax(-1),
        comes=comes,
        active=active > 0.5,
        done=done > 0.5,
        committed=committed > 0.5,
        works=works > 0.5,
        unheard=torch.zeros_like(active, dtype=torch.bool).unsqueeze(-1)[..., :0],
        request=vehicles[..., D_VEHICLE:].sum(-1) > 0.5,
        step=step,
    )
