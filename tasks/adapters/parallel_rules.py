"""What PettingZoo asks of the dictionaries that an environment reports; each break gets one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marl_td.tasks.base import require

STEP = ("observations", "rewards", "terminations", "truncations", "infos")
"""What ``step()`` returns."""
COMPLETE = ("rewards", "terminations", "truncations")
"""Of these, what must name everybody who acted; observations are needed by those who go on only."""


def require_step(result: Any, acted: set[str], known: set[str]) -> None:
    """Check what ``step()`` returned. Agents that left in an earlier step may be named, or not.

    Args:
        result: five dictionaries by agent.
        acted: the agents that were given an action.
        known: all agents that can appear.

    Raises:
        ValueError: naming dictionary and agents.
    """
    require(
        isinstance(result, tuple) and len(result) == len(STEP),
        "step() must return (observations, rewards, terminations, truncations, infos), each a "
        f"dictionary by agent; got {described(result)}.",
    )
    for name, told in zip(STEP, result, strict=True):
        if not isinstance(told, Mapping):
            raise ValueError(
                f"{name} of step() must be a dictionary by agent; got a {type(told).__name__}."
            )
        if name not in COMPLETE:
            continue
        strangers = told.keys() - known
        if strangers:
            raise ValueError(
                f"{name} of step() name the agents {_sorted(strangers)}, who are not among possible_agents: "
                "PettingZoo asks for the same names everywhere."
            )
        lacking = acted - told.keys()
        if lacking:
            raise ValueError(
                f"{name} of step() lack the agents {_sorted(lacking)}: PettingZoo asks for everybody who "
                "acted, those that leave in this step among them."
            )


def one_number(agent: str, reward: Any) -> float:
    """An agent's reward.

    Raises:
        ValueError: if it is something else than one number.
    """
    try:
        array = np.asarray(reward)
        if array.size == 1 and array.dtype.kind in "fiub":
            return float(array.reshape(()))
    except ValueError:  # a list of lists of several lengths
        pass
    raise ValueError(f"the reward of agent '{agent}' must be one number; got {shortened(reward)}.")


def described(result: Any) -> str:
    """The form of a result, for a message."""
    kind = type(result).__name__
    return f"a {kind} of {len(result)}" if isinstance(result, tuple) else f"one {kind}"


def shortened(value: Any) -> str:
    """A value on one line of a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _sorted(names: set[Any]) -> list[Any]:
    return sorted(names, key=str)
