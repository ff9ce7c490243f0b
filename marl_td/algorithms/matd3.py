"""MATD3: MADDPG with two critics per agent, smoothed target actions and delayed actors.

Ackermann et al. 2019, "Reducing Overestimation Bias in Multi-Agent Domains Using Double Centralized Critics",
https://arxiv.org/abs/1910.01465. ``docs/algorithms/matd3.md`` says what differs from other code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.ddpg_family import CentralCriticConfig, CentralCritics
from marl_td.losses.matd3 import MATD3Loss


class Matd3(CentralCritics):
    """MATD3 on every group of agents, competing ones included; see :class:`Matd3Config`."""

    def loss(self, group: str, **options: Any) -> MATD3Loss:
        """The loss of ``group``, with two critics."""
        options["central"] = self.scope != "agent"
        both = self.action_value(group), self.action_value(group)
        return MATD3Loss(self.group_actor(group), *both, **options)


@dataclass
class Matd3Config(CentralCriticConfig):
    """Hyperparameters of MATD3."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Matd3

    target_noise: float = 0.2
    """Noise of the target actions, >= 0: its deviation as a share of half the action range (sigma)."""
    target_noise_clip: float = 0.5
    """Largest noise of the target actions, >= 0, likewise (c)."""
    policy_freq: int = 2
    """Actors and targets move at every so-manieth step of the critics, >= 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("target_noise", self.target_noise, 0.0)
        check_range("target_noise_clip", self.target_noise_clip, 0.0)
        check_range("policy_freq", self.policy_freq, 1)

    def loss_options(self) -> dict[str, Any]:
        """The fields that the loss takes, by its argument names."""
        names = ("target_noise", "target_noise_clip", "policy_freq")
        return {**super().loss_options(), **{name: getattr(self, name) for name in names}}
