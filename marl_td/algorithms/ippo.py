"""IPPO: every agent is a PPO learner of its own.

de Witt et al. 2020, "Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?",
https://arxiv.org/abs/2011.09533. The page is ``docs/algorithms/ippo.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td import critics
from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.ppo_family import PpoConfig, PpoFamily
from marl_td.losses.advantage import AdvantageLoss
from marl_td.losses.ppo import IPPOLoss


class Ippo(PpoFamily):
    """IPPO on one group of agents; see :class:`IppoConfig` for its settings."""

    LOSS: ClassVar[type[AdvantageLoss]] = IPPOLoss

    def state_value(self, group: str) -> Any:
        """Critic of each agent's own observation."""
        shared = self.config.share_param_critic
        return critics.state_value(self, group, scope="agent", share_params=shared)


@dataclass
class IppoConfig(PpoConfig):
    """Hyperparameters of IPPO."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Ippo
    CENTRAL_CRITIC: ClassVar[bool] = False
