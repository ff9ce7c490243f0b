"""Parameters of the retail task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

TRANSFER_MODES = ("reactive", "action")
REWARDS = ("team", "individual")


@dataclass
class RetailParams(FailureParams):
    """Parameters of the retail task; units of stock are whole, a period is one step.

    Raises:
        ValueError: for a parameter out of range, with its name and value.
    """

    n_agents: int = 5
    """Number of warehouses (sites), at least 1."""
    demand: Any = 5.0
    """Mean demand per period, lambda, in units: one number, or a list with one number per site."""
    lead_time: int = 1
    """Periods between an order and its arrival, L >= 0; 0 = it can still serve today's demand."""
    capacity: int = 40
    """Largest stock plus pipeline of a site, C, in units."""
    max_order: int = 20
    """Largest order of a site per period, Q_max, in units."""
    max_level: int | None = None
    """Order-up-to level that the action 1.0 stands for, S_max, in units. None: the capacity if orders have
    a fixed cost, else twice the newsvendor level (what ``lead_time + 1`` periods of the largest demand need
    with probability p / (p + h)), at most the capacity: the middle of the range is the classical policy."""
    transfer_mode: str = "reactive"
    """``"reactive"``: after demand, leftovers that sites lend cover others' unmet units;
    ``"action"``: before demand, offers meet requests."""
    max_transfer: int = 10
    """Largest offer or request of a site per period in mode ``"action"``, in units (one van)."""
    lot: int = 3
    """Units that a discrete offer or request stands for in mode ``"action"``."""
    lost_cost: float = 10.0
    """Cost per unmet unit of demand, p, in $."""
    holding_cost: float = 0.1
    """Cost per unit left at the end of a period, h, in $."""
    transfer_cost: float = 0.5
    """Cost per unit moved between sites, c_t, in $."""
    order_cost: float = 0.0
    """Fixed cost per order placed, K, in $."""
    season_amplitude: float = 0.0
    """Relative seasonal swing of the demand rate, in [0, 1); 0 = no season."""
    season_period: int = 20
    """Length of a season in periods (used if ``season_amplitude`` > 0)."""
    correlation: float = 0.0
    """Weight of the common factor in the demand of all sites, rho in [0, 1); the law of each site's
    own demand stays Poisson."""
    site_id: bool = False
    """Whether the observation holds a one-hot site number. Alike sites learn faster without it, and a
    policy without it works for any number of sites."""
    share_inventory: bool = False
    """Whether the observation holds the other sites' stock."""
    reward: str = "team"
    """``"team"``: everybody gets the mean over sites; ``"individual"``: each its own cost, the cost of a
    transfer split half and half between giver and receiver."""
    reward_scale: float = 10.0
    """Dollars per unit of reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_agents", "capacity", "max_order", "max_transfer", "lot"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1; got {value}.")
        require(self.lead_time >= 0, f"lead_time must be at least 0; got {self.lead_time}.")
        require(
            self.max_level is None or self.max_level >= 1,
            f"max_level must be at least 1, or None for the default; got {self.max_level}.",
        )
        for name in ("lost_cost", "holding_cost", "transfer_cost", "order_cost"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative; got {value}.")
        for name, value in (
            ("season_amplitude", self.season_amplitude),
            ("correlation", self.correlation),
        ):
            require(0 <= value < 1, f"{name} must be in [0, 1); got {value}.")
        require(
            self.season_period >= 2, f"season_period must be at least 2; got {self.season_period}."
        )
        require(self.reward_scale > 0, f"reward_scale must be positive; got {self.reward_scale}.")
        for name, known in (("transfer_mode", TRANSFER_MODES), ("reward", REWARDS)):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}; got '{value}'.")
        site_rates(self)

    @property
    def n_phases(self) -> int:
        """Number of different periods of a season (1 without a season)."""
        return self.season_period if self.season_amplitude > 0 else 1


def site_rates(params: RetailParams) -> list[float]:
    """Mean demand per period of every site, ``n_agents`` numbers.

    Raises:
        ValueError: if ``demand`` is not a number or a list of ``n_agents`` positive numbers.
    """
    demand = params.demand
    if isinstance(demand, int | float):
        demand = [demand] * params.n_agents
    require(
        isinstance(demand, Sequence) and not isinstance(demand, str),
        f"demand must be a number or a list of {params.n_agents} numbers; got {demand!r}.",
    )
    require(
        len(demand) == params.n_agents,
        f"demand must have one rate per site: n_agents = {params.n_agents}, got {len(demand)} rates.",
    )
    rates = [float(rate) for rate in demand]
    require(min(rates) > 0, f"demand rates must be positive; got {rates}.")
    return rates
