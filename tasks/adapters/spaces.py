"""Gymnasium spaces in our terms: an agent's action as Box or Discrete, its observation as an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium.spaces as gym_spaces
import numpy as np
from numpy.typing import NDArray

from marl_td.tasks.base import Box, Discrete

Array = NDArray[Any]


class ActionReader(NamedTuple):
    """``action`` describes the space; ``convert`` turns a row of an action array into its member."""

    action: Box | Discrete
    convert: Callable[[Any], Any]


class ObservationReader(NamedTuple):
    """``read`` gives an array of shape ``shape``; ``masked``: a Dict with an ``"action_mask"``."""

    shape: tuple[int, ...]
    read: Callable[[Any], Array]
    masked: bool


def action_reader(space: Any, agent: str) -> ActionReader:
    """How to hand actions to ``agent``.

    Raises:
        ValueError: for a space that is neither Discrete nor a Box of floats.
    """
    if isinstance(space, gym_spaces.Discrete):
        start = int(space.start)
        return ActionReader(Discrete(int(space.n)), lambda action: int(action) + start)
    if isinstance(space, gym_spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = space.low.flatten().tolist(), space.high.flatten().tolist()
        shape, dtype = space.shape, space.dtype
        return ActionReader(
            Box(tuple(low), tuple(high)), lambda action: action.reshape(shape).astype(dtype)
        )
    raise ValueError(
        f"agent '{agent}' has the action space {space}; Discrete and Box (of floats) are "
        "supported. Wrap the environment so that it takes one Discrete over all combinations."
    )


def observation_reader(space: Any, agent: str) -> ObservationReader:
    """How to read what ``agent`` sees: a Box as it is, every other space flattened.

    Raises:
        ValueError: for a space that has no fixed flat size.
    """
    if isinstance(space, gym_spaces.Dict) and "action_mask" in space.spaces:
        rest = {key: value for key, value in space.spaces.items() if key != "action_mask"}
        if set(rest) == {"observation"}:
            inner = observation_reader(rest["observation"], agent)
            return ObservationReader(inner.shape, lambda o: inner.read(o["observation"]), True)
        flat = observation_reader(gym_spaces.Dict(rest), agent)
        return flat._replace(masked=True)
    if isinstance(space, gym_spaces.Box):
        return ObservationReader(space.shape, np.asarray, False)
    try:
        flat_space = gym_spaces.flatten_space(space)
    except NotImplementedError:
        flat_space = None
    if not isinstance(flat_space, gym_spaces.Box):
        raise ValueError(
            f"agent '{agent}' has the observation space {space}, which has no fixed flat size; "
            "wrap the environment so that it gives a Box."
        )
    return ObservationReader(
        flat_space.shape, lambda o: np.asarray(gym_spaces.flatten(space, o)), False
    )
