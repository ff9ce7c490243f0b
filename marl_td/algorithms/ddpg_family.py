"""What MADDPG and its relatives share: deterministic actors, critics of actions, exploration, targets.

Losses are per group, critics may see all groups: the target actors of all groups stand in one dictionary of
the algorithm. Every group's loss reads all of them and moves only its own. BenchMARL trains the groups one
after the other: within an iteration a later group's targets see the earlier group's moved target actors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensordict import TensorDictBase

from marl_td import critics, policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, OffPolicyConfig, check_choice, check_range
from marl_td.losses.ddpg import (
    ACTOR_GRADIENTS,
    DISCRETE_GRADIENTS,
    MADDPGLoss,
    check_discrete_gradient,
)
from marl_td.losses.deterministic_policy import LOSS_FUNCTIONS, DeterministicPolicyLoss
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import target_copy


@dataclass
class DdpgConfig(OffPolicyConfig):
    """Hyperparameters of the DDPG family."""

    share_param_critic: bool = False
    """One critic per agent (the paper), or one for all agents of a group that is told the agent's index."""
    loss_function: str = "l2"
    """Error of the critic: l2, l1 or smooth_l1."""
    gumbel_temperature: float = 1.0
    """Smoothness of the straight-through Gumbel-softmax of discrete actions, > 0: tau."""
    regularisation_coef: float = 1e-3
    """Weight of the mean square of logits or pre-tanh actions, >= 0; 1e-3 in the reference code."""
    action_scale: float = 1.0
    """Critics take continuous actions scaled from their bounds to [-this, this], > 0."""
    exploration_sigma: float = 1.0
    """Scale of continuous exploration, >= 0: noise = this * experiment's epsilon * half the action range."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("loss_function", self.loss_function, LOSS_FUNCTIONS)
        check_range("gumbel_temperature", self.gumbel_temperature, 1e-3)
        check_range("action_scale", self.action_scale, 1e-3)
        check_range("regularisation_coef", self.regularisation_coef, 0.0)
        check_range("exploration_sigma", self.exploration_sigma, 0.0)

    def loss_options(self) -> dict[str, Any]:
        """The fields that the loss takes, by its argument names."""
        names = ("loss_function", "priority_eta")
        own = {name: getattr(self, name) for name in names}
        return {**own, "regularisation_coeff": self.regularisation_coef}


@dataclass
class AgentValueConfig(DdpgConfig):
    """Hyperparameters of those with a value of every agent."""

    discrete_gradient: str = "straight_through"
    """How discrete actors climb: straight_through (Gumbel samples), or expected (exact over own actions)."""
    mask_dead_values: bool = False
    """Let an agent's death end its return; by default the critic learns what death is worth."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("discrete_gradient", self.discrete_gradient, DISCRETE_GRADIENTS)

    def loss_options(self) -> dict[str, Any]:
        """The fields that the loss takes, by its argument names."""
        names = ("discrete_gradient", "mask_dead_values")
        return {**super().loss_options(), **{name: getattr(self, name) for name in names}}


