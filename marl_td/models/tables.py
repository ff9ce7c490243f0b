"""Free values instead of a network, for problems small enough to be enumerated."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.models.team import Team


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


class NothingSeen(TensorDictModuleBase):
    """Writes what is seen of each agent where agents see nothing: a constant, ``[*B, n_agents, 1]``."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.in_keys = [team.state_key]
        self.out_keys = [team.key("agent_input")]
        self.n_agents = team.n_agents

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the constant into ``tensordict``."""
        state = tensordict.get(self.in_keys[0])
        return tensordict.set(self.out_keys[0], state.new_ones(*state.shape[:-1], self.n_agents, 1))


class TableNetworks:
    """Tables in the place of the agents' networks, see :class:`marl_td.models.team.TeamNetworks`.

    Args:
        n_states: number of states.
        n_agents: number of agents.
        n_actions: number of actions of each agent.
    """

    def __init__(self, n_states: int, n_agents: int, n_actions: int) -> None:
        self.team = Team(n_agents, n_actions, d_state=n_states, d_agent=1)

    def agents(self, name: str, width: int) -> ValueTable:
        """Free numbers ``[*B, n_agents, width]`` for every state and agent."""
        team = self.team
        return ValueTable(team.d_state, team.n_agents, width, out_key=team.key(name))

    def central(self, module: TensorDictModuleBase) -> TensorDictModuleBase:
        """``module`` behind a constant, if it reads what is seen of the agents."""
        if self.team.key("agent_input") not in module.in_keys:
            return module
        return TensorDictSequential(NothingSeen(self.team), module)
