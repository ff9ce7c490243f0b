"""Whether the values of settings are of the types that their dataclass says, and how messages name types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

WORDS = {
    Any: "anything",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    types.NoneType: "null",
}


def check_fields(settings: Any) -> None:
    """Check the fields of a dataclass against its annotations, after making them :func:`plain`.

    Raises:
        ValueError: naming the class, the first field that does not fit, what it must be and what it is.
    """
    cls = type(settings)
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # annotations may name what is imported for type checkers only
        return
    for field in dataclasses.fields(cls):
        value = plain(getattr(settings, field.name))
        check_type(f"{cls.__name__}.{field.name}", value, hints[field.name])
        setattr(settings, field.name, value)


def check_type(name: str, value: Any, kind: Any) -> None:
    """Raise ``ValueError``, which begins with ``name``, unless ``value`` is of the type ``kind``."""
    if not fits(value, kind):
        raise ValueError(f"{name} must be {named(kind)}; got {shown(value)}.")


def plain(value: Any) -> Any:
    """``value`` as files of settings hold it: NumPy's, torch's and OmegaConf's things as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    if isinstance(value, MutableSequence):
        return [plain(item) for item in value]
    if isinstance(value, MutableMapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is one of the annotated type ``kind``; a whole number is a number, too.

    Of classes that YAML has no values of, nothing is asked.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if kind is None or kind is types.NoneType:
        return value is None
    if kind in (int, float):
        allowed = int if kind is int else int | float
        return isinstance(value, allowed) and not isinstance(value, bool)
    if kind in (bool, str):
        return isinstance(value, kind)
    holder = origin or kind
    if not isinstance(holder, type):
        return True
    if issubclass(holder, Mapping):
        return isinstance(value, Mapping)
    if holder in (list, tuple) or issubclass(holder, Sequence):
        whole = isinstance(value, list | tuple)
        items = [argument for argument in arguments if argument is not Ellipsis]
        return whole and (not items or all(fits(item, items[0]) for item in value))
    return True


def named(kind: Any) -> str:
    """``kind`` in words."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(named(option) for option in options)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, options))}"
    holder = origin or kind
    if isinstance(holder, type) and issubclass(holder, Mapping):
        return "a mapping"
    if holder in (list, tuple, Sequence):
        of = "" if not options or options[0] is Any else f" of {named(options[0])}s"
        return f"a list{of.replace(' of a ', ' of ')}"
    return WORDS.get(kind, str(kind).removeprefix("typing."))


def shown(value: Any) -> str:
    """``value`` in a message: its beginning, where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
