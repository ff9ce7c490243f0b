"""MASAC: soft actor-critic with critics over everybody's observations and actions.

Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905, with the critics of MADDPG (Lowe et al. 2017,
https://arxiv.org/abs/1706.02275). The page ``docs/algorithms/masac.md`` says what differs from BenchMARL's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td import critics, policies
from marl_td.algorithms.base import MarlTdAlgorithm, check_choice
from marl_td.algorithms.sac_family import SacConfig, SacFamily
from marl_td.losses.masac import ACTOR_GRADIENTS, ENTROPY_BONUSES


class Masac(SacFamily):
    """MASAC on every group of agents, competing ones included; see :class:`MasacConfig`."""

    @property
    def scope(self) -> str:
        """As configured."""
        return self.config.critic_scope

    def reads_actions(self, group: str) -> bool:
        """Not where an agent sees itself only, nor where discrete values are not told the others' actions."""
        coupled = self.config.coupled_discrete_values and not self.is_continuous(group)
        return super().reads_actions(group) and not coupled

    def action_value(self, group: str) -> Any:
        """Critic of the joint action, or one with a value for each own action given the others'."""
        continuous = self.is_continuous(group)
        options: dict[str, Any] = {
            "scope": self.scope,
            "with_observations": self.config.state_and_observations,
        }
        if self.config.team_value:
            if not continuous:
                raise ValueError(
                    f"team_value needs continuous actions; those of '{group}' are discrete, where "
                    "critics value each agent's own actions."
                )
            return critics.team_action_value(self, group, **options)
        return critics.action_value(
            self,
            group,
            share_params=self.config.share_param_critic,
            reads_actions=continuous or self.reads_actions(group),
            n_values=None if continuous else policies.n_actions(self, group),
            **options,
        )

    def loss_options(self, group: str) -> dict[str, Any]:
        """The family's, and which actions and entropies of others count."""
        config = self.config
        return {
            **super().loss_options(group),
            "actor_gradient": config.actor_gradient,
            "entropy_bonus": config.entropy_bonus,
        }


@dataclass
class MasacConfig(SacConfig):
    """Hyperparameters of MASAC."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Masac

    critic_scope: str = "environment"
    """Whose observations and actions a critic sees: environment (all groups), group, or agent (ISAC)."""
    state_and_observations: bool = False
    """Where the task has a global state: critics see it and all observations, instead of the state alone."""
    share_param_critic: bool = False
    """One critic per agent, or one for all agents of a group that is told the agent's index."""
    team_value: bool = False
    """One critic with one value for a whole group that shares its reward; needs actor_gradient=all."""
    actor_gradient: str = "current"
    """Others' actions in the actor loss: current, all (current; all critics teach all), own (replay)."""
    entropy_bonus: str = "own"
    """Whose entropy is part of an agent's return: own, or team (the sum over its group)."""
    coupled_discrete_values: bool = False
    """Discrete: values of the own actions from what is observed alone, not given the others' actions."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("critic_scope", self.critic_scope, critics.SCOPES)
        check_choice("actor_gradient", self.actor_gradient, ACTOR_GRADIENTS)
        check_choice("entropy_bonus", self.entropy_bonus, ENTROPY_BONUSES)
        critics.check_team_value(self.team_value, self.actor_gradient, self.critic_scope)
