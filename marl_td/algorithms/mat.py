"""MAT: a transformer over the agents as critic, and one that decides for agent after agent as actor.

Wen et al. 2022, "Multi-Agent Reinforcement Learning is a Sequence Modeling Problem",
https://arxiv.org/abs/2205.14953. The pages ``docs/algorithms/mat.md`` and ``mat_dec.md`` say what differs
from the authors' code.
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
from torch import nn
from torchrl.data import Composite

from marl_td import critics, policies
from marl_td.algorithms.base import MarlTdAlgorithm, MarlTdConfig, check_range
from marl_td.algorithms.ppo_family import PpoConfig, PpoFamily
from marl_td.algorithms.recurrent import Memory, state_keys
from marl_td.algorithms.value_norms import value_norm
from marl_td.losses.mat import MatLoss
from marl_td.models.autoregressive import ActionRows, AutoregressivePolicy, TeacherForcing
from marl_td.models.transformer import Decoder, Encoder, ValueHead

FEATURES = "features"
"""Entry of a group: what is known of each agent by itself."""
ENCODING = "encoding"
"""Entry of a group: each agent among all."""


class MatFamily(PpoFamily):
    """What MAT and MAT-Dec share: values from an encoder over the agents."""

    def encoder(self, group: str) -> TensorDictModule:
        """The encoder: features to representations, both ``[*B, n_agents, embed_dim]``."""
        config = self.config
        module = Encoder(config.embed_dim, config.n_blocks, config.n_heads).to(self.device)
        keys = [(group, FEATURES)] + ([(group, "mask")] if self.is_mortal(group) else [])
        return TensorDictModule(module, keys, [(group, ENCODING)])

    def value_head(self, group: str) -> TensorDictModule:
        """Representations to values, ``(group, "state_value")`` ``[*B, n_agents, 1]``."""
        n_groups = 1 if self.config.share_param_critic else self.n_agents(group)
        module = ValueHead(self.config.embed_dim, n_groups).to(self.device)
        return TensorDictModule(module, [(group, ENCODING)], [(group, "state_value")])

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """As the family does; what networks are told of the agents' indices is made anew."""
        return super().prepare_batch(group, batch).exclude((group, policies.CONTEXT))


class Mat(MatFamily):
    """MAT on one group of agents; see :class:`MatConfig` for its settings."""

    def __init__(self, experiment: Any, config: MarlTdConfig) -> None:
        self.forcings: dict[str, TeacherForcing] = {}
        super().__init__(experiment, config)
        self.has_rnn = self.model_config.is_rnn  # there is no other network

    def _get_policy_for_loss(
        self, group: str, model_config: Any, continuous: bool
    ) -> ProbabilisticTensorDictSequential:
        """Shared layers, decoder and head: scores actions that are known."""
        config, width = self.config, policies.action_width(self, group)
        space = self.action_spec[group, "action"].space
        bounds = (space.low, space.high) if continuous else ()
        rows = ActionRows(0 if continuous else width, *bounds)
        d_out = 2 * width if continuous else width
        decoder = Decoder(width, d_out, config.embed_dim, config.n_blocks, config.n_heads)
        forcing = TeacherForcing(decoder, rows).to(self.device)
        self.forcings[group] = forcing
        mortal = [(group, "mask")] if self.is_mortal(group) else []
        keys = [(group, ENCODING), (group, "action"), *mortal]
        actor = policies.stochastic(
            self,
            group,
            scale_mapping=config.scale_mapping,
            squash=config.use_tanh_normal,
            output_gain=config.actor_gain,
            net=TensorDictModule(forcing, keys, [(group, "logits")]),
        )
        features = policies.network(self, group, FEATURES, config.embed_dim)
        trunk = TensorDictSequential(features, self.encoder(group))
        return ProbabilisticTensorDictSequential(trunk, *actor)

    def _get_policy_for_collection(
        self, policy_for_loss: Any, group: str, continuous: bool
    ) -> AutoregressivePolicy:
        trunk, *actor = policy_for_loss
        return AutoregressivePolicy(
            trunk,
            self.forcings[group],
            ProbabilisticTensorDictSequential(*actor),
            n_agents=self.n_agents(group),
            group=group,
            masked=self.is_masked(group),
            mortal=self.is_mortal(group),
        )

    def build_loss(self, group: str, policy_for_loss: Any, **options: Any) -> MatLoss:
        """One loss of the policy and the values."""
        trunk, *actor = policy_for_loss
        critic = self.value_head(group)
        return MatLoss(
            trunk,
            ProbabilisticTensorDictSequential(*actor),
            critic,
            value_norm=value_norm(self, group, critic),
            critic_states=state_keys(trunk),
            **options,
        )

    def memory(self, loss: MatLoss) -> Memory:
        """The hidden states of what observations go through are the policy's: they are in the data."""
        return Memory([])

    def _get_parameters(self, group: str, loss: MatLoss) -> dict[str, Iterable[Any]]:
        return {"loss_objective": list(loss.parameters())}


class MatDec(MatFamily):
    """MAT-Dec on one group of agents; see :class:`MatDecConfig` for its settings."""

    def state_value(self, group: str) -> TensorDictSequential:
        """The encoder over what the critic's model makes of each agent's observation."""
        leaves = self.observation_spec[group].clone()
        features = critics.critic_network(
            self,
            group,
            Composite({group: leaves}),
            FEATURES,
            d_out=self.config.embed_dim,
            centralised=False,
            input_has_agent_dim=True,
            share_params=self.config.share_param_critic,
        )
        parts: list[nn.Module] = [features, self.encoder(group), self.value_head(group)]
        return TensorDictSequential(*parts)


@dataclass
class MatDecConfig(PpoConfig):
    """Hyperparameters of MAT-Dec: MAT's transformer as critic, and actors that decide alone."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = MatDec

    embed_dim: int = 64
    """Width of a token, >= 1, a multiple of n_heads."""
    n_blocks: int = 1
    """Number of blocks of encoder and decoder, >= 1."""
    n_heads: int = 1
    """Number of heads of each attention, >= 1."""
    agent_id: bool = False
    """The policy's network also reads the agent's index in its group (one-hot)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("embed_dim", "n_blocks", "n_heads"):
            check_range(name, getattr(self, name), 1)
        if self.embed_dim % self.n_heads:
            raise ValueError(
                f"embed_dim must be a multiple of n_heads; got {self.embed_dim} and {self.n_heads}."
            )


@dataclass
class MatConfig(MatDecConfig):
    """Hyperparameters of MAT."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Mat