@dataclass
class CentralCriticConfig(AgentValueConfig):
    """Hyperparameters of those whose critics see what everybody does."""

    actor_gradient: str = "own"
    """Others' actions in the actor loss: own = as in replay (the paper), all = the whole group's new ones."""
    critic_scope: str = "environment"
    """Whose observations and actions a critic sees: environment (all groups), group, or agent."""
    state_and_observations: bool = False
    """Where the task has a global state: critics see it and all observations, instead of the state alone."""
    team_value: bool = False
    """One critic with one value for a whole group that shares its reward; needs actor_gradient=all."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("actor_gradient", self.actor_gradient, ACTOR_GRADIENTS)
        check_discrete_gradient(self.discrete_gradient, self.actor_gradient)
        check_choice("critic_scope", self.critic_scope, critics.SCOPES)
        critics.check_team_value(self.team_value, self.actor_gradient, self.critic_scope)

    def loss_options(self) -> dict[str, Any]:
        """The fields that the loss takes, by its argument names."""
        return {**super().loss_options(), "actor_gradient": self.actor_gradient}


class DdpgFamily(MarlTdAlgorithm):
    """Base of the algorithms that follow the gradient of a critic with respect to actions."""

    config: Any

    def __init__(self, experiment: Any, config: DdpgConfig) -> None:
        self._target_actors: dict[str, GroupActor] = {}
        super().__init__(experiment, config)

    @property
    def scope(self) -> str:
        """What critics see: ``"agent"``, ``"group"`` or ``"environment"``."""
        raise NotImplementedError

    def action_value(self, group: str) -> Any:
        """A critic of ``group``."""
        share = self.config.share_param_critic
        return critics.action_value(self, group, scope=self.scope, share_params=share)

    def loss(self, group: str, **options: Any) -> DeterministicPolicyLoss:
        """The loss of ``group``; what tells the members of the family apart."""
        options["central"] = self.scope != "agent"
        return MADDPGLoss(self.group_actor(group), self.action_value(group), **options)

    def network(self, group: str, name: str, width: int) -> Any:
        """The agents' network: observations to ``(group, name)`` ``[*B, n_agents, width]``."""
        return policies.network(self, group, name, width)

    def group_actor(self, group: str) -> GroupActor:
        """The actor of ``group`` as critics see it; its parameters are the policy's."""
        policy = self.get_policy_for_loss(group)
        if self.is_continuous(group):
            space = self.action_spec[group, "action"].space
            bounds = (space.low.to(self.device), space.high.to(self.device))
            return GroupActor(policy, group, bounds=bounds, action_scale=self.config.action_scale)
        network = policy.select_subsequence(out_keys=[(group, "logits")])
        return GroupActor(
            network,
            group,
            n_actions=policies.n_actions(self, group),
            temperature=self.config.gumbel_temperature,
        )

    def target_actors(self, group: str) -> dict[str, GroupActor]:
        """Target actors of the groups that the critic of ``group`` sees, in its order; built once each."""
        names = [name for name, _ in critics.scope_groups(self, group, self.scope)]
        return {name: self.trained_by(name, DdpgFamily).target_actor(name) for name in names}

    def target_actor(self, group: str) -> GroupActor:
        """Target actor of ``group``, which this algorithm trains; built once."""
        if group not in self._target_actors:
            self._target_actors[group] = target_copy(self.group_actor(group))
        return self._target_actors[group]

    def idle_settings(self) -> dict[str, str]:
        """The smoothness of a sample, through which nothing climbs where the mean over actions is taken."""
        idle = super().idle_settings()
        if getattr(self.config, "discrete_gradient", "") == "expected":
            idle.setdefault("gumbel_temperature", "discrete_gradient is expected")
        return idle

    # ------------------------------------------------------------- BenchMARL
    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        if continuous:
            net = self.network(group, "parameter", policies.d_action(self, group))
            return policies.deterministic(self, group, net)
        net = self.network(group, "logits", policies.n_actions(self, group))
        return policies.logits_policy(self, group, net)

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        if not continuous:
            return policy_for_loss
        return policies.gaussian_noise(
            self, group, policy_for_loss, scale=self.config.exploration_sigma
        )

    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[DeterministicPolicyLoss, bool]:
        loss = self.loss(
            group,
            gamma=self.experiment_config.gamma,
            target_actors=self.target_actors(group),
            recurrent=self.has_rnn,
            **self.config.loss_options(),
        )
        loss.set_group(group)
        return loss, True

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals per agent, without what the loss computes anew (it would only fill the replay)."""
        signals.agent_signals(batch, group)
        return batch.exclude((group, "logits"), (group, "parameter"))


class CentralCritics(DdpgFamily):
    """Base of those whose critics see what everybody does."""

    @property
    def scope(self) -> str:
        """As configured."""
        return str(self.config.critic_scope)

    def action_value(self, group: str) -> Any:
        """Critic over the actions in scope, and the global state or the observations (or both)."""
        options = {"scope": self.scope, "with_observations": self.config.state_and_observations}
        if self.config.team_value:
            return critics.team_action_value(self, group, **options)
        share = self.config.share_param_critic
        return critics.action_value(self, group, share_params=share, **options)
