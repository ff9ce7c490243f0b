"""What VDN, QMIX and their relatives share: one reward, and a team value mixed from the agents' values.

A member of the family says which mixer it uses; what the mixer conditions on is the global state of
the environment, or the joint observation where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import nn

from marl_td import critics, policies, signals
from marl_td.algorithms.base import check_choice
from marl_td.algorithms.q_family import QConfig, QFamily
from marl_td.algorithms.value_based import TeamValueConfig
from marl_td.losses.q_mixing import MixedQLoss, QMixingLoss
from marl_td.models.mixers import STATE_NORMS
from marl_td.models.team import Team, TeamNetworks


@dataclass
class QMixingConfig(TeamValueConfig, QConfig):
    """Hyperparameters of the Q-mixing family."""

    def build_loss(
        self, network: TensorDictModuleBase, networks: TeamNetworks, **options: Any
    ) -> MixedQLoss:
        """The loss: from the agents' values ``network`` and what makes other networks of the team."""
        return QMixingLoss(network, networks.central(self.mixer(networks.team)), **options)


@dataclass
class StateMixingConfig(QMixingConfig):
    """Hyperparameters of those whose mixer sees the global state."""

    state_norm: str = "none"
    """Standardise each state over its entries before the mixer's networks (layer), or not (none)."""
    critic_scope: str = "environment"
    """What the mixer sees without a global state: the observations of all groups, or of its group."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("state_norm", self.state_norm, STATE_NORMS)
        check_choice("critic_scope", self.critic_scope, critics.TEAM_SCOPES)


class GroupNetworks:
    """The networks of one group of an experiment, see :class:`marl_td.models.team.TeamNetworks`.

    Args:
        algorithm: whose specs and model settings are used.
        group: the agent group.
    """

    def __init__(self, algorithm: Any, group: str) -> None:
        self.algorithm = algorithm
        self.scope = getattr(algorithm.config, "critic_scope", "group")
        self.team = Team(
            n_agents=algorithm.n_agents(group),
            n_actions=policies.n_actions(algorithm, group),
            d_state=critics.joint_observation_size(algorithm, group, self.scope),
            d_agent=critics.own_observation_size(algorithm, group),
            group=group,
            state_key="mixer_state",
            mortal=algorithm.is_mortal(group),
            shared=algorithm.share_policy_params,
        )

    def agents(self, name: str, width: int) -> nn.Module:
        """A network of the experiment's model for the group's agents."""
        return policies.network(self.algorithm, self.team.group, name, width)

    def central(self, module: TensorDictModuleBase) -> TensorDictModuleBase:
        """``module`` behind the state (or joint observation) and the agents' own observations."""
        group, key = self.team.group, self.team.state_key
        parts: list[nn.Module] = []
        if key in module.in_keys:
            parts.append(critics.joint_input(self.algorithm, group, self.scope, key))
        if self.team.key("agent_input") in module.in_keys:
            parts.append(critics.own_input(self.algorithm, group, self.team.key("agent_input")))
        return TensorDictSequential(*parts, module)


class QMixingFamily(QFamily):
    """Base of the algorithms that learn a team value mixed from the agents' values."""

    def network(self, group: str, name: str, width: int) -> TensorDictModuleBase:
        """What gives the agents' values."""
        network = self.config.value_network(GroupNetworks(self, group), name, width)
        return network.to(self.device)

    def loss(self, group: str, network: TensorDictModuleBase, **options: Any) -> MixedQLoss:
        """The loss of ``group``."""
        return self.config.build_loss(network, GroupNetworks(self, group), **options)

    def add_signals(self, group: str, batch: TensorDictBase) -> None:
        """Reward, done and terminated of the team."""
        signals.team_signals(batch, group, self.config.team_reward)
