"""QMIX: Q-learning on a monotone mixture of the agents' values.

Rashid et al. 2018, "QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement
Learning", https://arxiv.org/abs/1803.11485. ``docs/algorithms/qmix.md`` says what differs from the
reference code (PyMARL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import QMixingFamily, StateMixingConfig
from marl_td.models.mixers import QMixer
from marl_td.models.team import Team


class Qmix(QMixingFamily):
    """QMIX on one group of agents; see :class:`QmixConfig` for its settings."""


@dataclass
class MonotonicConfig(StateMixingConfig):
    """Hyperparameters of those with QMIX's mixing network."""

    mixing_embed_dim: int = 32
    """Units of the mixing network, >= 1: E."""
    hypernet_layers: int = 2
    """Layers of the hypernetworks that make the mixing weights: 2 (PyMARL), or 1 (the first release)."""
    hypernet_embed: int = 64
    """Width of their hidden layer (with 2 layers), >= 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("mixing_embed_dim", self.mixing_embed_dim, 1)
        check_range("hypernet_layers", self.hypernet_layers, 1, 2)
        check_range("hypernet_embed", self.hypernet_embed, 1)

    def mixer(self, team: Team) -> QMixer:
        """The monotone mixing network."""
        return QMixer(
            team.n_agents,
            team.d_state,
            d_embed=self.mixing_embed_dim,
            hypernet_layers=self.hypernet_layers,
            d_hypernet=self.hypernet_embed,
            state_norm=self.state_norm,
            local_key=team.key("chosen_action_value"),
            state_key=team.state_key,
        )


@dataclass
class QmixConfig(MonotonicConfig):
    """Hyperparameters of QMIX."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Qmix
