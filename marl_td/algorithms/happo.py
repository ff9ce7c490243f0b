"""HAPPO: PPO for one agent after the other, without parameter sharing.

Kuba et al. 2022, "Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning",
https://arxiv.org/abs/2109.11251. The page ``docs/algorithms/happo.md`` says what differs from the reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.ppo_family import PpoConfig
from marl_td.algorithms.sequential_family import SequentialConfig, SequentialFamily
from marl_td.losses.advantage import AdvantageLoss
from marl_td.losses.happo import HAPPOLoss


class Happo(SequentialFamily):
    """HAPPO on one group of agents; see :class:`HappoConfig` for its settings."""

    LOSS: ClassVar[type[AdvantageLoss]] = HAPPOLoss

    def _get_parameters(self, group: str, loss: Any) -> dict[str, Iterable[Any]]:
        return {**super()._get_parameters(group, loss), "loss_objective": loss.agent_parameters()}


@dataclass
class HappoConfig(SequentialConfig, PpoConfig):
    """Hyperparameters of HAPPO."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Happo
