"""Exploration of deterministic and greedy policies."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.utils import ExplorationType, exploration_type

from marl_td.losses.functional.action_values import mask_unavailable, masked_argmax
from marl_td.models.heads import draw, finite


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
        _check_annealing(annealing_steps)
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
        noisy = action + scale * torch.randn_like(action, memory_format=torch.contiguous_format)
        return tensordict.set(self.in_keys[0], noisy.clamp(self.low, self.high))


class EpsilonGreedy(TensorDictModuleBase):
    """Replaces each agent's action, independently with probability epsilon, by a random (available) one.

    Epsilon falls linearly; it is a buffer, so checkpoints keep it. Nothing is replaced under a deterministic
    exploration type (evaluation).

    Args:
        n_actions: number of actions of each agent.
        action_key: entry that is changed, ``[*B, n_agents]``.
        mask_key: available actions ``[*B, n_agents, n_actions]``; None if all are.
        eps_init: probability at the start, in [0, 1].
        eps_end: probability after annealing, in [0, ``eps_init``].
        annealing_steps: number of frames over which epsilon falls, >= 1.

    Raises:
        ValueError: if a number is out of its range.
    """

    eps: Tensor

    def __init__(
        self,
        n_actions: int,
        action_key: NestedKey,
        mask_key: NestedKey | None = None,
        *,
        eps_init: float,
        eps_end: float,
        annealing_steps: int,
    ) -> None:
        super().__init__()
        check_epsilon(eps_init, eps_end, annealing_steps)
        self.in_keys = [action_key] if mask_key is None else [action_key, mask_key]
        self.out_keys = [action_key]
        self.n_actions = n_actions
        self.eps_end = eps_end
        self.decrease = (eps_init - eps_end) / annealing_steps
        self.register_buffer("eps", torch.tensor(eps_init, dtype=torch.float32))

    def step(self, frames: int = 1) -> None:
        """Lower epsilon by what ``frames`` collected frames are worth."""
        self.eps.sub_(self.decrease * frames).clamp_(min=self.eps_end)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Change the action ``[*B, n_agents]`` in ``tensordict``."""
        if exploration_type() not in (ExplorationType.RANDOM, None):
            return tensordict
        action, *mask = (tensordict.get(key) for key in self.in_keys)
        score = torch.rand((*action.shape, self.n_actions), device=action.device)
        random = masked_argmax(score, *mask)
        explores = torch.rand(action.shape, device=action.device) < self.eps
        return tensordict.set(self.out_keys[0], torch.where(explores, random, action))


class Boltzmann(TensorDictModuleBase):
    """Draws each agent's action, independently, from the softmax of its (available) action values.

        p(a) = exp(Q(a) / tau) / sum over available b of exp(Q(b) / tau)

    The temperature tau falls by a constant factor per frame; it is a buffer, so checkpoints keep it. Nothing
    is drawn under a deterministic exploration type (evaluation).

    Args:
        value_key: action values ``[*B, n_agents, n_actions]``.
        action_key: entry that is changed, ``[*B, n_agents]``.
        mask_key: available actions ``[*B, n_agents, n_actions]``; None if all are.
        temperature_init: tau at the start, in units of the values, at least ``temperature_end``.
        temperature_end: tau after annealing, > 0.
        annealing_steps: number of frames over which tau falls, >= 1.

    Raises:
        ValueError: if a number is out of its range.
    """

    temperature: Tensor

    def __init__(
        self,
        value_key: NestedKey,
        action_key: NestedKey,
        mask_key: NestedKey | None = None,
        *,
        temperature_init: float,
        temperature_end: float,
        annealing_steps: int,
    ) -> None:
        super().__init__()
        if not 0.0 < temperature_end <= temperature_init:
            raise ValueError(
                "the temperature must fall: 0 < temperature_end <= temperature_init; "
                f"got temperature_init={temperature_init:g}, temperature_end={temperature_end:g}."
            )
        _check_annealing(annealing_steps)
        self.in_keys = [value_key, action_key] + ([] if mask_key is None else [mask_key])
        self.out_keys = [action_key]
        self.temperature_end = temperature_end
        self.factor = (temperature_end / temperature_init) ** (1.0 / annealing_steps)
        start = torch.tensor(temperature_init, dtype=torch.float32)
        self.register_buffer("temperature", start)

    def step(self, frames: int = 1) -> None:
        """Lower the temperature by what ``frames`` collected frames are worth."""
        self.temperature.mul_(self.factor**frames).clamp_(min=self.temperature_end)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Change the action ``[*B, n_agents]`` in ``tensordict``."""
        if exploration_type() not in (ExplorationType.RANDOM, None):
            return tensordict
        value, _, *mask = (tensordict.get(key) for key in self.in_keys)
        # Values that are not numbers are left to the check of the collected batch.
        scaled = finite(value) / self.temperature
        probabilities = mask_unavailable(scaled, mask[0] if mask else None).softmax(-1)
        return tensordict.set(self.out_keys[0], draw(probabilities))


def check_epsilon(eps_init: float, eps_end: float, annealing_steps: int) -> None:
    """Raise ``ValueError`` unless epsilon falls, within [0, 1] and over at least one frame."""
    if not 0.0 <= eps_end <= eps_init <= 1.0:
        raise ValueError(
            "epsilon must fall: 0 <= eps_end <= eps_init <= 1; "
            f"got eps_init={eps_init:g}, eps_end={eps_end:g}."
        )
    _check_annealing(annealing_steps)


def _check_annealing(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"annealing_steps must be at least 1 frame; got {steps}.")
