"""What every task offers to be tried for robustness: agents that have failed, messages that were lost.

Both are off by default; they are meant for evaluation (train without, evaluate with 10 % dead) as much as
for training. The draws are part of a task's noise, so that they can be injected like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from marl_td.tasks.base import TaskParams, require
from marl_td.tasks.order import ranks


@dataclass
class DeadAgentsParams(TaskParams):
    """Parameters of a task whose agents can fail."""

    dead_agents: float = 0.0
    """Share of the agents that are dead for a whole episode, in [0, 1); drawn anew at each reset."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0.0 <= self.dead_agents < 1.0,
            f"dead_agents is a share of the agents and must be in [0, 1); got {self.dead_agents:g}.",
        )


@dataclass
class FailureParams(DeadAgentsParams):
    """Parameters of a task whose agents can fail and see each other through messages."""

    message_dropout: float = 0.0
    """Probability that what an agent sees of another one is missing in a step, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0.0 <= self.message_dropout <= 1.0,
            f"message_dropout is a probability and must be in [0, 1]; got {self.message_dropout:g}.",
        )


def dead_count(share: float, n_agents: int) -> int:
    """How many of ``n_agents`` are dead at a share in [0, 1): rounded, and one always lives."""
    return min(round(share * n_agents), n_agents - 1)


def alive_agents(draw: Tensor, n_dead: int) -> Tensor:
    """Which agents live: all but ``n_dead`` drawn without replacement.

    Args:
        draw: uniform numbers ``[n_envs, n_agents]``, independent.
        n_dead: number of dead agents per environment, below ``n_agents``.

    Returns:
        bool ``[n_envs, n_agents]``.
    """
    return ranks(draw) >= n_dead
