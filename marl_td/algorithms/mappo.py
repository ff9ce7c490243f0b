"""MAPPO: PPO actors with a central critic.

Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games",
https://arxiv.org/abs/2103.01955. The page ``docs/algorithms/mappo.md`` says what differs from the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.ppo_family import CentralValueConfig, PpoConfig, PpoFamily


class Mappo(PpoFamily):
    """MAPPO on one group of agents; see :class:`MappoConfig` for its settings."""


@dataclass
class MappoConfig(CentralValueConfig, PpoConfig):
    """Hyperparameters of MAPPO."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Mappo
