"""COMA: stochastic actors, and a central critic that asks what an agent's other actions would have brought.

Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", https://arxiv.org/abs/1705.08926.
``docs/algorithms/coma.md`` says what differs from the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from tensordict.utils import NestedKey
from torchrl.data import Composite, Unbounded

from marl_td import critics, policies, signals
from marl_td.algorithms.base import (
    MarlTdAlgorithm,
    MarlTdConfig,
    check_choice,
    check_range,
)
from marl_td.algorithms.last_actions import LastActionAlgorithm
from marl_td.algorithms.recurrent import Chunks, Memory, state_keys
from marl_td.algorithms.value_norms import value_norm
from marl_td.losses.coma import ComaLoss
from marl_td.losses.entries import next_key
from marl_td.models.counterfactual import CounterfactualInput
from marl_td.models.floored import FlooredSoftmax
from marl_td.models.heads import scale_output


class Coma(Chunks, LastActionAlgorithm):
    """COMA on one group of agents; see :class:`ComaConfig` for its settings."""

    config: Any

    # ---------------------------------------------------------------- networks
    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        if continuous:
            raise ValueError(
                f"COMA sums over an agent's actions, those of group '{group}' are continuous; use "
                "discrete ones (prefer_continuous_actions=false where the task has both), or mappo."
            )
        settings = self.experiment_config
        net = policies.network(self, group, "logits", policies.n_actions(self, group))
        head = FlooredSoftmax(
            group,
            self.is_masked(group),
            eps_init=settings.exploration_eps_init,
            eps_end=settings.exploration_eps_end,
            annealing_steps=max(1, settings.get_exploration_anneal_frames(self.on_policy)),
        )
        gain = self.config.actor_gain
        layer = net if gain == 1.0 else scale_output(net, gain)
        return ProbabilisticTensorDictSequential(layer, head.to(self.device))

    def critic(self, group: str) -> TensorDictSequential:
        """Values of all actions of every agent, ``(group, "action_value")`` ``[*B, n_agents, n_actions]``.

        It reads the global state (or the observations in scope), the agent's own observation and index, and
        the actions of all other agents in scope.
        """
        scope, n_agents = self.config.critic_scope, self.n_agents(group)
        n_actions, mortal = policies.n_actions(self, group), self.is_mortal(group)
        rivals = [name for name, _ in critics.scope_groups(self, group, scope) if name != group]
        own = critics.own_observation_keys(self, group)
        rows = CounterfactualInput(
            n_agents,
            n_actions,
            other_actions=[policies.n_actions(self, name) for name in rivals],
            last_action=self.config.last_action,
            mortal=mortal,
            other_mortal=[self.is_mortal(name) for name in rivals],
            n_observations=len(own),
        )
        in_keys: list[NestedKey] = ["critic_input", (group, "action"), *own]
        for name in rivals:
            entries = ("action", "mask") if self.is_mortal(name) else ("action",)
            in_keys += [("joint", name, entry) for entry in entries]
        in_keys += [(group, "last_action")] if self.config.last_action else []
        in_keys += [(group, "mask")] if mortal else []
        width = critics.joint_observation_size(self, group, scope)
        width += critics.own_observation_size(self, group) + n_agents
        width += n_agents * n_actions * (2 if self.config.last_action else 1)
        width += sum(self.n_agents(name) * policies.n_actions(self, name) for name in rivals)
        leaf = Composite(critic_input=Unbounded((n_agents, width)), shape=(n_agents,))
        return TensorDictSequential(
            critics.joint_input(self, group, scope, "critic_input"),
            TensorDictModule(rows.to(self.device), in_keys, [(group, "critic_input")]),
            critics.critic_network(
                self,
                group,
                Composite({group: leaf}),
                "action_value",
                d_out=n_actions,
                centralised=False,
                input_has_agent_dim=True,
                share_params=self.config.share_param_critic,
            ),
        )

    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[ComaLoss, bool]:
        config = self.config
        critic = self.critic(group)
        rivals = self.group_map if self.needs_joint_keys else []
        loss = ComaLoss(
            policy_for_loss,
            critic,
            entropy_coeff=config.entropy_coef,
            critic_coeff=config.critic_coef,
            huber_delta=config.huber_delta or None,
            value_norm=value_norm(self, group, critic),
            mask_dead_values=config.mask_dead_values,
            critic_states=state_keys(critic),
            others={name: self.acting_policy(name) for name in rivals if name != group},
        )
        loss.set_group(group)
        if config.critic_steps > 1:
            loss.delays = {"loss_actor": config.critic_steps}
        return loss, False

    def memory(self, loss: ComaLoss) -> Memory:
        """The hidden states of the critic and of its target."""
        return Memory(loss.memory_keys)

    @property
    def joint_entries(self) -> tuple[str, ...]:
        """Who of a group is alive, and what its policy reads: where a trajectory is cut, it draws actions."""
        keys = [(name, key) for name in self.group_map for key in self.acting_policy(name).in_keys]
        read = [key[1] for name, key in keys if isinstance(key, tuple) and key[0] == name]
        return ("mask", *read)

    def _get_parameters(self, group: str, loss: ComaLoss) -> dict[str, Iterable[Any]]:
        return {
            "loss_actor": list(loss.actor.parameters()),
            "loss_critic": list(loss.critic.parameters()),
        }

    # -------------------------------------------------------------------- data
    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals and the critic's targets; recurrent rows are cut into chunks."""
        if self.config.team_reward == "none":
            signals.agent_signals(batch, group)
        else:
            signals.shared_signals(batch, group, self.config.team_reward)
        loss, _ = self.get_loss_and_updater(group)
        gamma = self.experiment_config.gamma
        loss.estimate(batch, gamma=gamma, lmbda=self.config.lmbda)
        self.memories[group].end(batch)
        # Only the states before a step are read again, and of the critics only the live one's.
        targets = loss.memory_keys[len(loss.critic_states) :]
        after = [next_key(key) for key in (*state_keys(loss.actor), *loss.memory_keys)]
        batch = batch.exclude(*targets, *after, (group, policies.CONTEXT))
        return self.cut(batch)


