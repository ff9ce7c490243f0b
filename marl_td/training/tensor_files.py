"""Tensors and plain values in files that cannot run code: safetensors for tensors, JSON for the rest.

A nest of dictionaries, lists and tuples is taken apart by :func:`pack` into JSON and named tensors, and put
together by :func:`unpack`. Tensors come back with their dimensions in the same order in memory: sums over
another order round differently, and an exact resume would not be exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from marl_td.training.files import write_atomic

HEADER_BYTES = 16 * 1024 * 1024
"""What names and shapes in a file may take beside the tensors themselves."""
_MARK = "$"
_DEEPEST = 64


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name to ``path``; a crash at any moment leaves the old file or the new one."""
    write_atomic(path, tensor_bytes(tensors))


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a safetensors file with copies of ``tensors``."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    starts = [tensor.untyped_storage().data_ptr() for tensor in kept.values() if tensor.numel()]
    if len(set(starts)) < len(starts):  # safetensors refuses tensors that share memory
        kept = {name: tensor.clone() for name, tensor in kept.items()}
    content: bytes = save(kept)
    return content


def load_tensors(path: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors in a file, on the CPU.

    Args:
        path: a safetensors file.
        expected: tensors whose names, shapes and types those of the file must have; a file that is larger
            than they are is refused before it is read.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise ValueError(f"there is no file '{path}'.")
    if expected is not None:
        most = HEADER_BYTES + sum(t.numel() * t.element_size() for t in expected.values())
        if path.stat().st_size > most:
            raise ValueError(
                f"'{path}' has {path.stat().st_size} bytes; at most {most} can belong to these tensors."
            )
    tensors = parse_tensors(path.read_bytes(), path)
    if expected is not None:
        require_alike(tensors, expected, path)
    return tensors


def parse_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the ``content`` of a file; ``path`` is for the message.

    Raises:
        ValueError: if it is not a whole safetensors file.
    """
    try:
        return {name: tensor.clone() for name, tensor in load(content).items()}
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"'{path}' is not a safetensors file, or is damaged: {reason}") from error


def require_alike(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    """Check names, shapes and types.

    Raises:
        ValueError: naming the first tensor that differs.
    """
    for name in sorted(set(expected) | set(tensors)):
        wanted, got = _kind(expected.get(name)), _kind(tensors.get(name))
        if wanted != got:
            raise ValueError(
                f"'{path}' does not fit this run's settings: '{name}' is {got} in the file, {wanted} is "
                "expected. Was config.yaml edited after training?"
            )


def _kind(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


# ------------------------------------------------------------------------------------------------- nests
def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """A nest as JSON values, and its tensors by their place in it.

    Dictionaries with names or whole numbers as keys, lists, tuples, tensors, numbers, text, booleans, None.

    Raises:
        TypeError: for anything else, naming its place.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(state, "state", tensors), tensors


def _pack(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return _pack_tensor(value.detach(), place, tensors)
    if isinstance(value, Mapping):
        return _pack_mapping(value, place, tensors)
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{place}.{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {f"{_MARK}tuple": items}
    if isinstance(value, float) and not math.isfinite(value):
        return {f"{_MARK}float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{place} is a {type(value).__name__}, which a checkpoint cannot hold.")


def _pack_mapping(value: Mapping[Any, Any], place: str, tensors: dict[str, Tensor]) -> Any:
    pairs = [[key, _pack(item, f"{place}.{key}", tensors)] for key, item in value.items()]
    if all(isinstance(key, str) and not key.startswith(_MARK) for key in value):
        return dict(pairs)
    for key in value:
        if not isinstance(key, str | int):
            raise TypeError(f"{place} has the key {key!r}; a checkpoint takes names and numbers.")
    return {f"{_MARK}items": pairs}


def _pack_tensor(value: Tensor, place: str, tensors: dict[str, Tensor]) -> Any:
    """Tensors in another order in memory, or with repeated values, say so beside their name."""
    entry: dict[str, Any] = {f"{_MARK}tensor": place}
    name = place
    while name in tensors:  # "a.b" and "a" -> "b" have the same place
        name += "'"
        entry[f"{_MARK}tensor"] = name
    strides = value.stride()
    repeated = [dim for dim in range(value.ndim) if strides[dim] == 0 and value.shape[dim] > 1]
    if repeated:
        entry["shape"] = list(value.shape)
        for dim in repeated:
            value = value.narrow(dim, 0, 1)
    order = sorted(range(value.ndim), key=lambda dim: -strides[dim])
    if not value.is_contiguous() and order != list(range(value.ndim)):
        entry["order"] = order
        value = value.permute(order)
    tensors[name] = value
    return entry


def unpack(packed: Any, tensors: Mapping[str, Tensor], path: Path) -> Any:
    """The nest that :func:`pack` took apart; ``path`` is for messages.

    Raises:
        ValueError: if JSON and tensors do not belong together.
    """
    try:
        return _unpack(packed, tensors, 0)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' does not describe a state: {type(error).__name__} {error}"
        ) from error


def _unpack(packed: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if depth > _DEEPEST:
        raise TypeError(f"it is nested deeper than {_DEEPEST}")
    if isinstance(packed, list):
        return [_unpack(item, tensors, depth + 1) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if f"{_MARK}tensor" in packed:
        return _unpack_tensor(packed, tensors)
    if f"{_MARK}tuple" in packed:
        return tuple(_unpack(item, tensors, depth + 1) for item in packed[f"{_MARK}tuple"])
    if f"{_MARK}float" in packed:
        return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[packed[f"{_MARK}float"]]
    pairs = packed[f"{_MARK}items"] if f"{_MARK}items" in packed else packed.items()
    return {key: _unpack(item, tensors, depth + 1) for key, item in pairs}


def _unpack_tensor(entry: dict[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    value = tensors[entry[f"{_MARK}tensor"]]
    if "order" in entry:
        order = entry["order"]
        value = value.permute([order.index(dim) for dim in range(len(order))])
    if "shape" in entry:
        value = value.expand(torch.Size(entry["shape"]))
    return value
