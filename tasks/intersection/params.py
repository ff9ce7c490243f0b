"""Parameters of the intersection."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

GROUP = "agents"
TURNS = ("right", "straight", "left")
N_APPROACHES = 4
N_MOVEMENTS = N_APPROACHES * len(TURNS)
"""Movement ``3 * approach + turn``; approaches run clockwise from the south."""
MAX_AGENTS = 64


@dataclass
class IntersectionParams(FailureParams):
    """Parameters of the intersection; lengths in m, times in s."""

    max_steps: int = 300
    """Time limit in steps, at least 1; reaching it truncates the episode. 300 steps are 60 s."""
    n_agents: int = 12
    """Vehicles that come in an episode, 1 to 64."""
    arrival_rate: float = 0.6
    """Vehicles per second over all approaches (Poisson), above 0."""
    turn_shares: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.25])
    """Probability to turn right, go straight, turn left; adds up to 1."""
    shield: bool = True
    """Whether actions are overridden by braking wherever a collision could follow."""
    dt: float = 0.2
    """Length of a step in s, above 0."""
    max_speed: float = 12.0
    """Speed limit in m/s, above 0; vehicles arrive at it."""
    acceleration: float = 2.0
    """Largest acceleration in m/s2, above 0."""
    braking: float = 3.0
    """Largest deceleration in m/s2, above 0."""
    approach: float = 60.0
    """Distance from where vehicles appear to the stop line in m; at least the braking distance."""
    n_seen: int = 8
    """How many conflicting vehicles an agent sees, those nearest to the junction, at least 1."""
    messages: bool = False
    """Whether an action has a second part, request or yield, that does nothing but to be seen by others."""
    jerk_weight: float = 0.01
    """Cost per m/s2 by which a vehicle's acceleration changes in a step, at least 0."""
    collision_penalty: float = 10.0
    """Cost of a collision, beside the time that the junction is blocked, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.n_agents <= MAX_AGENTS,
            f"n_agents must be in 1 to {MAX_AGENTS}; got {self.n_agents}.",
        )
        require(self.n_seen >= 1, f"n_seen must be at least 1; got {self.n_seen}.")
        for name in ("arrival_rate", "dt", "max_speed", "acceleration", "braking"):
            value = getattr(self, name)
            require(value > 0.0, f"{name} must be above 0; got {value:g}.")
        for name in ("jerk_weight", "collision_penalty"):
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
        shares = list(self.turn_shares)
        require(
            len(shares) == len(TURNS) and min(shares) >= 0.0 and math.isclose(sum(shares), 1.0),
            f"turn_shares must be three probabilities that add up to 1; got {shares}.",
        )
        least = braking_distance(self, self.max_speed) + 1.0
        require(
            self.approach >= least,
            f"approach must be at least {least:.1f} m, so that a vehicle that comes at "
            f"{self.max_speed:g} m/s can stop before the line; got {self.approach:g}.",
        )


def braking_distance(params: IntersectionParams, speed: float) -> float:
    """How far a vehicle goes until it stands, braking fully in every step, in m."""
    drop = params.braking * params.dt
    n = math.floor(speed / drop)
    return params.dt * (n * speed - drop * n * n / 2 + (speed - n * drop) / 2)
