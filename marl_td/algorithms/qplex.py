"""QPLEX: Q-learning on a duplex dueling mixture of the agents' values.

Wang et al. 2021, "QPLEX: Duplex Dueling Multi-Agent Q-Learning", https://arxiv.org/abs/2008.01062.
``docs/algorithms/qplex.md`` says what differs from the reference code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import QMixingFamily, StateMixingConfig
from marl_td.models.mixers import QplexMixer
from marl_td.models.team import Team


class Qplex(QMixingFamily):
    """QPLEX on one group of agents; see :class:`QplexConfig` for its settings."""


@dataclass
class QplexConfig(StateMixingConfig):
    """Hyperparameters of QPLEX."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Qplex

    n_kernels: int = 10
    """Networks that the importance lambda is summed over, >= 1: K."""
    kernel_layers: int = 3
    """Linear layers in each of them, >= 1."""
    hidden_dim: int = 64
    """Width of all hidden layers of the mixer, >= 1."""
    stop_gradient: bool = True
    """No gradient into the advantages beside lambda (reference code): agents learn from the sum alone."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("n_kernels", self.n_kernels, 1)
        check_range("kernel_layers", self.kernel_layers, 1)
        check_range("hidden_dim", self.hidden_dim, 1)

    def mixer(self, team: Team) -> QplexMixer:
        """The duplex dueling mixer."""
        return QplexMixer(
            team.n_agents,
            team.n_actions,
            team.d_state,
            n_kernels=self.n_kernels,
            kernel_layers=self.kernel_layers,
            d_hidden=self.hidden_dim,
            stop_gradient=self.stop_gradient,
            state_norm=self.state_norm,
            local_key=team.key("chosen_action_value"),
            best_key=team.key("greedy_action_value"),
            state_key=team.state_key,
            action_key=team.key("joint_action"),
        )
