"""Ensembles of networks of which each agent plays an episode with one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, exploration_type

SUB_POLICY = "sub_policy"
"""Entry of a group that says which member each agent plays, int64 ``[*B, n_agents]``."""


class SubPolicies(TensorDictModuleBase):
    """The output of the member that each agent plays: gradients reach that member alone.

    All members run on all rows (one batched call each), whoever plays what: shapes never change. Hidden
    states are those of the member that plays; it changes with the episode only, where they are reset.

    Args:
        members: networks of the group's agents with the same keys, at least 1.
        group: name of the group; ``(group, "sub_policy")`` ``[*B, n_agents]`` says who plays what.
        states: keys of the members' hidden states, which they read, and write under ``"next"``.

    Raises:
        ValueError: without a member.
    """

    def __init__(
        self,
        members: Sequence[TensorDictModuleBase],
        group: str = "agents",
        states: Sequence[NestedKey] = (),
    ) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least 1 member; got none.")
        self.members = nn.ModuleList(members)
        self.index_key = (group, SUB_POLICY)
        self.in_keys = [*members[0].in_keys, self.index_key]
        self.out_keys = list(members[0].out_keys)
        after = [("next", *((key,) if isinstance(key, str) else key)) for key in states]
        self.selected: list[NestedKey] = [*self.out_keys, *after]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the outputs of the members that play into ``tensordict``."""
        index = tensordict.get(self.index_key)
        found = [member(tensordict.copy()) for member in self.members]
        for key in self.selected:
            values = [out.get(key, None) for out in found]
            if values[0] is not None:  # BenchMARL's GRU writes no state in training
                tensordict.set(key, played(values, index))
        return tensordict


def played(values: Sequence[Tensor], index: Tensor) -> Tensor:
    """Of values ``[*B, n_agents, ...]`` of each member that of ``index`` ``[*B, n_agents]``."""
    out = values[0]
    index = index.reshape(*index.shape, *[1] * (out.ndim - index.ndim))
    for member, value in enumerate(values[1:], start=1):
        out = torch.where(index == member, value, out)
    return out


class FixedSubPolicy(TensorDictModuleBase):
    """Lets all agents play one member where nothing is explored (evaluation).

    Args:
        group: name of the group.
        member: which member, >= 0.
    """

    def __init__(self, group: str, member: int) -> None:
        super().__init__()
        self.in_keys = [(group, SUB_POLICY)]
        self.out_keys = [(group, SUB_POLICY)]
        self.member = member

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Change the index in ``tensordict``."""
        if exploration_type() in (ExplorationType.RANDOM, None):
            return tensordict
        index = tensordict.get(self.in_keys[0])
        return tensordict.set(self.out_keys[0], torch.full_like(index, self.member))
