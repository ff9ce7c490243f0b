"""VDN: Q-learning on the sum of the agents' values.

Sunehag et al. 2017, "Value-Decomposition Networks For Cooperative Multi-Agent Learning",
https://arxiv.org/abs/1706.05296. ``docs/algorithms/vdn.md`` says what differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.q_mixing_family import QMixingConfig, QMixingFamily
from marl_td.models.mixers import SumMixer
from marl_td.models.team import Team


class Vdn(QMixingFamily):
    """VDN on one group of agents; see :class:`VdnConfig` for its settings."""


@dataclass
class VdnConfig(QMixingConfig):
    """Hyperparameters of VDN."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Vdn
    CENTRAL_CRITIC: ClassVar[bool] = False

    def mixer(self, team: Team) -> SumMixer:
        """The sum."""
        return SumMixer(team.n_agents, local_key=team.key("chosen_action_value"))
