"""What each agent did last, as an entry of what it is told: a transform of the environment."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, TensorSpec
from torchrl.envs import Transform

NO_ACTION = -1
"""The last action in the first step of an episode, and of a dead agent."""


class LastAction(Transform):
    """Keeps the discrete action of the step before, ``(group, "last_action")`` int64 ``[*B, n_agents]``.

    It is -1 (no action) in the first step of an episode, and of an agent that is dead by the environment's
    ``(group, "mask")``. The environment writes it and not the policy, so that it is what was really done:
    with exploration, with random first frames, in any collector.

    Args:
        groups: name of each group, and whether its agents can die.
    """

    def __init__(self, groups: dict[str, bool]) -> None:
        super().__init__()
        self.groups = groups

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        for group, mortal in self.groups.items():
            alive = next_tensordict.get((group, "mask")) if mortal else None
            taken = last_action(tensordict.get((group, "action")), alive)
            next_tensordict.set((group, "last_action"), taken)
        return next_tensordict

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        for group in self.groups:
            like = self.parent.full_action_spec[group, "action"]
            none = torch.full(like.shape, NO_ACTION, device=like.device)
            tensordict_reset.set((group, "last_action"), none)
        return tensordict_reset

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """The environment's specs with those of the last actions."""
        for group in self.groups:
            like = self.parent.full_action_spec[group, "action"]
            observation_spec[group, "last_action"] = Bounded(
                low=NO_ACTION,
                high=int(like.space.n) - 1,
                shape=like.shape,
                dtype=torch.int64,
                device=like.device,
            )
        return observation_spec


def last_action(action: Tensor, alive: Tensor | None) -> Tensor:
    """What the next step calls the last action ``[*B, n_agents]``; ``alive`` is that of the next step."""
    return action if alive is None else torch.where(alive, action, NO_ACTION)