@dataclass
class ComaConfig(MarlTdConfig):
    """Hyperparameters of COMA."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Coma
    ON_POLICY: ClassVar[bool] = True
    CONTINUOUS: ClassVar[bool] = False

    lmbda: float = 0.8
    """Mixing of n-step returns in the critic's targets, in [0, 1]: lambda. 0 is one-step."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus, >= 0."""
    critic_coef: float = 1.0
    """Weight of the critic's loss, >= 0."""
    critic_steps: int = 1
    """Optimiser steps of the critic for each one of the actors, >= 1."""
    huber_delta: float = 0.0
    """Where the critic's error becomes linear, in the critic's units; 0 for the squared error."""
    value_norm: str = "none"
    """Normalisation of the critic's targets: none, or running (mean and variance)."""
    value_norm_beta: float = 0.99999
    """Rate of the running statistics, in [0, 1)."""
    team_reward: str = "mean"
    """What the critic predicts: mean or sum of the agents' rewards, or each agent's own (none)."""
    critic_scope: str = "environment"
    """What the critic sees: the global state or all groups (environment), or its group."""
    share_param_critic: bool = True
    """One critic for all agents of a group, which is told the agent's index, or one each."""
    mask_dead_values: bool = False
    """Let an agent's death end its return; by default the critic learns what death is worth."""
    last_action: bool = False
    """Agents read the action they took last, and the critic the last joint action (one-hot)."""
    agent_id: bool = False
    """Each agent's network also reads the agent's index in its group (one-hot)."""
    actor_gain: float = 0.01
    """Scale of the actor's last layer at the start, > 0; small: no action is preferred by chance; 1: off."""
    chunk_length: int = 0
    """Length of training sequences of recurrent networks, in steps; 0 for whole collected rows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("lmbda", self.lmbda, 0.0, 1.0)
        check_range("actor_gain", self.actor_gain, 1e-6)
        check_range("value_norm_beta", self.value_norm_beta, 0.0, 0.9999999)
        check_range("critic_steps", self.critic_steps, 1)
        for name in ("entropy_coef", "critic_coef", "huber_delta", "chunk_length"):
            check_range(name, getattr(self, name), 0.0)
        check_choice("value_norm", self.value_norm, ("none", "running"))
        check_choice("team_reward", self.team_reward, (*signals.TEAM_REWARDS, "none"))
        check_choice("critic_scope", self.critic_scope, critics.TEAM_SCOPES)
