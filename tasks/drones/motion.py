"""How drones and targets move in a step, and who collides."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.drones import space
from marl_td.tasks.drones.params import DronesParams

PILE = 8
"""Drones of a strip that are looked at for collisions; see :func:`~marl_td.tasks.drones.space.nearest`."""


def fly(
    params: DronesParams, position: Tensor, velocity: Tensor, push: Tensor, alive: Tensor
) -> tuple[Tensor, Tensor]:
    """Position and velocity of the drones after a step; walls stop what flies into them.

    Args:
        params: of the drones.
        position: ``[n_envs, n_agents, 2]``.
        velocity: likewise.
        push: acceleration over ``max_acceleration``, likewise; its length is cut to 1.
        alive: the others stay where they are, ``[n_envs, n_agents]`` bool.
    """
    p = params
    push = push / push.norm(dim=-1, keepdim=True).clamp_min(1.0)
    velocity = velocity + p.step_time * (p.max_acceleration * push - p.drag * velocity)
    speed = velocity.norm(dim=-1, keepdim=True)
    velocity = velocity * (p.max_speed / speed.clamp_min(p.max_speed))
    velocity = torch.where(alive.unsqueeze(-1), velocity, 0.0)
    free = position + p.step_time * velocity
    position = free.clamp(0.0, p.side)
    return position, torch.where(position == free, velocity, 0.0)


def wander(
    params: DronesParams, target: Tensor, goal: Tensor, fresh: Tensor
) -> tuple[Tensor, Tensor]:
    """Places of the targets after a step, and where they go next, each ``[n_envs, n_targets, 2]``.

    Args:
        params: of the drones.
        target: places.
        goal: where they go.
        fresh: where they go after they have arrived.
    """
    way = params.target_speed * params.step_time
    left = goal - target
    distance = left.norm(dim=-1, keepdim=True)
    arrived = distance <= way
    ahead = target + left * (way / distance.clamp_min(1e-6))
    return torch.where(arrived, goal, ahead), torch.where(arrived, fresh, goal)


def crashed(params: DronesParams, position: Tensor, alive: Tensor) -> Tensor:
    """Drones that are too near to another one, ``[n_envs, n_agents]`` bool."""
    near = space.nearest(
        position,
        position,
        alive,
        side=params.side,
        radius=params.collision_distance,
        k=1,
        crowd=PILE,
        among_themselves=True,
    )
    return near.found.squeeze(-1) & alive
