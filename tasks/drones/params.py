"""Parameters of the drones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

BLOCKS = 10
"""Blocks along each axis of the maps in the global state."""
VIEW = 8
"""Blocks along each axis of a drone's view of ages."""


class Aim(NamedTuple):
    """What counts in a mode: the weights of age, observed targets and covered area in the reward."""

    age: float
    observed: float
    covered: float
    score: str
    """The raw quantity that the score is the mean of."""
    unit: str


MODES = {
    "monitoring": Aim(1.0, 0.0, 0.0, "age", "s"),
    "observation": Aim(0.0, 1.0, 0.0, "observed", "% of targets"),
    "coverage": Aim(0.0, 0.0, 1.0, "covered", "% of the area"),
    "patrol": Aim(1.0, 1.0, 0.0, "age", "s"),
}


@dataclass
class DronesParams(FailureParams):
    """Parameters of the drones, in metres and seconds."""

    max_steps: int = 400
    """Time limit in steps, at least 1; reaching it truncates the episode, it never terminates it."""
    mode: str = "monitoring"
    """monitoring (keep ages low), observation (keep targets in sight), coverage (see much at once), or
    patrol (the first two)."""
    n_agents: int = 10
    """Number of drones, at least 1."""
    n_targets: int = 0
    """Number of moving targets, at least 0 (1 for observation and patrol)."""
    side: float = 100.0
    """Side of the square area in m, above 0."""
    n_cells: int = 50
    """Cells along a side whose age is kept, a multiple of 10."""
    sensing_radius: float = 5.0
    """A drone sees cells (their middles) up to this far from it in m; from a cell's side to the area's."""
    comm_radius: float = 15.0
    """A drone knows of other drones up to this far in m, in (0, side]."""
    max_speed: float = 5.0
    """In m/s, above 0."""
    max_acceleration: float = 5.0
    """In m/s^2, above 0."""
    drag: float = 0.5
    """Speed lost per second as a share of it, in [0, 1 / step_time]."""
    step_time: float = 0.5
    """Length of a step in s, above 0."""
    target_speed: float = 2.0
    """Speed of targets in m/s, at least 0; each goes straight to a random point, then to another."""
    collision_distance: float = 1.0
    """Drones nearer than this to another one collide, in m, in (0, side]."""
    collision_penalty: float = 1.0
    """Cost of the share of drones that collide in a step, at least 0."""
    own_reward: bool = False
    """Pay each drone for the age that it clears, instead of all for the mean age (monitoring, patrol)."""
    n_seen: int = 4
    """Nearest drones, and nearest targets, in an observation, at least 1."""
    pool: int = 3
    """Cells along a side of each of the 8 x 8 blocks whose mean age a drone sees, at least 1."""
    crowd: int = 32
    """Of more drones in a strip of 3 x 1 squares of comm_radius, as many are looked at; at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mode in MODES, f"mode must be one of {', '.join(MODES)}; got '{self.mode}'.")
        needs_targets = MODES[self.mode].observed > 0.0
        least = {"n_agents": 1, "n_targets": int(needs_targets), "n_seen": 1, "pool": 1, "crowd": 1}
        for name, low in least.items():
            value = getattr(self, name)
            where = f" in mode '{self.mode}'" if name == "n_targets" else ""
            require(value >= low, f"{name} must be at least {low}{where}; got {value}.")
        require(
            self.n_cells >= BLOCKS and self.n_cells % BLOCKS == 0,
            f"n_cells must be a multiple of {BLOCKS}; got {self.n_cells}.",
        )
        for name in ("side", "max_speed", "max_acceleration", "step_time"):
            value = getattr(self, name)
            require(value > 0.0, f"{name} must be above 0; got {value:g}.")
        for name in ("comm_radius", "collision_distance"):
            value = getattr(self, name)
            require(0.0 < value <= self.side, f"{name} must be in (0, side]; got {value:g}.")
        for name in ("target_speed", "collision_penalty"):
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
        require(
            self.cell <= self.sensing_radius <= self.side,
            f"sensing_radius must be at least a cell's side, {self.cell:g}, and at most side; "
            f"got {self.sensing_radius:g}.",
        )
        require(
            0.0 <= self.drag <= 1.0 / self.step_time,
            f"drag must be in [0, 1 / step_time]; got {self.drag:g}.",
        )

    @property
    def cell(self) -> float:
        """Side of a cell in m."""
        return self.side / self.n_cells

    @property
    def sweep_time(self) -> float:
        """Time in s in which all drones, side by side at full speed, pass over the whole area once."""
        return self.side**2 / (self.n_agents * 2.0 * self.sensing_radius * self.max_speed)
