"""What a shield keeps: linear constraints, forbidden actions, functions of the user's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marl_td.tasks.base import Groups, require

SCOPES = ("own", "joint")
Allowed = Callable[[Groups], Groups]
"""From observations to the allowed actions, ``{group: bool [n_envs, n_agents, n_actions]}``."""
Override = Callable[[Groups, Groups], Groups]
"""From observations and actions to the actions to take instead, same shapes."""


@dataclass(frozen=True)
class Linear:
    """One linear constraint ``weights @ action <= limit`` on continuous actions, in the action's own units.

    Args:
        weights: per group one number per entry of an agent's action, ``[d]``, the same for all its agents,
            or a list of them, ``[n_agents][d]``. Groups that are left out are not constrained.
        limit: the right-hand side.
        scope: ``"joint"``: the sum over all agents of all groups named; ``"own"``: each agent by itself.

    Raises:
        ValueError: if something is missing or not a number.
    """

    weights: Mapping[str, Sequence[Any]]
    limit: float
    scope: str = "joint"

    def __post_init__(self) -> None:
        require(
            self.scope in SCOPES,
            f"the scope of a shield's constraint must be one of {', '.join(SCOPES)}; got {self.scope!r}.",
        )
        is_number = isinstance(self.limit, int | float) and math.isfinite(self.limit)
        require(
            is_number, f"the limit of a shield's constraint must be a number; got {self.limit!r}."
        )
        require(
            isinstance(self.weights, Mapping) and len(self.weights) > 0,
            "the weights of a shield's constraint are one list per group, such as "
            f"{{agents: [1.0, 0.0]}}; got {self.weights!r}.",
        )

    def matrix(self, group: str, n_agents: int, width: int) -> np.ndarray[Any, Any]:
        """The weights of ``group`` as ``[n_agents, width]``.

        Raises:
            ValueError: if they have another shape.
        """
        given = self.weights[group]
        try:
            weights = np.asarray(given, dtype=float)
        except (TypeError, ValueError):
            weights = np.zeros(0)
        require(
            weights.shape in ((width,), (n_agents, width)),
            f"the weights of a shield's constraint on group '{group}' must be {width} numbers (one per entry "
            f"of an action), or {n_agents} lists of {width}; got {given!r}.",
        )
        return np.broadcast_to(weights, (n_agents, width))


@dataclass(frozen=True)
class Shield:
    """What a shield keeps.

    Args:
        linear: constraints on continuous actions; what breaks them is projected onto them.
        forbidden: per group the discrete actions that are never taken.
        fallback: per group the discrete action taken instead of one that is not allowed; 0 if not given.
            Where it is not available itself, the first one that is allowed.
        allowed: a function of yours from observations to the allowed discrete actions, in Python only.
        override: a function of yours that replaces actions, in Python only; the other parts come after it and
            have the last word. Both functions are part of the compiled rollout, so they should be pure
            tensor code.
        penalty: subtracted from an agent's reward per unit of its own correction.

    Raises:
        ValueError: for a part that is not what it should be.
    """

    linear: Sequence[Linear] = ()
    forbidden: Mapping[str, Sequence[int]] = field(default_factory=dict)
    fallback: Mapping[str, int] = field(default_factory=dict)
    allowed: Allowed | None = None
    override: Override | None = None
    penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("allowed", "override"):
            function = getattr(self, name)
            require(
                function is None or callable(function),
                f"safety.{name} must be a function given in Python; no code is read from settings or files, "
                f"got {function!r}.",
            )
        for name in ("forbidden", "fallback"):
            value = getattr(self, name)
            require(
                isinstance(value, Mapping),
                f"safety.{name} must say for each group what it is, such as {{agents: ...}}; got {value!r}.",
            )
        penalty = self.penalty
        is_number = isinstance(penalty, int | float) and math.isfinite(penalty) and penalty >= 0
        require(is_number, f"safety.penalty must be a number of at least 0; got {penalty!r}.")

    @staticmethod
    def of(value: Any) -> Shield:
        """A shield from settings: itself, or a mapping with the fields above.

        Raises:
            ValueError: naming what is wrong.
        """
        if isinstance(value, Shield):
            return value
        require(
            isinstance(value, Mapping),
            f"safety must be a mapping such as {{linear: [...]}}; got {value!r}.",
        )
        fields = _known(Shield, value, "safety")
        linear = fields.pop("linear", None) or ()
        require(
            isinstance(linear, Sequence) and not isinstance(linear, str),
            f"safety.linear must be a list of constraints; got {linear!r}.",
        )
        constraints = []
        for entry in linear:
            require(
                isinstance(entry, Mapping) and {"weights", "limit"} <= set(entry),
                f"every entry of safety.linear needs weights and a limit; got {entry!r}.",
            )
            constraints.append(Linear(**_known(Linear, entry, "safety.linear")))
        return Shield(tuple(constraints), **fields)


def _known(cls: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` as keyword arguments of the dataclass ``cls``; entries that are None are left out."""
    known = [part.name for part in dataclasses.fields(cls)]
    for name in values:
        require(name in known, f"{where} has no setting '{name}'; it has {', '.join(known)}.")
    return {name: value for name, value in values.items() if value is not None}
