"""The physics of the multi-particle environments (Lowe et al. 2017, as in the package ``mpe2``).

Discs of mass 1 move in the plane. An action is a force, discs that touch push each other apart
softly, and speed decays. One step of :data:`DT` is one Euler step: the position first, with the old
velocity, then the velocity.

Here the environments are the **last** dimension: a position is ``[2, n_bodies, n_envs]``. Numbers
that are processed alike then lie side by side, and the compiler vectorises over environments
whatever the number of bodies. :func:`inside` and :func:`outside` change between this and the
``[n_envs, n_bodies, 2]`` of the tasks' contract without moving a number.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marl_td.tasks.base import Box, Discrete, Noise

DT = 0.1
"""Time of one step, s."""
DAMPING = 0.25
"""Share of the velocity that is lost in a step."""
CONTACT_FORCE = 100.0
"""Force of a contact per unit of penetration."""
CONTACT_MARGIN = 1e-3
"""Distance over which a contact sets in (softly)."""
SENSITIVITY = 5.0
"""Force of a full action, along either axis."""
APART = 1e3
"""Distance of a body to itself: far enough to neither touch nor be nearest."""


def inside(x: Tensor) -> Tensor:
    """``[n_envs, n_bodies, d]`` seen as ``[d, n_bodies, n_envs]``; no number is moved."""
    return x.permute(2, 1, 0)


def outside(x: Tensor) -> Tensor:
    """``[d, n_bodies, n_envs]`` seen as ``[n_envs, n_bodies, d]``; no number is moved."""
    return x.permute(2, 1, 0)


def draw_uniform(n_envs: int, generator: torch.Generator, **n_bodies: int) -> Noise:
    """Uniform numbers in [0, 1) for each name, ``[n_envs, n_bodies, 2]``."""
    widths = [2 * n for n in n_bodies.values()]
    drawn = torch.rand((sum(widths), n_envs), generator=generator, device=generator.device)
    parts = zip(n_bodies.items(), drawn.split(widths), strict=True)
    return {name: outside(part.unflatten(0, (2, n))) for (name, n), part in parts}


def push_action(continuous: bool) -> Box | Discrete:
    """What moves an agent: see :func:`control`."""
    names = ("nothing", "left", "right", "down", "up")
    return Box((0.0,) * 5, (1.0,) * 5, names) if continuous else Discrete(5, names)


def control(action: Tensor, continuous: bool, sensitivity: float = SENSITIVITY) -> Tensor:
    """Force of the actions, ``[2, n_bodies, n_envs]``.

    Args:
        action: ``[n_envs, n_bodies, 5]`` in [0, 1] (clipped): nothing, left, right, down, up; or
            ``[n_envs, n_bodies]``, the index of one of these.
        continuous: which of the two it is.
        sensitivity: force of a full action.
    """
    if continuous:
        push = inside(action).clamp(0.0, 1.0)
        return sensitivity * (push[2::2] - push[1::2])
    move = action.transpose(0, 1)
    right = (move == 2).to(torch.float32) - (move == 1).to(torch.float32)
    up = (move == 4).to(torch.float32) - (move == 3).to(torch.float32)
    return sensitivity * torch.stack([right, up])


def offsets(origin: Tensor, point: Tensor) -> Tensor:
    """``point - origin`` for every pair, ``[2, n_origins, n_points, n_envs]``."""
    return point.unsqueeze(1) - origin.unsqueeze(2)


def distances(offset: Tensor) -> Tensor:
    """Lengths ``[n_origins, n_points, n_envs]`` of ``offset`` ``[2, n_origins, n_points, n_envs]``."""
    return offset.square().sum(0).sqrt()


def apart_from_itself(distance: Tensor) -> Tensor:
    """``distance`` ``[n, m, n_envs]``, :data:`APART` for the n bodies and themselves.

    They are the first of the m bodies.
    """
    own = torch.eye(*distance.shape[:2], dtype=torch.bool, device=distance.device)
    return torch.where(own.unsqueeze(-1), APART, distance)


def contact_force(offset: Tensor, distance: Tensor, reach: float | Tensor) -> Tensor:
    """Force on every body from all that it touches, ``[2, n_bodies, n_envs]``.

    ``100 * penetration`` away from the other body, where the penetration of two discs is
    ``softplus((reach - distance) / 0.001) * 0.001``.

    Args:
        offset: from body to other body, ``[2, n_bodies, n_others, n_envs]``.
        distance: ``[n_bodies, n_others, n_envs]``, :data:`APART` for a body and itself.
        reach: sum of both radii, a number or ``[n_bodies, n_others, 1]``.
    """
    penetration = softplus(reach - distance, beta=1.0 / CONTACT_MARGIN)
    pull = -CONTACT_FORCE * penetration / distance.clamp_min(1e-12)
    return (pull * offset).sum(2)


def move(
    position: Tensor, velocity: Tensor, force: Tensor, max_speed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Position and velocity after one step, each ``[2, n_bodies, n_envs]``.

    The speed is cut to ``max_speed`` ``[n_bodies, 1]``, where there is one.
    """
    position = position + DT * velocity
    velocity = (1.0 - DAMPING) * velocity + DT * force
    if max_speed is not None:
        speed = velocity.square().sum(0).sqrt()
        velocity = velocity * (max_speed / torch.maximum(speed, max_speed))
    return position, velocity
