"""Parameters of the warehouse."""

from __future__ import annotations

from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

REWARDS = ("own", "team")


@dataclass
class WarehouseParams(FailureParams):
    """Parameters of the warehouse."""

    max_steps: int = 512
    """Time limit in steps, at least 1; reaching it truncates the episode, nothing terminates it."""
    n_agents: int = 20
    """Number of robots, at least 1."""
    density: float = 0.1
    """Robots per cell of floor at most, in (0, 0.5]: the warehouse is as large as that takes."""
    shelf_length: int = 5
    """Shelves side by side in a block, at least 1; a block is two deep."""
    layout: str = ""
    """A warehouse of your own instead: rows of '.' (floor), '#' (shelf), 'P' (floor where orders are picked)
    and 'D' (floor where they are delivered), spaces between."""
    sight: int = 3
    """How far a robot sees in each direction, in cells, at least 1: 3 is a view of 7 x 7."""
    reward: str = "own"
    """Who is rewarded for a delivery: own (the robot) or team (all, with the mean over robots)."""
    blocked_cost: float = 0.02
    """Cost of a move that fails, at least 0."""
    shaping: float = 0.0
    """Reward per step closer to the goal, at least 0; potential-based with ``discount``."""
    discount: float = 0.99
    """The learner's discount factor, for the shaping only, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_agents", "shelf_length", "sight"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1; got {value}.")
        turns = self.n_agents * self.max_steps
        require(
            turns < 2**28,
            f"n_agents * max_steps must be below 2**28, who goes first is counted in it; got {turns}.",
        )
        require(0.0 < self.density <= 0.5, f"density must be in (0, 0.5]; got {self.density:g}.")
        known = ", ".join(REWARDS)
        require(self.reward in REWARDS, f"reward must be one of {known}; got '{self.reward}'.")
        for name in ("blocked_cost", "shaping"):
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
        require(0.0 <= self.discount <= 1.0, f"discount must be in [0, 1]; got {self.discount:g}.")
