"""Checks of what an actor is given; every message says which input of which agent was wrong, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marl_td.deploy.signature import AgentSignature, Array, Entry

SLACK = 1e-5
"""How far, relative to a bound (absolute below 1), a value may lie outside by rounding."""


class InputError(ValueError):
    """An observation, state or mask that the agent's actor does not take."""


def actor_inputs(
    agent: AgentSignature,
    obs: Any,
    state: Mapping[str, Any] | None,
    mask: Any,
    check_bounds: bool = True,
) -> tuple[dict[str, Array], bool]:
    """The actor's inputs with a batch dimension, and whether ``obs`` had one.

    Args:
        agent: whose actor it is.
        obs: one observation or a batch ``[B, ...]``; a mapping by name where the agent has several entries.
        state: what the last step returned; None before the first step.
        mask: available actions ``[n]`` or ``[B, n]``, true where available; None for an agent without mask,
            or if it is among the entries of ``obs``.
        check_bounds: refuse observations outside of the signature's bounds.

    Raises:
        InputError: if something is missing, unknown, or has a wrong type, shape or value.
    """
    obs, mask = _split_mask(agent, obs, mask)
    out: dict[str, Array] = {}
    n_rows: int | None = None
    for entry, value in _observations(agent, obs):
        out[entry.name] = _typed(entry, value)
        n_rows = _count_rows(entry, out[entry.name], n_rows)
        _check_values(entry, out[entry.name], check_bounds)
    if agent.mask is not None:
        out[agent.mask.name] = _mask(agent.mask, mask)
        n_rows = _count_rows(agent.mask, out[agent.mask.name], n_rows)
        _check_mask(agent.mask, out[agent.mask.name])
    elif mask is not None:
        raise InputError(
            "this agent has no action mask (its actions are always available): leave it out."
        )
    for entry, value in _states(agent, state, n_rows or None):
        out[entry.name] = _typed(entry, value)
        n_rows = _count_rows(entry, out[entry.name], n_rows)
        _check_values(entry, out[entry.name], check_bounds)
    single = not n_rows
    return {name: array[None] if single else array for name, array in out.items()}, not single


def _split_mask(agent: AgentSignature, obs: Any, mask: Any) -> tuple[Any, Any]:
    """Observation and mask; the mask may be among the observation's entries, as environments give it."""
    name = None if agent.mask is None else agent.mask.name
    if mask is not None or name is None or not isinstance(obs, Mapping) or name not in obs:
        return obs, mask
    return {key: value for key, value in obs.items() if key != name}, obs[name]


def _observations(agent: AgentSignature, obs: Any) -> list[tuple[Entry, Any]]:
    names = [entry.name for entry in agent.observation]
    if not isinstance(obs, Mapping):
        if len(names) != 1:
            raise InputError(
                f"this agent's observation has the entries {_listed(names)}: give a dict of them."
            )
        return [(agent.observation[0], obs)]
    return _by_name("observation", agent.observation, obs)


def _states(agent: AgentSignature, state: Any, rows: int | None) -> list[tuple[Entry, Any]]:
    if state is None:
        shape = () if rows is None else (rows,)
        return [
            (entry, np.broadcast_to(entry.initial, (*shape, *entry.shape))) for entry in agent.state
        ]
    if not isinstance(state, Mapping):
        raise InputError(
            f"the state must be the dict that the last act() returned, or None; got {type(state).__name__}."
        )
    if not agent.state and state:
        raise InputError("this agent's policy has no memory: its state is None.")
    return _by_name("state", agent.state, state)


def _by_name(
    what: str, entries: tuple[Entry, ...], given: Mapping[str, Any]
) -> list[tuple[Entry, Any]]:
    names = [entry.name for entry in entries]
    missing = [name for name in names if name not in given]
    unknown = [str(name) for name in given if name not in names]
    if missing or unknown:
        wrong = [f"lacks {_listed(missing)}"] if missing else []
        wrong += [f"has the unknown {_listed(unknown)}"] if unknown else []
        raise InputError(f"the {what} {' and '.join(wrong)}; its entries are {_listed(names)}.")
    return [(entry, given[entry.name]) for entry in entries]


def _typed(entry: Entry, value: Any) -> Array:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"'{entry.name}' cannot be made an array: {error}") from error
    dtype = np.dtype(entry.dtype)
    if array.dtype.kind not in "fiub" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InputError(
            f"'{entry.name}' must hold numbers that fit {entry.dtype}; got an array of {array.dtype}."
        )
    with np.errstate(over="ignore"):  # what overflows is refused as not finite
        return np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(array.shape)


def _count_rows(entry: Entry, array: Array, known: int | None) -> int:
    """Rows of a batch; 0 for one observation, which all entries must then be."""
    shape = entry.shape
    if array.shape == shape:
        rows = 0
    elif array.ndim == len(shape) + 1 and array.shape[1:] == shape and array.shape[0] > 0:
        rows = array.shape[0]
    else:
        batch = ", ".join(["B", *map(str, shape)])
        raise InputError(
            f"'{entry.name}' must have the shape {list(shape)}, or [{batch}] for a batch; got "
            f"{list(array.shape)}."
        )
    if known is not None and rows != known:
        raise InputError(
            f"'{entry.name}' is {_rows(rows)}, what came before it {_rows(known)}: give every input for the "
            "same number of observations."
        )
    return rows


def _check_values(entry: Entry, array: Array, check_bounds: bool) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InputError(f"'{entry.name}' is not finite at {where}: {array[tuple(where)]}.")
    if not check_bounds:
        return
    for bound, side in ((entry.low, -1), (entry.high, 1)):
        if bound is None:
            continue
        with np.errstate(invalid="ignore"):
            outside = side * (array - bound) > SLACK * np.maximum(np.abs(bound), 1.0)
        if outside.any():
            where = np.argwhere(outside)[0].tolist()
            limit = np.broadcast_to(bound, array.shape)[tuple(where)]
            word = "above its upper" if side > 0 else "below its lower"
            raise InputError(
                f"'{entry.name}' at {where} is {array[tuple(where)]}, {word} bound {limit:g}."
            )


def _mask(entry: Entry, mask: Any) -> Array:
    if mask is None:
        raise InputError(
            f"this agent needs a mask: which of its {entry.shape[-1]} actions are available."
        )
    array = np.asarray(mask)
    if array.dtype.kind in "iu" and np.isin(array, (0, 1)).all():
        array = array.astype(bool)
    if array.dtype != bool:
        raise InputError(
            f"the mask must hold booleans (or 0 and 1); got an array of {array.dtype}."
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def _check_mask(entry: Entry, array: Array) -> None:
    empty = ~array.any(-1)
    if empty.any():
        where = f" in row {int(np.argmax(empty))}" if array.ndim > len(entry.shape) else ""
        raise InputError(f"the mask allows no action{where}; at least one must be available.")


def _rows(n: int) -> str:
    return f"a batch of {n}" if n else "one observation"


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
