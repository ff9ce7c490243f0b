"""TensorDicts taken apart into flat entries and put together again, for compiled functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    """The extra batch dimensions of the nested TensorDicts of ``data``."""
    return {
        as_path(key): tuple(data.get(key).batch_size[data.batch_dims :])
        for key in data.keys(True, False)
        if isinstance(data.get(key), TensorDictBase)
    }


def nest(
    entries: Mapping[Path, Tensor], shapes: Shapes, batch_size: tuple[int, ...], device: Any
) -> TensorDict:
    """A TensorDict ``batch_size`` of ``entries``; ``shapes`` are the nested ones' extra dimensions."""
    out = TensorDict({}, batch_size=batch_size, device=device)
    for path, extra in shapes.items():  # parents come before children
        out.set(path, TensorDict({}, batch_size=(*batch_size, *extra), device=device))
    for path, value in entries.items():
        out.set(path, value)
    return out


def snapshot_of(data: TensorDictBase) -> dict[str, Any]:
    """A TensorDict as plain lists and its tensors."""
    return {
        "batch_size": list(data.batch_size),
        "shapes": [[list(path), list(extra)] for path, extra in shapes_of(data).items()],
        "entries": [[list(path), value] for path, value in entries_of(data).items()],
    }


def from_snapshot(state: dict[str, Any], device: Any) -> TensorDict:
    """The TensorDict that :func:`snapshot_of` took apart."""
    shapes = {tuple(path): tuple(extra) for path, extra in state["shapes"]}
    entries = {tuple(path): value.to(device) for path, value in state["entries"]}
    return nest(entries, shapes, tuple(state["batch_size"]), device)
