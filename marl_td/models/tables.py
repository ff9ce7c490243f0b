"""Free values instead of a network, for problems small enough to be enumerated."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn


class ValueTable(TensorDictModuleBase):
    """One free number per state, agent and action; every entry can take any value.

    Args:
        n_states: number of states, at least 1.
        n_agents: number of agents, at least 1.
        n_actions: number of actions of each agent, at least 1.
        state_key: the state as a one-hot vector, ``[*B, n_states]``.
        out_key: where the values go, ``[*B, n_agents, n_actions]``.
    """

    def __init__(
        self,
        n_states: int,
        n_agents: int,
        n_actions: int,
        *,
        state_key: NestedKey = "state",
        out_key: NestedKey = ("agents", "action_value"),
    ) -> None:
        super().__init__()
        self.in_keys = [state_key]
        self.out_keys = [out_key]
        # Small and random: equal entries would leave all agents equal for ever.
        self.table = nn.Parameter(0.1 * torch.randn(n_states, n_agents, n_actions))

    def values(self, state: Tensor) -> Tensor:
        """Values ``[*B, n_agents, n_actions]`` of one-hot states ``[*B, n_states]``."""
        return torch.einsum("...s,sna->...na", state, self.table)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the values of every action into ``tensordict``."""
        return tensordict.set(self.out_keys[0], self.values(tensordict.get(self.in_keys[0])))
