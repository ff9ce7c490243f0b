"""Parameters of the market-making task, in $, units of the asset, and days (the day is the time unit)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from marl_td.tasks.base import require
from marl_td.tasks.failures import DeadAgentsParams

REWARDS = ("team", "own")
N_LEVELS = 5
"""Depths that a discrete action can quote on each side; one more choice quotes nothing."""
TAIL = 1e-6
"""Orders per step are capped where less probability than this is left."""
MOST_ORDERS = 64
"""A step with more orders than this is refused: orders are matched one after the other."""


@dataclass
class MarketMakingParams(DeadAgentsParams):
    """Parameters of the market; order flow, volatility and day those of Avellaneda & Stoikov."""

    max_steps: int = 200
    """Steps of an episode: the market closes there (terminated); with ``lifelong`` it is a time limit."""
    n_agents: int = 5
    """Number of market makers, at least 1."""
    dt: float = 0.005
    """Length of a step in days, above 0: 200 steps are one day."""
    volatility: float = 2.0
    """Standard deviation of the mid price over a day, sigma, in $; at least 0."""
    order_rate: float = 140.0
    """Market orders per day on each side, A, above 0; each is for one unit."""
    decay: float = 1.5
    """How fast orders thin out with depth, k, per $, above 0: one in e reaches 1 / k away from the mid."""
    max_inventory: int = 6
    """Most units that a maker holds or owes, Q, at least 1."""
    size: int = 1
    """Most units a maker quotes per side and step, at least 1: continuous actions always quote this
    many, discrete ones choose a number from 1 to it."""
    inventory_penalty: float = 1.0
    """Running penalty phi on the squared inventory, in $ per unit^2 and day; at least 0."""
    closing_penalty: float = 0.001
    """Penalty alpha on the squared inventory at the close, in $ per unit^2; at least 0."""
    adverse: float = 0.3
    """Adverse selection: how far each market order moves the mid price its way, in $; at least 0."""
    toxic_share: float = 0.0
    """Share of the market orders from traders who know where the mid price goes, rho, in [0, 1); 0: none."""
    toxic_horizon: int = 1
    """How many steps ahead, this one included, they know the mid price's own moves; at least 1."""
    reward: str = "team"
    """``team``: the mean over makers (one firm's desk); ``own``: each maker's own (rivals)."""
    price_noise: bool = False
    """Whether the reward contains what the price's unpredictable moves add to the inventory's worth. It is
    0 in the mean and hides the rest: leave it out to learn and to compare."""
    lifelong: bool = False
    """Whether the market never closes: no time in the observation, no closing penalty, truncated."""
    flow_memory: float = 0.05
    """Time constant of the moving average of signed trades that makers see, in days, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_agents", "max_inventory", "size", "toxic_horizon"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1; got {value}.")
        for name in ("dt", "order_rate", "decay", "flow_memory"):
            value = getattr(self, name)
            require(value > 0.0, f"{name} must be positive; got {value:g}.")
        for name in ("volatility", "inventory_penalty", "closing_penalty", "adverse"):
            value = getattr(self, name)
            require(value >= 0.0, f"{name} must be at least 0; got {value:g}.")
        require(
            0.0 <= self.toxic_share < 1.0,
            f"toxic_share must be in [0, 1); got {self.toxic_share:g}.",
        )
        require(
            self.reward in REWARDS,
            f"reward must be one of {', '.join(REWARDS)}; got '{self.reward}'.",
        )
        require(
            self.max_orders <= MOST_ORDERS,
            f"{self.orders_per_step:g} orders per step and side are too many to match one after the "
            f"other; lower dt or order_rate to less than about 30 per step.",
        )

    @property
    def orders_per_step(self) -> float:
        """Mean number of market orders per side and step, A dt."""
        return self.order_rate * self.dt

    @property
    def max_orders(self) -> int:
        """Cap on the orders per side and step: what is above has probability below ``TAIL``."""
        most = self.orders_per_step * (1.0 + self.toxic_share)
        left, term, n = 1.0, math.exp(-most), 0
        while left - term > TAIL and n <= MOST_ORDERS:
            left -= term
            n += 1
            term *= most / n
        return max(n, 1)

    @property
    def known_steps(self) -> int:
        """Moves of the mid price that are drawn before they happen, the present one included."""
        return self.toxic_horizon if self.toxic_share > 0.0 else 1

    @property
    def known_move(self) -> float:
        """Mean size in $ of the move over ``toxic_horizon`` steps: what who knows its sign takes per unit."""
        return self.volatility * math.sqrt(2.0 / math.pi * self.dt * self.toxic_horizon)

    @property
    def max_depth(self) -> float:
        """Deepest quote in $ from the mid, 3 / k: one order in e^3 = 20 reaches it."""
        return 3.0 / self.decay
