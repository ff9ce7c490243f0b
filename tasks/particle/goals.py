"""The one landmark that counts: drawn, kept in a state as marks, and found again."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.particle import physics


def draw_goal(n_envs: int, n_landmarks: int, generator: torch.Generator) -> Tensor:
    """The index of a landmark, ``[n_envs]``."""
    device = generator.device
    return torch.randint(n_landmarks, (n_envs,), generator=generator, device=device)


def marked(goal: Tensor, landmark: Tensor) -> Tensor:
    """``goal`` ``[n_envs]`` among ``landmark`` ``[n_envs, n_landmarks, 2]``: 1 there, else 0."""
    place = torch.arange(landmark.shape[1], device=goal.device).unsqueeze(-1)
    return (place == goal).to(landmark.dtype).transpose(0, 1)


def place_of(mark: Tensor, landmark: Tensor) -> Tensor:
    """Where the marked landmark lies, ``[2, 1, n_envs]``, both as a state holds them."""
    return (physics.inside(landmark) * mark.transpose(0, 1)).sum(1, keepdim=True)
