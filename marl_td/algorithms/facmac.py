"""FACMAC: deterministic actors of a team that together climb one value, mixed from the agents' values.

Peng et al. 2021, "FACMAC: Factored Multi-Agent Centralised Policy Gradients",
https://arxiv.org/abs/2003.06709. ``docs/algorithms/facmac.md`` says what differs from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential

from marl_td import critics, signals
from marl_td.algorithms.base import MarlTdAlgorithm, check_choice, check_range
from marl_td.algorithms.ddpg_family import DdpgConfig, DdpgFamily
from marl_td.losses.facmac import FACMACLoss
from marl_td.models.mixers import STATE_NORMS, CentralMixer, Mixer, QMixer, SumMixer

MIXERS = ("qmix", "free", "sum")


class Facmac(DdpgFamily):
    """FACMAC on every group of agents, each a team of its own; see :class:`FacmacConfig`."""

    @property
    def scope(self) -> str:
        """A critic sees its own agent; the mixer sees the state."""
        return "agent"

    def idle_settings(self) -> dict[str, str]:
        """Those of other mixers, too."""
        idle, kind = super().idle_settings(), self.config.mixer_type
        names = [] if kind == "qmix" else ["hypernet_layers", "hypernet_embed"]
        names += ["mixing_embed_dim", "state_norm"] if kind == "sum" else []
        idle.update(dict.fromkeys(names, f"mixer_type is {kind}"))
        return idle

    def loss(self, group: str, **options: Any) -> FACMACLoss:
        """The loss of ``group``, with the critics' mixer."""
        mixer = self.mixer(group).to(self.device)
        return FACMACLoss(self.group_actor(group), self.action_value(group), mixer, **options)

    def mixer(self, group: str) -> TensorDictModuleBase:
        """The mixer, behind the global state (or the joint observation) if it reads that."""
        scope, config = self.config.critic_scope, self.config
        mixer = config.mixer(
            self.n_agents(group), critics.joint_observation_size(self, group, scope), group
        )
        if "mixer_state" not in mixer.in_keys:
            return mixer
        state = critics.joint_input(self, group, scope, "mixer_state")
        return TensorDictSequential(state, mixer)

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Reward and ends of the team, without what the loss computes anew."""
        signals.team_signals(batch, group, self.config.team_reward)
        return batch.exclude((group, "logits"), (group, "parameter"))


@dataclass
class FacmacConfig(DdpgConfig):
    """Hyperparameters of FACMAC."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Facmac

    mixer_type: str = "qmix"
    """How values are mixed: qmix (monotone), free (no restriction, FACMAC-nonmonotonic), or sum (VDN)."""
    mixing_embed_dim: int = 64
    """Units of the mixing network (free: of its hidden layers), >= 1."""
    hypernet_layers: int = 2
    """Layers of the hypernetworks of the mixer qmix: 1 or 2."""
    hypernet_embed: int = 64
    """Width of their hidden layer (with 2 layers), >= 1."""
    state_norm: str = "none"
    """Standardise each state over its entries before the mixer's networks (layer), or not (none)."""
    critic_scope: str = "environment"
    """What the mixer sees without a global state: the observations of all groups, or of its group."""
    team_reward: str = "mean"
    """The team's reward: mean or sum of the agents' rewards, where agents have their own."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("mixer_type", self.mixer_type, MIXERS)
        check_range("mixing_embed_dim", self.mixing_embed_dim, 1)
        check_range("hypernet_layers", self.hypernet_layers, 1, 2)
        check_range("hypernet_embed", self.hypernet_embed, 1)
        check_choice("state_norm", self.state_norm, STATE_NORMS)
        check_choice("critic_scope", self.critic_scope, critics.TEAM_SCOPES)
        check_choice("team_reward", self.team_reward, signals.TEAM_REWARDS)

    def mixer(self, n_agents: int, d_state: int, group: str) -> Mixer:
        """The mixer of a team."""
        local_key = (group, "chosen_action_value")
        if self.mixer_type == "sum":
            return SumMixer(n_agents, local_key=local_key)
        keys = {"local_key": local_key, "state_key": "mixer_state"}
        if self.mixer_type == "free":
            return CentralMixer(
                n_agents,
                d_state,
                d_hidden=self.mixing_embed_dim,
                n_hidden=2,
                state_norm=self.state_norm,
                **keys,
            )
        return QMixer(
            n_agents,
            d_state,
            d_embed=self.mixing_embed_dim,
            hypernet_layers=self.hypernet_layers,
            d_hypernet=self.hypernet_embed,
            state_norm=self.state_norm,
            **keys,
        )
