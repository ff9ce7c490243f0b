"""Parameters of pong, and from which hit on nobody can reach every ball."""

from __future__ import annotations

import math
from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

MODES = ("versus", "coop")


@dataclass
class PongParams(FailureParams):
    """Parameters of pong. Lengths are in units of the court's side, times in steps."""

    max_steps: int = 1000
    """Time limit in steps, at least 1; reaching it truncates the episode, it never terminates it."""
    mode: str = "versus"
    """versus (a miss gives the other side a point, zero-sum) or coop (every hit counts for both sides)."""
    n_agents: int = 2
    """Players of both sides together, an even number: 2 is one against one, 4 two against two."""
    points: int = 1
    """The episode ends when a side has this many points (in coop: has missed as often), at least 1."""
    half_length: float = 0.1
    """Half the length of a paddle, in (0, 0.25]."""
    paddle_speed: float = 0.02
    """Farthest way of a paddle in a step, in (0, 0.5]."""
    serve_speed: float = 0.03
    """Way of the ball in a step after the serve, in (0, max_speed]."""
    speed_up: float = 1.05
    """Factor on the ball's speed at every hit, at least 1."""
    max_speed: float = 0.2
    """The ball gets no faster than this, in (0, 0.5]: it meets at most one goal line in a step."""
    max_angle: float = 45.0
    """Direction of a ball hit with the paddle's end, and steepest serve, in degrees, in (0, 80]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mode in MODES, f"mode must be one of {', '.join(MODES)}; got '{self.mode}'.")
        require(
            self.n_agents >= 2 and self.n_agents % 2 == 0,
            f"n_agents must be an even number of at least 2 (half on each side); got {self.n_agents}.",
        )
        require(self.points >= 1, f"points must be at least 1; got {self.points}.")
        highest = {"half_length": 0.25, "paddle_speed": 0.5, "max_speed": 0.5, "max_angle": 80.0}
        highest["serve_speed"] = self.max_speed
        for name, high in highest.items():
            value = getattr(self, name)
            require(0.0 < value <= high, f"{name} must be in (0, {high:g}]; got {value:g}.")
        require(self.speed_up >= 1.0, f"speed_up must be at least 1; got {self.speed_up:g}.")

    @property
    def n_side(self) -> int:
        """Players of one side."""
        return self.n_agents // 2

    @property
    def sharpest(self) -> float:
        """Largest angle of the ball's way to the horizontal, in radians."""
        return math.radians(self.max_angle)

    def speed_after(self, hits: int) -> float:
        """Way of the ball in a step after so many hits."""
        return min(self.serve_speed * self.speed_up**hits, self.max_speed)


def safe_hits(params: PongParams) -> int | None:
    """Hits after which a lone player in the middle may no longer reach every ball; None if it always does.

    A straight ball crosses the court in ``1 / speed`` steps, in which a paddle moves
    ``paddle_speed / speed``; its middle must come within ``half_length`` of a corner, which is 1/2 away.
    """
    slow = params.paddle_speed / (0.5 - params.half_length)
    fastest = params.max_speed if params.speed_up > 1.0 else params.serve_speed
    if fastest <= slow:
        return None
    hits = 0
    while params.speed_after(hits) <= slow:
        hits += 1
    return hits


def most_hits(params: PongParams) -> int:
    """No episode has more hits: those of a ball that flies straight from line to line, never missed."""
    hits, ahead = 0, 0.5
    for _ in range(params.max_steps):
        speed = params.speed_after(hits)
        ahead -= speed
        if ahead <= 1e-9:  # the rest of the step goes back, at the speed after the hit
            hits += 1
            ahead = 1.0 + ahead / speed * params.speed_after(hits)
    return hits
