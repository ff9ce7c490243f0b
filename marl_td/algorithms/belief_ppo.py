"""Belief-PPO: decentralised PPO whose agents infer from recent actions what policies the others follow.

A reading of Zhai, Peng, Su and Tian 2023, "Dynamic Belief for Decentralized Multi-Agent Cooperative
Learning", IJCAI 2023, of which the idea is public and the equations are not.
``docs/algorithms/belief_ppo.md`` says what was decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import Tensor
from torchrl.envs import TransformedEnv

from marl_td import critics, policies
from marl_td.algorithms.base import (
    MarlTdAlgorithm,
    MarlTdConfig,
    check_choice,
    check_range,
    with_transform,
)
from marl_td.algorithms.ppo_family import PpoConfig, PpoFamily
from marl_td.algorithms.recurrent import state_keys
from marl_td.algorithms.value_norms import value_norm
from marl_td.collect.history import JOINT, OBSERVATION, SEEN, ActionHistory, Remembered
from marl_td.losses.belief import BeliefPPOLoss
from marl_td.models.belief import BeliefContext, BeliefDecoder, BeliefEncoder

BELIEF = ("belief_mean", "belief_std")


class BeliefPpo(PpoFamily):
    """Belief-PPO on one group of agents; see :class:`BeliefPpoConfig` for its settings."""

    def __init__(self, experiment: Any, config: MarlTdConfig) -> None:
        self.encoders: dict[str, TensorDictModule] = {}
        super().__init__(experiment, config)
        kinds = {self.is_continuous(group) for group in self.group_map}
        if len(kinds) > 1:
            raise ValueError(
                "Belief-PPO predicts what all agents do; some groups here have discrete and some continuous "
                "actions. Use mappo, or give all agents the same kind of actions."
            )

    # -------------------------------------------------------------- environment
    def process_env_fun(
        self, env_fun: Callable[[], TransformedEnv]
    ) -> Callable[[], TransformedEnv]:
        """Remember what everybody did in the last steps.

        Raises:
            ValueError: if groups' algorithms want histories of different lengths, or a ``visible_entry``
                does not say who sees whom.
        """
        learners = self._learners()
        lengths = {name: config.history_length for name, config in learners.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{length} ({name})" for name, length in lengths.items())
            raise ValueError(
                "there is one history of what everybody did, for all groups; got "
                f"history_length={listed}. Give all of them the same."
            )
        groups = {}
        for name in self.group_map:
            visible = (learners[name].visible_entry or None) if name in learners else None
            leaves = self.observation_spec[name].items(True, True)
            groups[name] = Remembered(
                self.n_agents(name),
                {
                    (leaf,) if isinstance(leaf, str) else leaf: len(spec.shape) - 1
                    for leaf, spec in leaves
                },
                self.is_mortal(name),
                visible,
            )
            if visible is not None:
                self._check_visible(name, visible)
        return with_transform(env_fun, lambda: ActionHistory(groups, self.config.history_length))

    def _learners(self) -> dict[str, BeliefPpoConfig]:
        """Settings of the groups that have beliefs: of all, or of some of an ensemble's."""
        trainers = {name: self.trainers.get(name, self) for name in self.group_map}
        return {name: t.config for name, t in trainers.items() if isinstance(t, BeliefPpo)}

    def _check_visible(self, group: str, entry: str) -> None:
        """Raise ``ValueError`` unless ``entry`` says for each agent of ``group`` whom it sees."""
        shape = (self.n_agents(group), self.n_all)
        spec = self.observation_spec[group].get(entry, None)
        if spec is None or tuple(spec.shape) != shape:
            found = "none" if spec is None else list(spec.shape)
            raise ValueError(
                f"visible_entry='{entry}' must be an entry of the observation of group '{group}' of shape "
                f"{list(shape)} (its agents, all agents); found {found}."
            )

    @property
    def n_all(self) -> int:
        """Number of agents of all groups."""
        return sum(len(agents) for agents in self.group_map.values())

    # ----------------------------------------------------------------- networks
    @property
    def n_groups(self) -> dict[str, int]:
        """How many networks of each kind the agents of a group have."""
        shared = self.share_policy_params
        return {group: 1 if shared else self.n_agents(group) for group in self.group_map}

    def widths(self) -> list[int]:
        """Width of each agent's action, in the order of all agents."""
        return [
            policies.action_width(self, name)
            for name, agents in self.group_map.items()
            for _ in agents
        ]

    def encoder(self, group: str) -> TensorDictModule:
        """What each agent believes of each; built once, used to act and in the loss."""
        if group not in self.encoders:
            config, width = self.config, max(self.widths())
            module = BeliefEncoder(
                self.n_groups[group],
                critics.own_observation_size(self, group),
                width,
                config.belief_dim,
                config.history_length,
                d_hidden=config.belief_hidden_dim,
                n_actions=0 if self.is_continuous(group) else width,
            )
            keys = [JOINT, (group, OBSERVATION), (group, SEEN)]
            out = [(group, name) for name in BELIEF]
            self.encoders[group] = TensorDictModule(module.to(self.device), keys, out)
        return self.encoders[group]

    def decoder(self, group: str) -> TensorDictSequential:
        """What each agent expects each to do."""
        width, config = max(self.widths()), self.config
        module = BeliefDecoder(
            self.n_groups[group],
            critics.own_observation_size(self, group),
            config.belief_dim,
            2 * width if self.is_continuous(group) else width,
            d_hidden=config.belief_hidden_dim,
        )
        keys = [(group, "agent_input"), (group, "belief")]
        return TensorDictSequential(
            critics.own_input(self, group, (group, "agent_input")),
            TensorDictModule(module.to(self.device), keys, [(group, "prediction")]),
        )

    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        """Reads the belief from the data."""
        config = self.config
        module = BeliefContext(
            self.n_groups[group],
            critics.own_observation_size(self, group),
            config.belief_dim,
            self.others(group),
            attention=config.belief_pooling == "attention",
        )
        keys = [(group, name) for name in ("agent_input", *BELIEF)]
        context = TensorDictModule(module.to(self.device), keys, [(group, policies.CONTEXT)])
        own = critics.own_input(self, group, (group, "agent_input"))
        net = policies.network(
            self,
            group,
            "logits",
            (2 if continuous else 1) * policies.action_width(self, group),
            context=context,
        )
        return policies.stochastic(
            self,
            group,
            scale_mapping=config.scale_mapping,
            squash=config.use_tanh_normal,
            output_gain=config.actor_gain,
            net=TensorDictSequential(own, net),
        )

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        """Makes the belief first."""
        return ProbabilisticTensorDictSequential(self.encoder(group), *policy_for_loss)

    def others(self, group: str) -> Tensor:
        """Who is another agent to those of ``group``, bool ``[n_agents, n_all]``."""
        names = list(self.group_map)
        first = sum(self.n_agents(name) for name in names[: names.index(group)])
        own = torch.arange(first, first + self.n_agents(group), device=self.device)
        return own.unsqueeze(-1) != torch.arange(self.n_all, device=self.device)

    def state_value(self, group: str) -> Any:
        """Each agent's own critic in the paper's spirit; a central one is a setting."""
        return critics.state_value(
            self,
            group,
            scope=self.config.critic_scope,
            share_params=self.config.share_param_critic,
        )

    def build_loss(self, group: str, policy_for_loss: Any, **options: Any) -> BeliefPPOLoss:
        """MAPPO's losses and the belief's."""
        critic = self.state_value(group)
        widths = torch.tensor(self.widths())
        available = torch.arange(int(widths.max())) < widths.unsqueeze(-1)
        return BeliefPPOLoss(
            policy_for_loss,
            critic,
            self.encoder(group),
            self.decoder(group),
            available=available.to(self.device),
            beta=self.config.belief_beta,
            value_norm=value_norm(self, group, critic),
            critic_states=state_keys(critic),
            **options,
        )

    def _get_parameters(self, group: str, loss: BeliefPPOLoss) -> dict[str, Iterable[Any]]:
        belief = [*loss.encoder.parameters(), *loss.decoder.parameters()]
        return {**super()._get_parameters(group, loss), "loss_belief": belief}

    # --------------------------------------------------------------------- data
    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """What the others did and who saw it, from the latest entry of the next step's history."""
        joint = batch.get(("next", JOINT)).select(batch.ndim, -1)  # [n_envs, T, n_all, ...]
        rows = batch.get(group).batch_size
        expanded = joint.unsqueeze(batch.ndim).expand(*rows, *joint.shape[batch.ndim :])
        batch.set((group, "others_action"), expanded.contiguous())
        batch.set(
            (group, "others_seen"), batch.get(("next", group, SEEN)).select(batch.ndim + 1, -1)
        )
        batch = super().prepare_batch(group, batch)
        after = [("next", JOINT), ("next", group, SEEN), ("next", group, OBSERVATION)]
        return batch.exclude(*after, (group, policies.CONTEXT), (group, "agent_input"))


@dataclass
class BeliefPpoConfig(PpoConfig):
    """Hyperparameters of Belief-PPO."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = BeliefPpo

    critic_scope: str = "agent"
    """What the critic sees: its own agent, its group, or the state or all groups (environment)."""
    history_length: int = 8
    """Steps of others' actions that a belief is made from, >= 1: H."""
    belief_dim: int = 8
    """Width of the latent of each other agent, >= 1."""
    belief_hidden_dim: int = 32
    """Width of the hidden layers of encoder and decoder, >= 1."""
    belief_beta: float = 0.01
    """Weight of the beliefs' divergence from the prior, >= 0: beta."""
    belief_pooling: str = "attention"
    """How the beliefs about all others become one input of the policy: attention, or mean."""
    visible_entry: str = ""
    """Entry of the observation [n_agents, all agents], true where one agent sees another; empty: all do."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("critic_scope", self.critic_scope, critics.SCOPES)
        check_choice("belief_pooling", self.belief_pooling, ("attention", "mean"))
        check_range("belief_beta", self.belief_beta, 0.0)
        for name in ("history_length", "belief_dim", "belief_hidden_dim"):
            check_range(name, getattr(self, name), 1)
