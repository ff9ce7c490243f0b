"""TensorDicts taken apart into flat entries and put together again, for compiled functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.tasks.vector_env import Entries

Path = tuple[str, ...]
"""The full key of a leaf or of a nested TensorDict."""
Shapes = dict[Path, tuple[int, ...]]
"""Batch dimensions that nested TensorDicts have beside those of the root, such as ``(n_agents,)``."""


def as_path(key: NestedKey) -> Path:
    """A key as a tuple of strings."""
    return (key,) if isinstance(key, str) else tuple(key)


def entries_of(data: TensorDictBase) -> Entries:
    """The leaves of ``data``."""
    return {as_path(key): value for key, value in data.items(True, True)}


def shapes_of(data: TensorDictBase) -> Shapes:
    """The extra batch dimensions of the nested TensorDicts of ``data``, parents before children."""
    paths = sorted((as_path(key) for key in data.keys(True, False)), key=len)
    return {
        path: tuple(data.get(path).batch_size[data.batch_dims :])
        for path in paths
        if isinstance(data.get(path), TensorDictBase)
    }


def nest(
    entries: Mapping[Path, Tensor], shapes: Shapes, batch_size: tuple[int, ...], device: Any
) -> TensorDict:
    """A TensorDict ``batch_size`` of ``entries``; ``shapes`` are the nested ones' extra dimensions.

    Shapes and devices are not checked outside graphs: that took a twentieth of collecting in a small task.
    """
    held: dict[Path, dict[str, Any]] = {(): {}}
    for path in shapes:
        _inside(held, path)
    for path, value in entries.items():
        _inside(held, path[:-1])[path[-1]] = value
    for path in sorted(held, key=len, reverse=True):  # children come before parents
        size = torch.Size((*batch_size, *shapes.get(path, ())))
        made = _made(held[path], size, device)
        if path:
            held[path[:-1]][path[-1]] = made
    return made


def _inside(held: dict[Path, dict[str, Any]], path: Path) -> dict[str, Any]:
    """The entries at ``path``, made where there are none."""
    # Not a closure that calls itself: that would hold whole batches until the next garbage collection.
    if path not in held:
        held[path] = {}
        _inside(held, path[:-1])[path[-1]] = held[path]
    return held[path]


def _made(entries: dict[str, Any], size: torch.Size, device: Any) -> TensorDict:
    if not torch.compiler.is_compiling():
        return TensorDict._new_unsafe(entries, batch_size=size, device=device)
    out = TensorDict({}, batch_size=size, device=device)  # the compiler cannot read the other
    for name, value in entries.items():
        out.set(name, value)
    return out


def snapshot_of(data: TensorDictBase) -> dict[str, Any]:
    """A TensorDict as plain lists and its tensors."""
    return {
        "batch_size": list(data.batch_size),
        "shapes": [[list(path), list(extra)] for path, extra in shapes_of(data).items()],
        "entries": [[list(path), value] for path, value in entries_of(data).items()],
    }


def from_snapshot(state: dict[str, Any], device: Any) -> TensorDict:
    """The TensorDict that :func:`snapshot_of` took apart, its entries in the same order."""
    batch_size = tuple(state["batch_size"])
    shapes = {tuple(path): tuple(extra) for path, extra in state["shapes"]}
    out = TensorDict({}, batch_size=batch_size, device=device)

    def make(path: Path) -> None:
        if path and out.get(path, None) is None:
            make(path[:-1])
            out.set(path, TensorDict({}, batch_size=(*batch_size, *shapes[path]), device=device))

    for path, value in state["entries"]:
        make(tuple(path[:-1]))
        out.set(tuple(path), value.to(device))
    for empty in shapes:
        make(empty)
    return out
