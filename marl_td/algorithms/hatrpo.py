"""HATRPO: a trust-region step for one agent after the other, without parameter sharing.

Kuba et al. 2022, "Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning",
https://arxiv.org/abs/2109.11251. The page ``docs/algorithms/hatrpo.md`` says what differs from the reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.sequential_family import SequentialConfig, SequentialFamily
from marl_td.losses.advantage import AdvantageLoss
from marl_td.losses.hatrpo import HATRPOLoss


class Hatrpo(SequentialFamily):
    """HATRPO on one group of agents; see :class:`HatrpoConfig` for its settings.

    Only the critic has an optimiser: the loss changes the policies itself.
    """

    LOSS: ClassVar[type[AdvantageLoss]] = HATRPOLoss

    def loss_options(self, group: str) -> dict[str, Any]:
        """An agent's policy takes one step for each minibatch of the batch."""
        return {**super().loss_options(group), "steps_per_turn": self.n_minibatches}

    def _get_parameters(self, group: str, loss: Any) -> dict[str, Iterable[Any]]:
        return {"loss_critic": super()._get_parameters(group, loss)["loss_critic"]}


@dataclass
class HatrpoConfig(SequentialConfig):
    """Hyperparameters of HATRPO."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Hatrpo

    kl_threshold: float = 0.01
    """Largest mean divergence of one step, > 0, in nats: delta."""
    cg_iterations: int = 10
    """Iterations of conjugate gradients for the natural gradient, at least 1."""
    cg_damping: float = 0.1
    """Added to the diagonal of Fisher's matrix, >= 0."""
    line_search_steps: int = 10
    """Step lengths that are tried, at least 1; after that the policy stays."""
    backtrack: float = 0.8
    """Factor from one step length to the next, in (0, 1)."""
    accept_ratio: float = 0.5
    """Least share of the improvement that the gradient promises, in [0, 1]."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus in a step's objective, >= 0; 0 is the paper."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("kl_threshold", self.kl_threshold, 1e-9)
        check_range("backtrack", self.backtrack, 1e-3, 0.999)
        check_range("accept_ratio", self.accept_ratio, 0.0, 1.0)
        check_range("cg_damping", self.cg_damping, 0.0)
        check_range("cg_iterations", self.cg_iterations, 1)
        check_range("line_search_steps", self.line_search_steps, 1)
        check_range("entropy_coef", self.entropy_coef, 0.0)

    def loss_options(self) -> dict[str, Any]:
        """The trust region's."""
        return {
            "kl_threshold": self.kl_threshold,
            "cg_iterations": self.cg_iterations,
            "cg_damping": self.cg_damping,
            "line_search_steps": self.line_search_steps,
            "backtrack": self.backtrack,
            "accept_ratio": self.accept_ratio,
            "entropy_coeff": self.entropy_coef,
        }
