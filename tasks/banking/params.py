"""Parameters of the banking task, in SI units (s, 1/s, $)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from marl_td.tasks.base import require
from marl_td.tasks.failures import DeadAgentsParams

CHANNELS = ("internal", "external", "chain")
"""The three payment channels, fastest and cheapest first."""
INTERNAL = 0
N_CHANNELS = len(CHANNELS)
HOLD = N_CHANNELS
"""The choice that keeps a class's payments in the buffer; the choices below it are the channels."""
GROUP = "agents"
"""The only group: the routers."""


@dataclass
class BankingParams(DeadAgentsParams):
    """Parameters of the banking task."""

    max_steps: int = 2000
    """Time limit in steps: 2,000 slots of 5 ms are 10 s."""
    n_agents: int = 3
    """Number of routers; payments are spread evenly over them."""
    servers: list[int] = field(default_factory=lambda: [2, 4, 8])
    """Servers of each channel (internal, external, chain), c."""
    service_time: list[float] = field(default_factory=lambda: [0.020, 0.080, 0.200])
    """Mean time one server needs for one payment on each channel, 1 / mu, in s."""
    price: list[float] = field(default_factory=lambda: [0.10, 0.50, 2.00])
    """Fee per payment on each channel, in $."""
    risk: list[float] = field(default_factory=lambda: [0.03, 0.02, 0.01])
    """Expected share of the amount lost on each channel, for a payment of average risk."""
    arrival_rate: float = 117.55
    """Payments per second over all routers together, lambda; below the total service rate (190 / s)."""
    clock: str = "slot"
    """``slot``: time advances by ``dt`` a step and every router acts; ``event``: by one event a step
    (uniformised Markov chain) and only a router that holds a payment acts."""
    dt: float = 0.005
    """Length of a slot in s (slot clock only)."""
    stale: int = 4
    """Age d of the channel loads that routers see, in steps (slots or events)."""
    classes: bool = False
    """Whether payments fall into risk classes, with one choice per class."""
    class_share: list[float] = field(default_factory=lambda: [0.6, 0.3, 0.1])
    """Share of payments in each risk class (used if ``classes``)."""
    class_risk: list[float] = field(default_factory=lambda: [0.5, 1.0, 4.0])
    """Factor on ``risk`` of each class (used if ``classes``); the mean 1 keeps the channels' averages."""
    amount: float = 100.0
    """Mean amount of a payment, in $ (log-normal)."""
    amount_spread: float = 1.0
    """Standard deviation of the logarithm of the amount."""
    hold: bool = False
    """Whether a router may keep its payments for a step although a channel is open."""
    capacity: list[int] = field(default_factory=lambda: [1000, 1000, 1000])
    """Most payments a channel takes in (in service and waiting); a full one is closed in the mask."""
    deadline: float = 1.0
    """A payment that waits longer than this in a channel's queue fails, in s; it is still processed."""
    router_id: bool = True
    """Whether the observation holds a one-hot router number: its width, and with it time and memory per
    router, grow with ``n_agents``. A policy without it works for any number of routers."""
    burst: bool = False
    """Whether the arrival rate switches at random between a busy and a calm phase (MMPP)."""
    burst_factor: float = 1.5
    """Arrival rate of the busy phase over the mean, in [1, 2]; the calm phase has 2 minus it."""
    burst_time: float = 0.5
    """Mean duration of a phase, in s."""
    start: str = "warm"
    """``empty``: channels start empty; ``warm``: near the stationary law of a sensible policy."""
    latency_weight: float = 1.0
    """Weight w_l of latency in the reward, per 100 ms and payment."""
    cost_weight: float = 0.0
    """Weight w_c of fees in the reward, per $."""
    loss_weight: float = 0.0
    """Weight w_r of expected losses in the reward, per $."""
    latency_target: float = 0.100
    """Constraint: mean latency at most this, in s (exported as a cost signal)."""
    risk_limit: float = 0.05
    """Constraint: expected share of the amount lost at most this, by the portfolio's average and by every
    payment (exported as cost signals)."""
    risk_memory: float = 1.0
    """Time constant of the moving averages of portfolio risk and arrivals, in s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_channels()
        self._check_classes()
        for name in ("n_agents", "dt", "arrival_rate", "deadline", "burst_time", "risk_memory"):
            self._positive(name, getattr(self, name))
        for name in ("amount", "latency_target", "risk_limit"):
            self._positive(name, getattr(self, name))
        for name in ("latency_weight", "cost_weight", "loss_weight", "amount_spread", "stale"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must be at least 0; got {value}.")
        _one_of("clock", self.clock, ("slot", "event"))
        _one_of("start", self.start, ("empty", "warm"))
        require(
            1.0 <= self.burst_factor <= 2.0,
            f"burst_factor must be in [1, 2]; got {self.burst_factor}. The calm phase has 2 minus it.",
        )
        require(
            self.arrival_rate < self.total_service_rate,
            f"arrival_rate {self.arrival_rate} / s must be below the total service rate "
            f"{self.total_service_rate:.6g} / s, or queues grow without bound; lower it or add servers.",
        )

    def _check_channels(self) -> None:
        for name in ("servers", "service_time", "price", "risk", "capacity"):
            value = getattr(self, name)
            require(
                len(value) == N_CHANNELS,
                f"{name} needs one entry for each of {', '.join(CHANNELS)}; got {len(value)}.",
            )
        for name in ("servers", "service_time", "capacity"):
            self._positive(name, min(getattr(self, name)))
        self._fraction("risk", self.risk)
        require(min(self.price) >= 0, f"price must be at least 0; got {min(self.price)}.")
        for channel, c, room in zip(CHANNELS, self.servers, self.capacity, strict=True):
            require(
                room >= c, f"capacity of {channel} must be at least its {c} servers; got {room}."
            )

    def _check_classes(self) -> None:
        n, m = len(self.class_share), len(self.class_risk)
        require(
            n == m and n >= 1, f"class_share and class_risk must have equal lengths; got {n}, {m}."
        )
        self._fraction("class_share", self.class_share)
        total = sum(self.class_share)
        require(abs(total - 1.0) < 1e-6, f"class_share must add up to 1; got {total:.6g}.")
        if self.classes:
            worst = max(self.risk) * max(self.class_risk)
            require(
                worst <= 1.0 and min(self.class_risk) >= 0,
                f"risk x class_risk must be in [0, 1]; its largest value is {worst:.6g}.",
            )

    def _positive(self, name: str, value: Any) -> None:
        require(value > 0, f"{name} must be positive; got {value}.")

    def _fraction(self, name: str, values: list[float]) -> None:
        good = all(0.0 <= value <= 1.0 for value in values)
        require(good, f"every entry of {name} must be in [0, 1]; got {values}.")

    @property
    def service_rate(self) -> list[float]:
        """Payments per second of one server of each channel, mu."""
        return [1.0 / time for time in self.service_time]

    @property
    def total_service_rate(self) -> float:
        """Payments per second of all servers of all channels, sum of c mu."""
        return sum(c * mu for c, mu in zip(self.servers, self.service_rate, strict=True))

    @property
    def phases(self) -> list[float]:
        """Arrival rates per second: the mean alone, or the busy and the calm phase's."""
        if not self.burst:
            return [self.arrival_rate]
        factors = (self.burst_factor, 2.0 - self.burst_factor)
        return [self.arrival_rate * factor for factor in factors]

    @property
    def event_rate(self) -> float:
        """Rate of the uniformised chain per second: most arrivals, all service, phase switches."""
        return max(self.phases) + self.total_service_rate + (1 / self.burst_time) * self.burst

    @property
    def step_time(self) -> float:
        """Mean time that passes in one step, in s: ``dt``, or the mean time between events."""
        return self.dt if self.clock == "slot" else 1.0 / self.event_rate

    @property
    def shares(self) -> list[float]:
        """Share of payments in each class; a single class without ``classes``."""
        return list(self.class_share) if self.classes else [1.0]

    @property
    def risk_factors(self) -> list[float]:
        """Risk factor of each class; a single 1 without ``classes``."""
        return list(self.class_risk) if self.classes else [1.0]


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    require(value in known, f"{name} must be one of {', '.join(known)}; got '{value}'.")
