"""QMIX: Q-learning on a monotone mixture of the agents' values.

Rashid et al. 2018, "QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement
Learning", https://arxiv.org/abs/1803.11485. ``docs/algorithms/qmix.md`` says what differs from the
reference code (PyMARL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict.nn import TensorDictSequential

from marl_td import critics
from marl_td.algorithms.base import MarlTdAlgorithm, check_choice, check_range
from marl_td.algorithms.q_mixing_family import QMixingConfig, QMixingFamily
from marl_td.models.mixers import STATE_NORMS, QMixer


class Qmix(QMixingFamily):
    """QMIX on one group of agents; see :class:`QmixConfig` for its settings."""

    config: Any

    def mixer(self, group: str) -> TensorDictSequential:
        """The monotone mixing network, given the global state or the joint observation."""
        scope = self.config.critic_scope
        network = QMixer(
            self.n_agents(group),
            critics.joint_observation_size(self, group, scope),
            local_key=(group, "chosen_action_value"),
            state_key="mixer_state",
            **self.config.mixer_options(),
        )
        return TensorDictSequential(critics.joint_input(self, group, scope, "mixer_state"), network)


@dataclass
class QmixConfig(QMixingConfig):
    """Hyperparameters of QMIX."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Qmix

    mixing_embed_dim: int = 32
    """Units of the mixing network, >= 1: E."""
    hypernet_layers: int = 2
    """Layers of the hypernetworks that make the mixing weights: 2 (PyMARL), or 1 (the first release)."""
    hypernet_embed: int = 64
    """Width of their hidden layer (with 2 layers), >= 1."""
    state_norm: str = "none"
    """Standardise each state over its entries before the hypernetworks (layer), or not (none)."""
    critic_scope: str = "environment"
    """What the mixer sees without a global state: the observations of all groups, or of its group."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("mixing_embed_dim", self.mixing_embed_dim, 1)
        check_range("hypernet_layers", self.hypernet_layers, 1, 2)
        check_range("hypernet_embed", self.hypernet_embed, 1)
        check_choice("state_norm", self.state_norm, STATE_NORMS)
        check_choice("critic_scope", self.critic_scope, ("environment", "group"))

    def mixer_options(self) -> dict[str, Any]:
        """The fields that :class:`marl_td.models.mixers.QMixer` takes, by its argument names."""
        return {
            "d_embed": self.mixing_embed_dim,
            "hypernet_layers": self.hypernet_layers,
            "d_hypernet": self.hypernet_embed,
            "state_norm": self.state_norm,
        }
