"""IDDPG: every agent is a DDPG learner of its own, with a critic of its own observation and action.

Lillicrap et al. 2016, "Continuous control with deep reinforcement learning",
https://arxiv.org/abs/1509.02971, for every agent by itself. ``docs/algorithms/iddpg.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.ddpg_family import AgentValueConfig, DdpgFamily


class Iddpg(DdpgFamily):
    """Independent DDPG on every group of agents; see :class:`IddpgConfig`."""

    @property
    def scope(self) -> str:
        """A critic sees its own agent."""
        return "agent"


@dataclass
class IddpgConfig(AgentValueConfig):
    """Hyperparameters of IDDPG."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Iddpg
    CENTRAL_CRITIC: ClassVar[bool] = False
