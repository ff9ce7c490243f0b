"""Settings of independent learners with tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

EXPLORATIONS = ("boltzmann", "epsilon_greedy")


@dataclass(frozen=True)
class TabularSettings:
    """Settings of the tabular methods; each method reads those that its equations have.

    Raises:
        ValueError: if one is out of its range.
    """

    alpha: float = 0.1
    """Learning rate of the values, in [0, 1]."""
    beta: float = 0.01
    """Hysteretic Q-learning's rate where the target lies below the value, in [0, ``alpha``]."""
    alpha_frequency: float = 0.01
    """Learning rate of recursive FMQ's frequencies, in [0, 1]."""
    fmq_weight: float = 10.0
    """FMQ's weight c of the frequent maximum, >= 0."""
    delta_win: float = 0.01
    """WoLF-PHC's step of the policy when winning, in [0, ``delta_lose``]."""
    delta_lose: float = 0.04
    """WoLF-PHC's step of the policy when losing, in [0, 1]."""
    gamma: float = 0.99
    """Discount, in [0, 1]; a one-step game has nothing to discount."""
    exploration: str | None = None
    """boltzmann or epsilon_greedy; None takes the one that the method was published with."""
    temperature_init: float = 5000.0
    """Boltzmann's temperature at the first step, in units of the return, > 0."""
    temperature_decay: float = 0.997
    """Factor of the temperature per step, in (0, 1]."""
    temperature_end: float = 1e-3
    """Below this the temperature does not fall, in units of the return, > 0."""
    epsilon: float = 0.1
    """Probability that an agent takes a random action, in [0, 1]."""

    def __post_init__(self) -> None:
        fractions = ("alpha", "beta", "alpha_frequency", "delta_win", "delta_lose", "gamma")
        for name in (*fractions, "temperature_decay", "epsilon"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1]; got {value}.")
        for name in ("temperature_init", "temperature_end", "temperature_decay"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}.")
        if not self.fmq_weight >= 0.0:
            raise ValueError(f"fmq_weight must be at least 0; got {self.fmq_weight}.")
        for low, high in (("beta", "alpha"), ("delta_win", "delta_lose")):
            small, large = getattr(self, low), getattr(self, high)
            if small > large:
                raise ValueError(f"{low} must be at most {high}; got {small} and {large}.")
        if self.exploration not in (None, *EXPLORATIONS):
            known = " or ".join(EXPLORATIONS)
            raise ValueError(f"exploration must be {known}; got '{self.exploration}'.")

    def temperature(self, step: int) -> float:
        """Boltzmann's temperature at a step, the first being 0."""
        return max(self.temperature_init * self.temperature_decay**step, self.temperature_end)

    def in_units(self, unit: float) -> TabularSettings:
        """The same schedule for payoffs that are ``unit`` > 0 times as large."""
        init, end = unit * self.temperature_init, unit * self.temperature_end
        return replace(self, temperature_init=init, temperature_end=end)
