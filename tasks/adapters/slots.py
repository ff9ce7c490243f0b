"""Where the objects of a simulator keep their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

Path = tuple[str, ...]
"""Names of attributes, keys and positions from the root object to a value."""

_PLAIN = (bool, int, float)


class Slot(NamedTuple):
    """A place that holds a tensor or a number: an attribute, an item of a dictionary, or of a list."""

    holder: Any
    key: Any

    def get(self) -> Any:
        """What is there now."""
        items = vars(self.holder) if _has_attributes(self.holder) else self.holder
        return items[self.key]

    def set(self, value: Any) -> None:
        """Put another value there, past any property that checks it."""
        items = vars(self.holder) if _has_attributes(self.holder) else self.holder
        items[self.key] = value


def find_slots(root: Any, packages: tuple[str, ...]) -> dict[Path, Slot]:
    """Every slot that can be reached from ``root``, in a fixed order, each once.

    Args:
        root: an object; its own attributes are followed whatever its class.
        packages: attributes of other objects are followed if their class comes from one of these.
    """
    found: dict[Path, Slot] = {}
    for path, slot, value in _walk(root, packages):
        if isinstance(value, Tensor) and not isinstance(slot.holder, tuple):
            found[path] = slot
    return found


def find_number_slots(root: Any, packages: tuple[str, ...]) -> dict[Path, Slot]:
    """Every place of a Python number that can be changed; arguments as in :func:`find_slots`."""
    return {
        path: slot
        for path, slot, value in _walk(root, packages)
        if isinstance(value, _PLAIN) and not isinstance(slot.holder, tuple)
    }


def find_numbers(root: Any, packages: tuple[str, ...]) -> dict[Path, Any]:
    """Every Python number that can be reached from ``root``; arguments as in :func:`find_slots`."""
    return {path: v for path, _, v in _walk(root, packages) if isinstance(v, _PLAIN)}


def find_objects(root: Any, packages: tuple[str, ...]) -> dict[Path, int]:
    """Which object (by ``id``) is at each path; arguments as in :func:`find_slots`."""
    return {
        path: id(v) for path, _, v in _walk(root, packages) if not isinstance(v, (Tensor, *_PLAIN))
    }


def _walk(root: Any, packages: tuple[str, ...]) -> Iterator[tuple[Path, Slot, Any]]:
    seen = {id(root)}
    open_ends: list[tuple[Path, Any]] = [((), root)]
    while open_ends:
        path, holder = open_ends.pop(0)
        for key, value in _items(holder):
            where = (*path, str(getattr(key, "name", key)))
            if isinstance(value, (Tensor, *_PLAIN)):
                yield where, Slot(holder, key), value
            elif _is_followed(value, packages):
                if _has_attributes(value):
                    yield where, Slot(holder, key), value
                if id(value) not in seen:
                    seen.add(id(value))
                    open_ends.append((where, value))


def _items(holder: Any) -> list[tuple[Any, Any]]:
    if isinstance(holder, Mapping):
        return list(holder.items())
    if isinstance(holder, list | tuple):
        return list(enumerate(holder))
    return list(vars(holder).items())


def _is_followed(value: Any, packages: tuple[str, ...]) -> bool:
    if isinstance(value, Mapping | list | tuple):
        return True
    module = type(value).__module__.partition(".")[0]
    return module in packages and _has_attributes(value) and not isinstance(value, type)


def _has_attributes(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, Mapping | list | tuple)
