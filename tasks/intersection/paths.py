"""Paths of the 12 movements and where they come too close: all computed from the lanes' geometry.

The junction is a square of 14 m with one lane of 3.5 m per direction and traffic on the right. A path runs
along the approach, through the junction (a line or a quarter circle) and one vehicle length out of it. It is
tabulated every 0.25 m. Two paths of different approaches conflict where their centre lines are nearer than a
vehicle's width. The position of a vehicle is that of its front.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.intersection.params import N_APPROACHES, N_MOVEMENTS, TURNS
from marl_td.tasks.order import one_hot

HALF, LANE = 7.0, 3.5
LENGTH, WIDTH = 5.0, 2.0
"""Size of a vehicle in m."""
SPACING = 0.25
NEVER = 1e9


class Paths(NamedTuple):
    """Constants of the junction; movements are ``3 * approach + turn``, positions in m along a path."""

    points: Tensor
    """x, y and heading every 0.25 m, ``[12, n_points, 3]``; the last point repeated."""
    inside: Tensor
    """Length of the path through the junction, ``[12]``."""
    end: Tensor
    """Position at which a vehicle has left the junction, ``[12]``."""
    conflict: Tensor
    """Whether two movements of different approaches come too close, ``[12, 12]`` bool, symmetric."""
    enter: Tensor
    """First position of the row's movement too close to the column's path, ``[12, 12]``; 1e9 if none."""
    leave: Tensor
    """Last such position, ``[12, 12]``; -1e9 if there is none."""
    shared: Tensor
    """Up to where two movements of the same approach run together, ``[12, 12]``; -1e9 for others."""
    looks: Tensor
    """What the column's movement looks like to the row's: ones for its side (left, opposite, right; the own
    has none) and its turn, ``[12, 12, 6]``."""


def paths(approach: float, device: torch.device | str = "cpu") -> Paths:
    """The paths for a stop line at ``approach`` m from where vehicles appear."""
    inside = [_inside(turn) for _ in range(N_APPROACHES) for turn in TURNS]
    total = [approach + length + LENGTH for length in inside]
    n_points = math.ceil(max(total) / SPACING) + 1
    points = torch.tensor(
        [
            [_place(a, turn, min(k * SPACING, total[3 * a + i]), approach) for k in range(n_points)]
            for a in range(N_APPROACHES)
            for i, turn in enumerate(TURNS)
        ],
        dtype=torch.float64,
    )
    position = torch.arange(n_points, dtype=torch.float64) * SPACING
    before_exit = position <= torch.tensor(inside).double().unsqueeze(-1) + approach + 1e-9
    movement = torch.arange(N_MOVEMENTS)
    same = (movement // 3).unsqueeze(-1) == movement // 3
    enter = torch.full((N_MOVEMENTS, N_MOVEMENTS), NEVER, dtype=torch.float64)
    leave, shared = -enter, -enter
    for i in range(N_MOVEMENTS):
        for j in range(N_MOVEMENTS):
            if same[i, j]:
                apart = (points[i, :, :2] - points[j, :, :2]).norm(dim=-1) >= WIDTH
                shared[i, j] = position[apart][0] if i != j and bool(apart.any()) else NEVER
                continue
            gap = torch.cdist(points[i, before_exit[i], :2], points[j, before_exit[j], :2])
            near = position[before_exit[i]][gap.amin(1) < WIDTH]
            if len(near):
                enter[i, j], leave[i, j] = near[0] - SPACING, near[-1] + SPACING
    return Paths(
        points=points.float().to(device),
        inside=torch.tensor(inside, device=device),
        end=torch.tensor(total, device=device),
        conflict=(enter < NEVER).to(device),
        enter=enter.float().to(device),
        leave=leave.float().to(device),
        shared=shared.float().to(device),
        looks=_looks(movement).to(device),
    )


def _looks(movement: Tensor) -> Tensor:
    approach, turn = movement // len(TURNS), movement % len(TURNS)
    side = (approach - approach.unsqueeze(-1)) % N_APPROACHES  # 1 is the one to the left
    turns = one_hot(turn, len(TURNS)).expand(N_MOVEMENTS, -1, -1)
    return torch.cat([one_hot(side, N_APPROACHES)[..., 1:], turns], -1)


def _inside(turn: str) -> float:
    """Length of a path through the junction."""
    radius = {"right": HALF - LANE / 2, "left": HALF + LANE / 2}
    return 2 * HALF if turn == "straight" else math.pi / 2 * radius[turn]


def _place(approach: int, turn: str, s: float, line: float) -> tuple[float, float, float]:
    """x, y (m, the middle of the junction at 0) and heading (rad, 0 is east) at position ``s``."""
    s, length, lane = s - line, _inside(turn), LANE / 2
    side = {"right": -1.0, "straight": 0.0, "left": 1.0}[turn]
    x, y, heading = lane, -HALF + s, math.pi / 2
    if s > 0 and side:
        radius = HALF + side * lane
        angle = min(s, length) / radius
        x = -side * HALF + side * radius * math.cos(angle)
        y = -HALF + radius * math.sin(angle)
        heading += side * angle
        beyond = max(s - length, 0.0)
        x, y = x + beyond * math.cos(heading), y + beyond * math.sin(heading)
    turned = -math.pi / 2 * approach  # clockwise: south, west, north, east
    c, q = round(math.cos(turned)), round(math.sin(turned))
    return c * x - q * y, q * x + c * y, heading + turned
