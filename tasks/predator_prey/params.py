"""Parameters of the predator-prey task."""

from __future__ import annotations

from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

MODES = ("seed", "fast_prey", "obstacles")
PREYS = ("random", "nearest", "total", "learned")


@dataclass
class PredatorPreyParams(FailureParams):
    """Parameters of the hunt for one prey."""

    mode: str = "seed"
    """Rules: seed (an open board), fast_prey (the prey moves twice a step), obstacles (closed cells)."""
    grid_size: int = 10
    """Cells along a side of the board, at least 2."""
    n_agents: int = 3
    """Number of predators, at least 1; all that live have to be near the prey at once."""
    prey: str = "nearest"
    """Who moves the prey: random, nearest or total (it flees as far as it can from the nearest predator, or
    from all together), or learned (a group of its own)."""
    capture_distance: float = 1.5
    """Euclidean distance within which every predator has to be, in cells, at least 0; 1.5: a king's move."""
    capture_reward: float = 10.0
    """Reward of every predator for the capture, and cost of it for a learned prey, at least 0."""
    step_cost: float = 0.01
    """Cost of a step for every predator, at least 0."""
    survival_reward: float = 1.0
    """Reward of a learned prey for a step that it survives, at least 0."""
    zero_sum: bool = False
    """Whether a learned prey gets minus the mean of the predators' rewards instead."""
    obstacle_share: float = 0.15
    """Share of closed cells in mode obstacles, in [0, 0.5]; the open ones always hang together."""
    obstacle_seed: int = 0
    """Which map of mode obstacles, at least 0."""
    sight: int | None = None
    """How far everybody sees along each axis, in cells, at least 1; None sees the whole board."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.mode in MODES,
            f"mode must be one of {', '.join(MODES)}; got '{self.mode}'. "
            "Task 'pursuit' is the mode relative_overgeneralisation.",
        )
        require(self.prey in PREYS, f"prey must be one of {', '.join(PREYS)}; got '{self.prey}'.")
        for name, least in (("grid_size", 2), ("n_agents", 1), ("obstacle_seed", 0)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be at least {least}; got {value}.")
        costs = ("capture_distance", "capture_reward", "step_cost", "survival_reward")
        for name in costs:
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
        require(
            0.0 <= self.obstacle_share <= 0.5,
            f"obstacle_share must be in [0, 0.5]; got {self.obstacle_share:g}.",
        )
        require(
            self.sight is None or self.sight >= 1, f"sight must be at least 1; got {self.sight}."
        )
        room = self.grid_size**2
        if self.mode == "obstacles":
            room -= round(self.obstacle_share * room)
        require(
            self.n_agents < room,
            f"{self.n_agents} predators and a prey do not fit on {room} open cells; raise grid_size.",
        )
