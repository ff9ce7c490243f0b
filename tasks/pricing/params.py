"""Parameters of the pricing task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marl_td.tasks.base import require
from marl_td.tasks.failures import FailureParams

POSITIVE = ("substitution", "margin", "customers", "reservation")


@dataclass
class PricingParams(FailureParams):
    """Parameters of the pricing task; the defaults are those of Calvano et al. (2020) with three stores."""

    max_steps: int = 200
    """Time limit in steps, at least 1. With ``inventory`` it is the length of a season, which really ends."""
    n_agents: int = 3
    """Number of stores, at least 2; 1 only with ``inventory``."""
    quality: Any = 2.0
    """What a store is worth to customers, a, in $: one number, or a list with one number per store."""
    cost: Any = 1.0
    """Cost of a unit sold, c, in $: one number, or a list with one per store. Unused with ``inventory``."""
    outside: float = 0.0
    """What buying nowhere is worth to customers, a0, in $."""
    substitution: float = 0.25
    """How little customers mind prices when they choose a store, mu, in $, positive: 0.25 is keen."""
    shock: float = 0.0
    """Size of a demand shock in $, at least 0: in each step a0 is higher or lower by it, with probability
    1/2 each, which nobody knows when prices are set."""
    n_prices: int = 15
    """Number of prices to choose from with discrete actions, at least 2."""
    margin: float = 0.1
    """How far prices may go above the joint price (and a grid below the Nash price), as a share of the
    distance between the two, xi, positive."""
    memory: int = 1
    """Number of last steps whose prices stores see, k, at least 1."""
    store_id: bool = False
    """Whether observations hold a one-hot store number; unequal stores that share a network need it."""
    cooperative: bool = False
    """Whether all stores have one owner: everybody's reward is the mean profit, not its own."""
    inventory: bool = False
    """Whether stores sell a perishable stock over a season, to customers with exponential demand."""
    stock: int = 10
    """Units that each store has at the start of a season, at least 1 (used with ``inventory``)."""
    customers: float = 200.0
    """Mean number of customers of a season, positive (used with ``inventory``)."""
    reservation: float = 1.0
    """Mean of what a customer is at most willing to pay, in $, positive (used with ``inventory``)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"n_agents": 1 if self.inventory else 2, "n_prices": 2, "memory": 1, "stock": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            alone = " (1 store only with inventory)" if name == "n_agents" else ""
            require(value >= bound, f"{name} must be at least {bound}{alone}; got {value}.")
        for name in POSITIVE:
            value = getattr(self, name)
            require(value > 0.0, f"{name} must be positive; got {value:g}.")
        require(self.shock >= 0.0, f"shock must be at least 0; got {self.shock:g}.")
        self.qualities, self.costs  # noqa: B018  (both check their lengths)

    @property
    def qualities(self) -> tuple[float, ...]:
        """Worth of every store, a_i, in $."""
        return self._per_store("quality")

    @property
    def costs(self) -> tuple[float, ...]:
        """Unit cost of every store, c_i, in $."""
        return self._per_store("cost")

    def _per_store(self, name: str) -> tuple[float, ...]:
        value = getattr(self, name)
        if isinstance(value, int | float):
            return (float(value),) * self.n_agents
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        require(
            listed and len(value) == self.n_agents,
            f"{name} must be a number or a list of {self.n_agents} numbers, one per store; got {value!r}.",
        )
        return tuple(float(entry) for entry in value)
