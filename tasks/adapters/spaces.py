"""Gymnasium spaces in our terms: an agent's action as Box or Discrete, its observation as an array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium.spaces as gym_spaces
import numpy as np
from numpy.typing import NDArray

from marl_td.tasks.adapters.parallel_rules import shortened
from marl_td.tasks.adapters.pictures import Pictures, is_picture
from marl_td.tasks.base import Box, Discrete, require

Array = NDArray[Any]

MAX_COMBINATIONS = 4096
"""Most joint choices of a multi-discrete action that one network's output is made for."""


class ActionReader(NamedTuple):
    """How to hand actions to an agent, and read which it may take.

    ``action`` describes the space; ``convert`` turns a row of an action array into its member;
    ``read_mask`` turns the mask an environment gives into bool ``[n_actions]``.
    """

    action: Box | Discrete
    convert: Callable[[Any], Any]
    read_mask: Callable[[Any], Array]


class ObservationReader(NamedTuple):
    """``read`` gives an array of shape ``shape``; ``masked``: a Dict with an ``"action_mask"``."""

    shape: tuple[int, ...]
    read: Callable[[Any], Array]
    masked: bool = False


def action_reader(space: Any, agent: str) -> ActionReader:
    """How to hand actions to ``agent``.

    A MultiDiscrete or MultiBinary action becomes one Discrete over all combinations, the last element
    changing fastest.

    Raises:
        ValueError: for a space that is none of these and no Box of floats, or has too many combinations.
    """
    if isinstance(space, gym_spaces.Discrete):
        start, n = int(space.start), int(space.n)
        read = lambda told: _checked_mask(np.asarray(told), n, agent)  # noqa: E731
        return ActionReader(Discrete(n), lambda action: int(action) + start, read)
    if isinstance(space, gym_spaces.MultiDiscrete):
        return _combined(space, space.nvec, space.start, agent)
    if isinstance(space, gym_spaces.MultiBinary):
        return _combined(space, np.full(space.shape, 2), np.zeros(space.shape, int), agent)
    if isinstance(space, gym_spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = space.low.flatten().tolist(), space.high.flatten().tolist()
        shape, dtype = space.shape, space.dtype
        return ActionReader(
            Box(tuple(low), tuple(high)),
            lambda action: action.reshape(shape).astype(dtype),
            lambda told: np.ones(0, np.bool_),  # a mask needs discrete actions
        )
    raise ValueError(
        f"agent '{agent}' has the action space {space}; Discrete, MultiDiscrete, MultiBinary and Box "
        "(of floats) are supported. Wrap the environment so that it takes one of these."
    )


def _combined(space: Any, sizes: Array, start: Array, agent: str) -> ActionReader:
    counts = tuple(int(size) for size in sizes.flatten())
    n = int(np.prod(counts, dtype=object))
    require(
        n <= MAX_COMBINATIONS,
        f"agent '{agent}' has the action space {space}, which has {n} combinations; at most "
        f"{MAX_COMBINATIONS} can be one discrete action. Wrap the environment so that it takes fewer, "
        "or a Box.",
    )

    def convert(action: Any) -> Array:
        digits = np.unravel_index(int(action), counts)
        return (np.asarray(digits).reshape(space.shape) + start).astype(space.dtype)

    def read_mask(told: Any) -> Array:
        """From one entry per combination, or Gymnasium's tuple with a mask for each element."""
        if isinstance(told, tuple):
            masks = [np.asarray(mask, np.bool_) for mask in told]
            whole = np.ones((), np.bool_)
            for mask in masks:
                whole = np.logical_and.outer(whole, mask)
            told = whole.reshape(-1)
        return _checked_mask(np.asarray(told), n, agent)

    return ActionReader(Discrete(n), convert, read_mask)


def _checked_mask(told: Array, n_actions: int, agent: str) -> Array:
    if told.shape != (n_actions,):
        raise ValueError(
            f"action mask of agent '{agent}' has shape {told.shape}; it has {n_actions} actions."
        )
    return told.astype(np.bool_)


def observation_reader(
    space: Any,
    agent: str,
    *,
    flatten: bool = False,
    image_size: int | None = None,
    place: str = "",
) -> ObservationReader:
    """How to read what ``agent`` sees: a Box as it is, every other space flattened.

    Args:
        space: the agent's observation space; of a Dict with an ``"action_mask"`` the rest is read.
        agent: its name, for messages.
        flatten: make a vector of a Box, too.
        image_size: pictures (:func:`is_picture`) are averaged down to so many pixels in height and in
            width, and their values lie in [0, 1]; None takes them as they are.
        place: where this is in a nested observation, for messages.

    Raises:
        ValueError: for a space that has no fixed flat size.
    """
    if isinstance(space, gym_spaces.Dict) and "action_mask" in space.spaces:
        rest = {key: value for key, value in space.spaces.items() if key != "action_mask"}
        options: dict[str, Any] = {"flatten": flatten, "image_size": image_size}
        if set(rest) == {"observation"}:
            key, inside = "observation", _inside(place, "observation")
            inner = observation_reader(rest[key], agent, place=inside, **options)
            read = lambda o: inner.read(_part(o, key, agent, inside))  # noqa: E731
            return ObservationReader(inner.shape, read, True)
        reader = observation_reader(gym_spaces.Dict(rest), agent, place=place, **options)
        return reader._replace(masked=True)
    if isinstance(space, gym_spaces.Box):
        whole = _box_reader(space, agent, image_size, place)
        return _flat(whole) if flatten or not whole.shape else whole
    return _nested_reader(space, agent, image_size, place)


def _box_reader(space: Any, agent: str, image_size: int | None, place: str) -> ObservationReader:
    def checked(value: Any) -> Array:
        array = np.asarray(value)
        if array.shape != space.shape:
            raise ValueError(
                f"observation of agent '{agent}'{_at(place)} has shape {array.shape}, but its space "
                f"says {space.shape}."
            )
        return array

    if image_size is None or not is_picture(space):
        return ObservationReader(space.shape, checked)
    pictures = Pictures(space.shape, image_size)
    return ObservationReader(pictures.shape, lambda o: pictures.read(checked(o)))


def _flat(reader: ObservationReader) -> ObservationReader:
    return reader._replace(
        shape=(int(np.prod(reader.shape)),), read=lambda o: reader.read(o).reshape(-1)
    )


def _nested_reader(space: Any, agent: str, image_size: int | None, place: str) -> ObservationReader:
    """A vector of what is in a Dict or Tuple, or of a single space as Gymnasium flattens it."""
    if isinstance(space, gym_spaces.Dict | gym_spaces.Tuple):
        named = space.spaces.items() if isinstance(space, gym_spaces.Dict) else enumerate(space)
        parts = {}
        for key, inner in named:
            inside = _inside(place, key)
            options: dict[str, Any] = {"image_size": image_size, "place": inside}
            parts[key] = (inside, observation_reader(inner, agent, flatten=True, **options))
        size = sum(part.shape[0] for _, part in parts.values())

        def read_all(told: Any) -> Array:
            found = [
                (part, _part(told, key, agent, inside)) for key, (inside, part) in parts.items()
            ]
            return np.concatenate([part.read(value) for part, value in found])

        return ObservationReader((size,), read_all)
    try:
        flat_space = gym_spaces.flatten_space(space)
    except NotImplementedError:
        flat_space = None
    if not isinstance(flat_space, gym_spaces.Box):
        raise ValueError(
            f"agent '{agent}' has the observation space {space}, which has no fixed flat size; "
            "wrap the environment so that it gives a Box."
        )
    shape = flat_space.shape

    def read(told: Any) -> Array:
        if _is_member(space, told):
            array = np.asarray(gym_spaces.flatten(space, told))
            if array.shape == shape:
                return array
        raise ValueError(
            f"observation of agent '{agent}'{_at(place)} is {shortened(told)}, but its space says {space}."
        )

    return ObservationReader(shape, read)


def _is_member(space: Any, told: Any) -> bool:
    """Whether whole numbers are in their space, of whatever type; of other spaces Gymnasium is asked."""
    if isinstance(space, gym_spaces.Discrete):
        low, high, shape = space.start, space.start + space.n - 1, None
    elif isinstance(space, gym_spaces.MultiDiscrete):
        low, high, shape = space.start, space.start + space.nvec - 1, space.shape
    elif isinstance(space, gym_spaces.MultiBinary):
        low, high, shape = 0, 1, space.shape
    else:
        return bool(space.contains(told))
    try:
        array = np.asarray(told)
    except ValueError:  # lists of several lengths
        return False
    fits = array.size == 1 if shape is None else array.shape == shape
    kinds = "fiub" if isinstance(space, gym_spaces.MultiBinary) else "iub"
    return bool(fits and array.dtype.kind in kinds and ((array >= low) & (array <= high)).all())


def absent(key: str, told: Any, agent: str) -> str:
    """The sentence for an observation that lacks ``key``."""
    has = f"it has {list(told)}" if isinstance(told, Mapping) else f"it is a {type(told).__name__}"
    if isinstance(told, tuple | list):
        has = f"it has {len(told)} elements"
    return f"observation of agent '{agent}' has no '{key}', which its space says; {has}."


def _part(told: Any, key: Any, agent: str, place: str) -> Any:
    try:
        return told[key]
    except (LookupError, TypeError) as error:
        raise ValueError(absent(place, told, agent)) from error


def _inside(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def _at(place: str) -> str:
    return f" at '{place}'" if place else ""
