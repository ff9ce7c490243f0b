"""Parameters of multi-agent path finding."""

from __future__ import annotations

from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

MODES = ("finish", "nothing", "restart")
REWARDS = ("pogema", "primal")
MAX_TABLE = 2**29
"""Entries of the tables of distances (1 GiB)."""


@dataclass
class MapfParams(FailureParams):
    """Parameters of multi-agent path finding."""

    max_steps: int = 64
    """Time limit in steps, at least 1; reaching it truncates the episode, it never terminates it."""
    mode: str = "finish"
    """What a goal means: finish (who arrives leaves the board), nothing (all must stand on theirs), restart
    (who arrives gets a new goal, for ever)."""
    n_agents: int = 8
    """Number of agents, at least 1; each needs two cells, a start and a goal."""
    grid_size: int = 10
    """Cells along a side of the board, at least 2."""
    density: float = 0.2
    """Probability of an obstacle in a cell, in [0, 1)."""
    n_maps: int = 64
    """Number of random maps, at least 1; every episode takes one of them."""
    map_seed: int = 0
    """What the maps are drawn from, at least 0: another number gives maps never seen before."""
    layout: str = ""
    """Maps of your own instead: rows of '.' (free) and '#' (obstacle), spaces between, '/' between maps."""
    sight: int = 5
    """How far an agent sees in each direction, in cells, at least 1: 5 is a view of 11 x 11."""
    guide: bool = True
    """Whether an agent also sees which moves lead closer, where others have to go, and who goes first."""
    reward: str = "pogema"
    """Rewards: pogema (1 for an arrival; nothing: 1 to all when all stand) or primal (costs per step)."""
    blocking_cost: float = 1.0
    """Cost (primal only), for each other agent that one on its goal keeps from its own, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("mode", MODES), ("reward", REWARDS)):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}; got '{value}'.")
        bounds = (("n_agents", 1), ("grid_size", 2), ("n_maps", 1), ("map_seed", 0), ("sight", 1))
        for name, least in bounds:
            value = getattr(self, name)
            require(value >= least, f"{name} must be at least {least}; got {value}.")
        require(
            0.0 <= self.density < 1.0,
            f"density is a probability and must be in [0, 1); got {self.density:g}.",
        )
        require(
            self.blocking_cost >= 0.0,
            f"blocking_cost must be at least 0; got {self.blocking_cost:g}.",
        )
        require(
            self.reward == "pogema" or self.mode == "nothing",
            f"reward=primal needs mode=nothing, the task it was made for; got '{self.mode}'.",
        )
        table = self.n_maps * self.grid_size**4
        require(
            bool(self.layout) or table <= MAX_TABLE,
            f"{self.n_maps} maps of {self.grid_size} x {self.grid_size} cells need tables of {table:,} "
            f"distances, at most {MAX_TABLE:,} are allowed; lower n_maps.",
        )
