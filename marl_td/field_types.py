"""Whether the values of settings are of the types that their dataclass says, and how messages name types."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Mapping, MutableSequence, Sequence
from collections.abc import Set as AnySet
from enum import Enum
from typing import Any

WORDS: dict[Any, tuple[str, str]] = {
    Any: ("anything", "anything"),
    object: ("anything", "anything"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    bytes: ("bytes", "bytes"),
    types.NoneType: ("null", "null"),
}
"""Types to their name in messages: of one, and of several."""
UNPOINTED = re.compile(r"([-+]?\d+(?:\.\d*)?)[eE]([-+]?\d+)")
"""Numbers that YAML takes for text: with an exponent, but without a point or the exponent's sign."""


def check_fields(settings: Any) -> None:
    """Check the fields of a dataclass against its annotations, after making them :func:`plain`.

    Names of an Enum's members become the members. Fields that are no arguments are left alone.

    Raises:
        ValueError: naming the class, the first field that does not fit, what it must be and what it is.
    """
    cls = type(settings)
    hints = field_types(cls)
    for field in dataclasses.fields(cls):
        if not field.init:  # it may not even be set yet
            continue
        given, kind = getattr(settings, field.name), hints[field.name]
        value = given if is_array_for(given, kind) else plain(given)
        check_type(f"{cls.__name__}.{field.name}", value, kind)
        value = as_member(value, kind)
        if value is not given:
            object.__setattr__(settings, field.name, value)  # in frozen dataclasses, too


def field_types(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a class and those that it extends; ``Any`` for each that cannot be read.

    Annotations may name what is imported for type checkers only.
    """
    try:
        return typing.get_type_hints(cls)
    except Exception:  # one of them is at fault, in whatever way
        pass
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        names = vars(sys.modules.get(base.__module__, types))
        for name, annotation in vars(base).get("__annotations__", {}).items():
            one = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                found |= typing.get_type_hints(one, names, dict(vars(base)))
            except Exception:
                found[name] = Any
    return found


def check_type(name: str, value: Any, kind: Any) -> None:
    """Raise ``ValueError``, which begins with ``name``, unless ``value`` is of the type ``kind``."""
    if fits(value, kind):
        return
    hint = ""
    found = UNPOINTED.fullmatch(value) if isinstance(value, str) else None
    if found is not None and fits(1.0, kind):
        digits, exponent = found.groups()
        digits += "" if "." in digits else ".0"
        sign = "" if exponent[0] in "+-" else "+"
        hint = f" In a YAML file that is text: write {digits}e{sign}{exponent}."
    raise ValueError(f"{name} must be {named(kind)}; got {shown(value)}.{hint}")


def plain(value: Any) -> Any:
    """``value`` as files of settings hold it: NumPy's, torch's and OmegaConf's things as Python's own."""
    if isinstance(value, type):  # of an array class, `tolist` wants an array
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    if isinstance(value, MutableSequence | range):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def is_array_for(value: Any, kind: Any) -> bool:
    """Whether ``value`` is an array or tensor, and the annotated type ``kind`` asks for one."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(is_array_for(value, option) for option in typing.get_args(kind))
    holder = typing.get_origin(kind) or kind  # numpy.typing.NDArray[...] is a generic one
    return isinstance(holder, type) and hasattr(holder, "tolist") and isinstance(value, holder)


def as_member(value: Any, kind: Any) -> Any:
    """The member of the Enum ``kind`` that is called ``value``, as files have it; else ``value`` itself."""
    for option in (kind, *typing.get_args(kind)):
        if is_enum(option) and isinstance(value, str) and value in option.__members__:
            return option[value]
    return value


def is_enum(kind: Any) -> bool:
    """Whether ``kind`` is an Enum."""
    return isinstance(kind, type) and issubclass(kind, Enum)


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
        return any(value == one and type(value) is type(one) for one in arguments)
    if kind is None or kind is types.NoneType:
        return value is None
    if kind in (int, float):
        allowed = int if kind is int else int | float
        return isinstance(value, allowed) and not isinstance(value, bool)
    holder = origin or kind
    if not isinstance(holder, type):
        return True
    if is_enum(holder):
        return isinstance(value, holder) or as_member(value, holder) is not value
    if holder is bool or issubclass(holder, str | bytes):
        return isinstance(value, holder)
    return _holds(value, holder, arguments)


def _holds(value: Any, holder: type[Any], arguments: tuple[Any, ...]) -> bool:
    """:func:`fits` for mappings, lists, tuples and sets, with what is in them; True for other classes."""
    if issubclass(holder, Mapping):
        items = value.items() if isinstance(value, Mapping) else ()
        key, item = arguments if len(arguments) == 2 else (Any, Any)
        return isinstance(value, Mapping) and all(fits(k, key) and fits(v, item) for k, v in items)
    if issubclass(holder, AnySet):
        return isinstance(value, AnySet) and all(fits(v, arg) for v in value for arg in arguments)
    if not issubclass(holder, Sequence):
        return True
    if not isinstance(value, list | tuple):
        return False
    if holder is tuple and Ellipsis not in arguments and arguments:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return not arguments or all(fits(item, arguments[0]) for item in value)


def named(kind: Any, many: bool = False) -> str:
    """``kind`` in words; ``many`` of them, as in "a list of numbers"."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(named(option, many) for option in options)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, options))}"
    holder = origin or kind
    if is_enum(holder):
        return f"one of {', '.join(member.name for member in holder)}"
    if kind in WORDS:
        return WORDS[kind][many]
    if not isinstance(holder, type):
        return str(kind).removeprefix("typing.")
    if holder is type:
        return "classes" if many else "a class"
    if issubclass(holder, Mapping):
        of = [named(option, True) for option in options if options[-1] is not Any]
        return " of ".join(
            ["mappings" if many else "a mapping", *([" to ".join(of)] if of else [])]
        )
    is_set = issubclass(holder, AnySet)
    if not is_set and (not issubclass(holder, Sequence) or issubclass(holder, str | bytes)):
        return f"{'' if many else 'a '}{holder.__name__}"
    whole = ("set" if is_set else "list") + ("s" if many else "")
    whole = whole if many else f"a {whole}"
    if holder is tuple and options and Ellipsis not in options:
        return f"{whole} of {len(options)}: {', '.join(map(named, options))}"
    return f"{whole} of {named(options[0], True)}" if options and options[0] is not Any else whole


def shown(value: Any) -> str:
    """``value`` in a message: its beginning, where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
