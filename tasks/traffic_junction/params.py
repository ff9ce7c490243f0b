"""Parameters of the traffic junction."""

from __future__ import annotations

from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams
from marl_td.tasks.traffic_junction.maps import LAYOUTS, check_size


@dataclass
class TrafficJunctionParams(FailureParams):
    """Parameters of the traffic junction; the defaults are the published medium difficulty."""

    max_steps: int = 40
    """Time limit in steps, at least 1; episodes end only there, by truncation."""
    layout: str = "medium"
    """Map: easy (two one-way roads cross), medium (two two-way roads), hard (four two-way roads)."""
    size: int = 14
    """Cells along a side: at least 3 (easy), even and at least 4 (medium), 3 n and at least 9 (hard)."""
    n_agents: int = 10
    """Cars on the road at the same time, at most; at least 1."""
    p_arrive: float = 0.2
    """Probability that a car arrives at an entry in a step, in [0, 1]."""
    vision: int = 1
    """How far a car sees in each direction, in cells, at least 0: 0 is its own cell, 1 a view of 3 x 3."""
    collision_penalty: float = 10.0
    """Cost of standing on one cell with another car, per car and step, at least 0."""
    time_penalty: float = 0.01
    """Cost per step and per step since the car entered, at least 0."""
    safe_entry: bool = False
    """Whether no car enters onto an occupied cell. As published it does, and collides."""
    team_reward: bool = False
    """Whether every agent gets the mean of all agents' rewards instead of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.layout in LAYOUTS,
            f"layout must be one of {', '.join(LAYOUTS)}; got '{self.layout}'.",
        )
        check_size(self.layout, self.size)
        require(self.n_agents >= 1, f"n_agents must be at least 1; got {self.n_agents}.")
        require(self.vision >= 0, f"vision must be at least 0; got {self.vision}.")
        require(
            0.0 <= self.p_arrive <= 1.0,
            f"p_arrive is a probability and must be in [0, 1]; got {self.p_arrive:g}.",
        )
        for name in ("collision_penalty", "time_penalty"):
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
