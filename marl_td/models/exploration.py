"""Exploration noise for deterministic policies."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.utils import ExplorationType, exploration_type


class GaussianExploration(TensorDictModuleBase):
    """Adds Gaussian noise to a bounded action, scaled to each action's half range, and clamps it.

        action <- clamp(action + sigma * (high - low) / 2 * N(0, 1), low, high)

    Sigma falls linearly; it is a buffer, so checkpoints keep it. Nothing is added under a deterministic
    exploration type (evaluation).

    Args:
        low: finite lower bounds, broadcastable to ``[*B, n_agents, d_action]``.
        high: finite upper bounds, likewise.
        action_key: entry that is changed.
        sigma_init: standard deviation at the start, as a fraction of the half range, >= 0.
        sigma_end: standard deviation after annealing, in [0, ``sigma_init``].
        annealing_steps: number of frames over which sigma falls, >= 1.

    Raises:
        ValueError: if a number is out of its range.
    """

    low: Tensor
    high: Tensor
    sigma: Tensor

    def __init__(
        self,
        low: Tensor,
        high: Tensor,
        action_key: NestedKey,
        *,
        sigma_init: float,
        sigma_end: float,
        annealing_steps: int,
    ) -> None:
        super().__init__()
        if not 0.0 <= sigma_end <= sigma_init:
            raise ValueError(
                "exploration noise must fall: 0 <= sigma_end <= sigma_init; "
                f"got sigma_init={sigma_init:g}, sigma_end={sigma_end:g}."
            )
        if annealing_steps < 1:
            raise ValueError(f"annealing_steps must be at least 1 frame; got {annealing_steps}.")
        self.in_keys = [action_key]
        self.out_keys = [action_key]
        self.sigma_end = sigma_end
        self.decrease = (sigma_init - sigma_end) / annealing_steps
        self.register_buffer("low", low.clone(), persistent=False)
        self.register_buffer("high", high.clone(), persistent=False)
        self.register_buffer("sigma", torch.tensor(sigma_init, dtype=torch.float32))

    def step(self, frames: int = 1) -> None:
        """Lower sigma by what ``frames`` collected frames are worth."""
        self.sigma.sub_(self.decrease * frames).clamp_(min=self.sigma_end)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Change the action ``[*B, n_agents, d_action]`` in ``tensordict``."""
        if exploration_type() not in (ExplorationType.RANDOM, None):
            return tensordict
        action = tensordict.get(self.in_keys[0])
        scale = self.sigma * 0.5 * (self.high - self.low)
        noisy = action + scale * torch.randn_like(action)
        return tensordict.set(self.in_keys[0], noisy.clamp(self.low, self.high))
