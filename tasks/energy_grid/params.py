"""Parameters of the energy grid, in MW, hours and $."""

from __future__ import annotations

from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import DeadAgentsParams

POSITIVE = (
    "dt",
    "mean_size",
    "capacity_margin",
    "ramp_scale",
    "line_capacity",
    "frequency_drop",
    "frequency_limit",
    "storage_energy",
    "storage_power",
)
NOT_NEGATIVE = ("load_noise", "unserved_cost", "surplus_cost", "overload_cost")


@dataclass
class EnergyGridParams(DeadAgentsParams):
    """Parameters of the energy grid; the system itself is drawn once, from ``grid_seed``."""

    max_steps: int = 96
    """Time limit in steps: 96 quarters of an hour are a day. Reaching it truncates."""
    n_agents: int = 10
    """Number of generators, at least 2."""
    n_loads: int = 20
    """Number of consumers, at least 1."""
    n_buses: int = 6
    """Number of buses, at least 3: a ring of lines, and half as many lines across it."""
    grid_seed: int = 0
    """Draws generators, loads and lines; two tasks with the same number have the same grid."""
    dt: float = 0.25
    """Length of a step in hours, above 0."""
    mean_size: float = 100.0
    """Mean capacity of a generator in MW, above 0; single ones have a half to three halves of it."""
    capacity_margin: float = 1.3
    """Capacity of all generators over the peak load, at least 1."""
    ramp_scale: float = 1.0
    """Factor on all ramps, above 0. At 1 a generator moves 2 % (the cheapest) to 10 % (the dearest) of its
    capacity per step."""
    line_capacity: float = 0.8
    """Limit of every line over its largest flow in a day of cheapest dispatch, above 0; 1 and more: no
    line binds in a mean day."""
    wind_share: float = 0.2
    """Mean wind power over the peak load, in [0, 0.4]."""
    wind_spread: float = 0.3
    """Standard deviation of the wind power over its mean, in [0, 0.33]; cut at 3 of them."""
    wind_memory: float = 0.97
    """Correlation of the wind from step to step, in [0, 1)."""
    load_noise: float = 0.02
    """Standard deviation of every load over its mean, in each step anew; at least 0."""
    unserved_cost: float = 1000.0
    """Cost of load that is not served, in $ / MWh; at least 0."""
    surplus_cost: float = 500.0
    """Cost of power that nobody takes, in $ / MWh; at least 0."""
    overload_cost: float = 100.0
    """Cost of flow above a line's limit, in $ / MWh; at least 0."""
    agc: bool = True
    """Automatic generation control: whether generators close the gap that their actions leave, each in
    proportion to what its ramp and limits still allow."""
    frequency_drop: float = 0.1
    """Power missing per Hz that the frequency falls, over the peak load; above 0."""
    frequency_limit: float = 1.0
    """Deviation of the frequency in Hz beyond which the grid goes black, above 0."""
    n_storage: int = 0
    """Number of batteries, agents of a second group ``storage``, evenly over the buses; 0: no such group."""
    storage_energy: float = 200.0
    """What one battery holds in MWh, above 0."""
    storage_power: float = 50.0
    """Largest power that one battery takes or feeds in, MW, above 0."""
    storage_efficiency: float = 0.9
    """Energy fed in over energy taken for it, in (0, 1]; half of the loss (by its root) each way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("n_agents", 2), ("n_loads", 1), ("n_buses", 3), ("n_storage", 0)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be at least {least}; got {value}.")
        for name in POSITIVE:
            value = getattr(self, name)
            require(value > 0.0, f"{name} must be positive; got {value:g}.")
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
        for name, most in (("wind_share", 0.4), ("wind_spread", 0.33)):
            value = getattr(self, name)
            require(0.0 <= value <= most, f"{name} must be in [0, {most:g}]; got {value:g}.")
        require(
            0.0 <= self.wind_memory < 1.0,
            f"wind_memory must be in [0, 1); got {self.wind_memory:g}.",
        )
        require(
            0.0 < self.storage_efficiency <= 1.0,
            f"storage_efficiency must be in (0, 1]; got {self.storage_efficiency:g}.",
        )
        require(
            self.capacity_margin >= 1.0,
            f"capacity_margin must be at least 1, or the peak cannot be served; "
            f"got {self.capacity_margin:g}.",
        )
