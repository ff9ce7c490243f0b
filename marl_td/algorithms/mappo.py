"""MAPPO: PPO actors with a central critic.

Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games",
https://arxiv.org/abs/2103.01955. The page ``docs/algorithms/mappo.md`` says what differs from the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td import critics
from marl_td.algorithms.base import MarlTdAlgorithm, check_choice
from marl_td.algorithms.ppo_family import PpoConfig, PpoFamily


class Mappo(PpoFamily):
    """MAPPO on one group of agents; see :class:`MappoConfig` for its settings."""

    def state_value(self, group: str) -> Any:
        """Central critic over the group, or over all groups of the environment."""
        return critics.state_value(
            self,
            group,
            scope=self.config.critic_scope,
            share_params=self.config.share_param_critic,
            agent_specific=self.config.agent_specific_state,
        )


@dataclass
class MappoConfig(PpoConfig):
    """Hyperparameters of MAPPO."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Mappo

    critic_scope: str = "environment"
    """What the critic sees: the global state or all groups (environment), its group, or its own agent."""
    agent_specific_state: bool = False
    """Append own observation and index to the critic's input (the paper's agent-specific state)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("critic_scope", self.critic_scope, critics.SCOPES)
        if self.critic_scope == "agent" and self.agent_specific_state:
            raise ValueError(
                "agent_specific_state appends the agent's own observation to a central critic's input; "
                "with critic_scope=agent there is nothing else. Leave one of them out."
            )
