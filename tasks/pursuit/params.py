"""Parameters of the pursuit task."""

from __future__ import annotations

from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

MODES = ("relative_overgeneralisation",)


@dataclass
class PursuitParams(FailureParams):
    """Parameters of the pursuit; the defaults are those of Boehmer et al. (2020)."""

    max_steps: int = 200
    """Time limit in steps, at least 1; reaching it truncates the episode, it never terminates it."""
    mode: str = "relative_overgeneralisation"
    """Rules of the hunt: relative_overgeneralisation (two must catch together, alone it costs). The hunts
    for one prey (seed, fast_prey, obstacles) are task ``predator_prey``, with settings of their own."""
    grid_size: int = 10
    """Cells along a side of the board, at least 2."""
    n_agents: int = 8
    """Number of predators, at least 2."""
    n_prey: int = 8
    """Number of prey, at least 1; everybody needs a cell."""
    sight: int = 2
    """How far an agent sees in each direction, in cells, at least 1: 2 is a view of 5 x 5."""
    see_walls: bool = True
    """Whether views show walls (the paper's do not)."""
    capture_reward: float = 10.0
    """Team reward of a capture, at least 0."""
    penalty: float = 2.0
    """Cost of a prey caught at by one agent alone, at least 0; the paper's p is minus this."""
    prey_rest: float = 0.0
    """Probability that a prey does not move in a step, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.mode in MODES,
            f"mode must be one of {', '.join(MODES)}; got '{self.mode}'. "
            "Task 'predator_prey' has the modes seed, fast_prey and obstacles.",
        )
        for name, least in (("grid_size", 2), ("n_agents", 2), ("n_prey", 1), ("sight", 1)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be at least {least}; got {value}.")
        for name in ("capture_reward", "penalty"):
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
        require(
            0.0 <= self.prey_rest <= 1.0,
            f"prey_rest is a probability and must be in [0, 1]; got {self.prey_rest:g}.",
        )
        crowd, room = self.n_agents + self.n_prey, self.grid_size**2
        require(
            crowd <= room,
            f"{crowd} agents and prey do not fit on {room} cells; raise grid_size.",
        )
