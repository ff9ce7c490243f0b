"""IQL: independent deep Q-learning, every agent on its own reward.

Tan 1993, "Multi-Agent Reinforcement Learning: Independent vs. Cooperative Agents"; with deep networks Tampuu
et al. 2017, https://arxiv.org/abs/1511.08779. ``docs/algorithms/iql.md`` says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from marl_td import signals
from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.q_family import QConfig, QFamily
from marl_td.losses.independent_q import IndependentQLoss


class Iql(QFamily):
    """Independent Q-learning on one group of agents; see :class:`IqlConfig` for its settings."""

    def loss(self, group: str, network: TensorDictModuleBase, **options: Any) -> IndependentQLoss:
        """The loss of ``group``."""
        return IndependentQLoss(network, **options)

    def add_signals(self, group: str, batch: TensorDictBase) -> None:
        """Each agent's own reward, done and terminated; the team's where it has none."""
        signals.agent_signals(batch, group)


@dataclass
class IqlConfig(QConfig):
    """Hyperparameters of independent Q-learning."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Iql
    CENTRAL_CRITIC: ClassVar[bool] = False
