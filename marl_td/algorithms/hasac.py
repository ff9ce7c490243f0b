"""HASAC: soft actor-critic for a team whose agents move one after the other.

Liu et al. 2024, "Maximum Entropy Heterogeneous-Agent Reinforcement Learning",
https://arxiv.org/abs/2306.10715. ``docs/algorithms/hasac.md`` says what differs from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict import TensorDictBase

from marl_td import critics, policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, check_choice
from marl_td.algorithms.sac_family import SacConfig, SacFamily
from marl_td.losses.agent_adam import AgentAdam
from marl_td.losses.hasac import HASACLoss
from marl_td.losses.masac import MASACLoss


class Hasac(SacFamily):
    """HASAC on every group of agents; see :class:`HasacConfig`."""

    @property
    def scope(self) -> str:
        """As configured."""
        return self.config.critic_scope

    @property
    def share_policy_params(self) -> bool:
        """Never: agents that move one at a time have networks of their own."""
        return False

    def action_value(self, group: str) -> Any:
        """Critic of the joint action for the team, or one with a value for each own action."""
        options = {
            "scope": self.scope,
            "with_observations": self.config.state_and_observations,
        }
        if self.is_continuous(group):
            return critics.team_action_value(self, group, **options)
        n_values = policies.n_actions(self, group)
        return critics.action_value(self, group, share_params=True, n_values=n_values, **options)

    def build_loss(self, group: str) -> MASACLoss:
        """The loss of ``group`` with what moves its actors: the experiment's Adam, agent by agent."""
        config, settings = self.config, self.experiment_config
        limit = "clip_norm" if settings.clip_grad_norm else "clip_value"
        actor = self.soft_actor(group)
        optimiser = AgentAdam(
            actor,
            self.n_agents(group),
            lr=settings.lr,
            eps=settings.adam_eps,
            **{limit: settings.clip_grad_val},
        )
        return HASACLoss(
            actor,
            [self.action_value(group) for _ in range(config.num_qvalue_nets)],
            self.temperature(group),
            optimiser,
            order_seed=self.group_seed(group),
            fixed_order=config.fixed_order,
            **self.loss_options(group),
        )

    def prepare_signals(self, group: str, batch: TensorDictBase) -> None:
        """Give every agent the team's reward and end."""
        signals.shared_signals(batch, group, self.config.team_reward)


@dataclass
class HasacConfig(SacConfig):
    """Hyperparameters of HASAC."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Hasac

    loss_function: str = "huber"
    """Error of the critics: huber, l2 (squared), l1 or smooth_l1."""
    alpha_init: float = 0.001
    """Temperature (at the start), in units of reward per nat, > 0: alpha."""
    fixed_alpha: bool = True
    """Keep the temperature where it starts, instead of learning it from the target entropy."""
    share_alpha: bool = False
    """One temperature for all agents of a group, or one each."""
    n_steps: int = 20
    """Rewards in a target before it bootstraps, >= 1; fewer at the end of a collected batch: n."""
    value_norm: str = "running"
    """Targets of the critics: running (normalised by running statistics), or none (as they are)."""
    critic_scope: str = "environment"
    """Whose observations and actions the critics see: environment (all groups) or group."""
    state_and_observations: bool = False
    """Where the task has a global state: critics see it and all observations, instead of the state alone."""
    team_reward: str = "mean"
    """The team's reward: mean or sum of the agents' rewards, where agents have their own."""
    fixed_order: bool = False
    """Move the agents in the order of their indices, instead of a random one in every update."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("critic_scope", self.critic_scope, critics.TEAM_SCOPES)
        check_choice("team_reward", self.team_reward, signals.TEAM_REWARDS)
        if self.mask_dead_values:
            raise ValueError(
                "mask_dead_values has no meaning here: the return is the team's, which an agent's death does "
                "not end."
            )
