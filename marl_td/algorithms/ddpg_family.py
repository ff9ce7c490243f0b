"""What MADDPG and its relatives share: deterministic actors, critics of actions, exploration, targets.

Losses are per group, critics may see all groups: the target actors of all groups stand in one dictionary of
the algorithm. Every group's loss reads all of them and moves only its own. BenchMARL trains the groups one
after the other: within an iteration a later group's targets see the earlier group's moved target actors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tensordict import TensorDictBase

from marl_td import critics, policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, OffPolicyConfig, check_choice, check_range
from marl_td.losses.ddpg import ACTOR_GRADIENTS, MADDPGLoss
from marl_td.losses.deterministic_policy import LOSS_FUNCTIONS
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import target_copy


@dataclass
class DdpgConfig(OffPolicyConfig):
    """Hyperparameters of the DDPG family."""

    share_param_critic: bool = False
    """One critic per agent (the paper), or one for all agents of a group that is told the agent's index."""
    actor_gradient: str = "own"
    """Others' actions in the actor loss: own = as in replay (the paper), all = the whole group's new ones."""
    loss_function: str = "l2"
    """Error of the critic: l2, l1 or smooth_l1."""
    gumbel_temperature: float = 1.0
    """Smoothness of the straight-through Gumbel-softmax of discrete actions, > 0: tau."""
    regularisation_coef: float = 1e-3
    """Weight of the mean square of logits or pre-tanh actions, >= 0; 1e-3 in the reference code."""
    action_scale: float = 1.0
    """Critics take continuous actions scaled from their bounds to [-this, this], > 0."""
    mask_dead_values: bool = False
    """Let an agent's death end its return; by default the critic learns what death is worth."""
    exploration_sigma: float = 1.0
    """Scale of continuous exploration, >= 0: noise = this * experiment's epsilon * half the action range."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("actor_gradient", self.actor_gradient, ACTOR_GRADIENTS)
        check_choice("loss_function", self.loss_function, LOSS_FUNCTIONS)
        check_range("gumbel_temperature", self.gumbel_temperature, 1e-3)
        check_range("action_scale", self.action_scale, 1e-3)
        check_range("regularisation_coef", self.regularisation_coef, 0.0)
        check_range("exploration_sigma", self.exploration_sigma, 0.0)


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
        """The critic of ``group``; what it sees is what tells the members of the family apart."""
        raise NotImplementedError

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
        for name in names:
            if name not in self._target_actors:
                self._target_actors[name] = target_copy(self.group_actor(name))
        return {name: self._target_actors[name] for name in names}

    # ------------------------------------------------------------- BenchMARL
    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        return (
            policies.deterministic(self, group)
            if continuous
            else policies.logits_policy(self, group)
        )

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        if not continuous:
            return policy_for_loss
        return policies.gaussian_noise(
            self, group, policy_for_loss, scale=self.config.exploration_sigma
        )

    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[MADDPGLoss, bool]:
        config = self.config
        loss = MADDPGLoss(
            self.group_actor(group),
            self.action_value(group),
            gamma=self.experiment_config.gamma,
            loss_function=config.loss_function,
            actor_gradient=config.actor_gradient,
            central=self.scope != "agent",
            regularisation_coef=config.regularisation_coef,
            mask_dead_values=config.mask_dead_values,
            target_actors=self.target_actors(group),
            recurrent=self.has_rnn,
            priority_eta=config.priority_eta,
        )
        names = ("joint_action", "reward", "terminated", "mask")
        loss.set_keys(
            action_value=(group, "chosen_action_value"),
            priority=(group, "td_error"),
            item_priority=(group, "priority"),
            **{name: (group, name) for name in names},
        )
        return loss, True

    def _get_parameters(self, group: str, loss: MADDPGLoss) -> dict[str, Iterable[Any]]:
        return {
            "loss_actor": list(loss.actor.parameters()),
            "loss_value": list(loss.critic.parameters()),
        }

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals per agent, without what the loss computes anew (it would only fill the replay)."""
        signals.agent_signals(batch, group)
        return batch.exclude((group, "logits"), (group, "parameter"))
