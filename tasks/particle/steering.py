"""How a particle is driven by rule: the force that brings it to a place, as an action."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.particle.physics import DAMPING, DT, SENSITIVITY


def arrive(way: Tensor, velocity: Tensor) -> Tensor:
    """Push that ends ``way`` ahead after two steps, both ``[*B, 2]``: the first moves as it is.

    It is in units of the full force, and may be beyond 1.
    """
    wanted = (way - DT * velocity) / DT
    return (wanted - (1.0 - DAMPING) * velocity) / (DT * SENSITIVITY)


def full_push(way: Tensor) -> Tensor:
    """Push along ``way`` ``[*B, 2]``, its stronger axis with the full force."""
    return way / way.abs().amax(-1, keepdim=True).clamp_min(1e-6)


def push_to_action(push: Tensor, continuous: bool) -> Tensor:
    """Actions ``[*B, 5]`` or ``[*B]`` for ``push`` ``[*B, 2]`` in units of the full force.

    A discrete action pushes along the stronger axis, or not at all below half of the full force.
    """
    if continuous:
        both = torch.stack([-push, push], -1).clamp(0.0, 1.0).flatten(-2)
        return torch.cat([torch.zeros_like(push[..., :1]), both], -1)
    axis = push.abs().argmax(-1)
    strongest = push.gather(-1, axis.unsqueeze(-1)).squeeze(-1)
    move = 1 + 2 * axis + (strongest > 0).long()
    return torch.where(strongest.abs() > 0.5, move, 0)


def chosen(seen: Tensor, index: Tensor) -> Tensor:
    """Of ``seen`` ``[*B, n, 2]`` the entry ``index`` ``[*B]``."""
    return seen.take_along_dim(index[..., None, None], -2).squeeze(-2)


def nearest(seen: Tensor) -> Tensor:
    """Of ``seen`` ``[*B, n, 2]``, offsets, the shortest, ``[*B, 2]``."""
    return chosen(seen, seen.square().sum(-1).argmin(-1))
