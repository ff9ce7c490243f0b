"""Which member of its ensemble each agent plays in an episode: a transform of the environment."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, TensorSpec
from torchrl.envs import Transform

from marl_td.models.sub_policies import SUB_POLICY


class DrawSubPolicy(Transform):
    """Draws ``(group, "sub_policy")``, int64 ``[*B, n_agents]``, at every reset and keeps it for the episode.

    Every agent of every environment draws by itself, each member being as likely. The environment writes it
    and not the policy, so that it stands in every step of the data, whoever acts.

    Args:
        sizes: members of each group's ensembles, >= 1.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.sizes = sizes

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        for group in self.sizes:
            next_tensordict.set((group, SUB_POLICY), tensordict.get((group, SUB_POLICY)))
        return next_tensordict

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        for group, size in self.sizes.items():
            shape = self.parent.full_action_spec[group].shape
            tensordict_reset.set(
                (group, SUB_POLICY), draw_sub_policy(size, shape, self.parent.device)
            )
        return tensordict_reset

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """The environment's specs with those of the indices."""
        for group, size in self.sizes.items():
            actions = self.parent.full_action_spec[group]
            observation_spec[group, SUB_POLICY] = Bounded(
                low=0, high=size - 1, shape=actions.shape, dtype=torch.int64, device=actions.device
            )
        return observation_spec


def draw_sub_policy(size: int, shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    """Indices ``shape``, each member as likely."""
    return torch.randint(size, shape, device=device)
