"""Where an ``mpe2`` simulator is, as tensors and plain values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

COUNTED = ("steps", "rewards", "infos", "agents")
"""Attributes of the environment that an episode changes, beside the world's."""


def mpe_snapshot(raw: Any) -> dict[str, Any]:
    """Every agent and landmark, scenario and world, the environment's counters and its random stream.

    Raises:
        TypeError: for a scenario that keeps something in them that is neither a number nor an array nor
            another of them.
    """
    entities = raw.world.entities
    numbers = {id(entity): i for i, entity in enumerate(entities)}
    return {
        "entities": [_pack_all(vars(entity), numbers) for entity in entities],
        "scenario": _pack_all(vars(raw.scenario), numbers),
        "world": _pack_all(vars(raw.world), numbers),
        "counted": {name: getattr(raw, name) for name in COUNTED},
        "rng": raw.np_random.bit_generator.state,
    }


def mpe_restore(raw: Any, state: dict[str, Any]) -> None:
    """Go on from what :func:`mpe_snapshot` gave, of the same scenario."""
    entities = raw.world.entities
    for entity, saved in zip(entities, state["entities"], strict=True):
        _unpack_all(entity, saved, entities)
    _unpack_all(raw.scenario, state["scenario"], entities)
    _unpack_all(raw.world, state["world"], entities)
    for name in COUNTED:
        setattr(raw, name, state["counted"][name])
    raw.np_random.bit_generator.state = state["rng"]


def _pack_all(values: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    return {name: _pack(name, value, numbers) for name, value in values.items()}


def _pack(name: str, value: Any, numbers: dict[int, int]) -> list[Any]:
    if id(value) in numbers:
        return ["entity", numbers[id(value)]]
    if isinstance(value, np.ndarray):
        return ["array", torch.from_numpy(value.copy())]
    if isinstance(value, np.generic):
        return ["value", value.item()]
    if isinstance(value, np.random.Generator):
        return ["generator", value.bit_generator.state]
    if value is None or isinstance(value, bool | int | float | str):
        return ["value", value]
    if isinstance(value, list):
        return ["list", [_pack(name, item, numbers) for item in value]]
    if type(value).__module__.startswith("mpe2."):
        return ["parts", _pack_all(vars(value), numbers)]
    raise TypeError(f"'{name}' is a {type(value).__name__}, which is not understood.")


def _unpack_all(holder: Any, saved: dict[str, Any], entities: list[Any]) -> None:
    values = vars(holder)
    for name, (kind, value) in saved.items():
        if kind == "parts":
            _unpack_all(values[name], value, entities)
        elif kind == "generator":
            values[name].bit_generator.state = value
        else:
            values[name] = _unpack(kind, value, entities)


def _unpack(kind: str, value: Any, entities: list[Any]) -> Any:
    if kind == "entity":
        return entities[value]
    if kind == "array":
        return value.numpy().copy()
    if kind == "list":
        return [_unpack(of, item, entities) for of, item in value]
    return value
