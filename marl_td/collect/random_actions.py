"""Uniformly random actions as a policy, for the first frames of off-policy learning."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Discrete, GroupSpec
from marl_td.tasks.specs import random_available


class RandomActions:
    """Writes uniformly random actions of every group, among the available ones where there is a mask.

    Args:
        groups: the task's groups.
        device: of the actions.
    """

    def __init__(self, groups: dict[str, GroupSpec], device: torch.device) -> None:
        self.groups = groups
        self.device = device

    def __call__(self, data: TensorDictBase) -> TensorDictBase:
        """Write ``(group, "action")`` from torch's global random stream."""
        for group, spec in self.groups.items():
            mask = data.get((group, "action_mask"), None)
            shape = (*data.batch_size, spec.n_agents)
            data.set((group, "action"), self._draw(spec, mask, shape))
        return data

    def _draw(self, spec: GroupSpec, mask: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        if isinstance(spec.action, Discrete):
            if mask is not None:
                return random_available(mask)
            return torch.randint(spec.action.n, shape, device=self.device)
        low = torch.tensor(spec.action.low, device=self.device)
        high = torch.tensor(spec.action.high, device=self.device)
        return low + (high - low) * torch.rand((*shape, len(spec.action.low)), device=self.device)
