"""Qatten: Q-learning on attention-weighted sums of the agents' values.

Yang et al. 2020, "Qatten: A General Framework for Cooperative Multiagent Reinforcement Learning",
https://arxiv.org/abs/2002.03939. ``docs/algorithms/qatten.md`` says what differs from the reference code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import QMixingFamily, StateMixingConfig
from marl_td.models.mixers import QattenMixer
from marl_td.models.team import Team


class Qatten(QMixingFamily):
    """Qatten on one group of agents; see :class:`QattenConfig` for its settings."""


@dataclass
class QattenConfig(StateMixingConfig):
    """Hyperparameters of Qatten."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Qatten

    n_heads: int = 4
    """Attention heads, >= 1: H."""
    attention_dim: int = 32
    """Width of queries and keys, and of the hidden layer of the constant c(s), >= 1."""
    hidden_dim: int = 64
    """Width of the hidden layers that make queries and head weights from the state, >= 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("n_heads", self.n_heads, 1)
        check_range("attention_dim", self.attention_dim, 1)
        check_range("hidden_dim", self.hidden_dim, 1)

    def mixer(self, team: Team) -> QattenMixer:
        """The attention over agents."""
        return QattenMixer(
            team.n_agents,
            team.d_state,
            team.d_agent,
            n_heads=self.n_heads,
            d_attention=self.attention_dim,
            d_hidden=self.hidden_dim,
            state_norm=self.state_norm,
            local_key=team.key("chosen_action_value"),
            state_key=team.state_key,
            agent_key=team.key("agent_input"),
            alive_key=team.alive_key,
        )
