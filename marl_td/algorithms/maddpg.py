"""MADDPG: deterministic actors, and one critic per agent over everybody's observations and actions.

Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments",
https://arxiv.org/abs/1706.02275. The page ``docs/algorithms/maddpg.md`` says what differs from the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td import critics
from marl_td.algorithms.base import MarlTdAlgorithm, check_choice
from marl_td.algorithms.ddpg_family import DdpgConfig, DdpgFamily


class Maddpg(DdpgFamily):
    """MADDPG on every group of agents, competing ones included; see :class:`MaddpgConfig`."""

    @property
    def scope(self) -> str:
        """As configured."""
        return self.config.critic_scope

    def action_value(self, group: str) -> Any:
        """Critic over the actions in scope, and the global state or the observations (or both)."""
        return critics.action_value(
            self,
            group,
            scope=self.scope,
            share_params=self.config.share_param_critic,
            with_observations=self.config.state_and_observations,
        )


@dataclass
class MaddpgConfig(DdpgConfig):
    """Hyperparameters of MADDPG."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Maddpg

    critic_scope: str = "environment"
    """Whose observations and actions a critic sees: environment (all groups), group, or agent (IDDPG)."""
    state_and_observations: bool = False
    """Where the task has a global state: critics see it and all observations, instead of the state alone."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("critic_scope", self.critic_scope, critics.SCOPES)
