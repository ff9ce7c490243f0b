"""``config.yaml`` as plain data. It may come from elsewhere: only known names and types are read."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Mapping
from collections.abc import Set as AnySet
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml

import marl_td
from marl_td.field_types import as_member, check_type, field_types, plain, shown
from marl_td.tasks.registry import suggest

LAYERS = ("torch.nn", "torch_geometric.nn")
"""Packages whose layers are classes of models in settings files."""
MAX_BYTES = 2**20
"""Largest settings file; ours have about 5 KB."""
DEEPEST = 20
"""Deepest nesting in it."""
LARGEST = 10**7
"""Largest whole number in the settings of a task that is loaded from a file."""
CALLS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys by which Hydra would import and call what a file names."""


class PlainLoader(yaml.SafeLoader):
    """YAML without tags of other languages (as its base class) and without aliases.

    Aliases make a small file stand for a huge nest; settings need none.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node; an alias is refused."""
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases are not read", mark)
        return super().compose_node(parent, index)


def written(place: str, value: Any) -> Any:
    """The setting ``value`` as the file holds it: classes by name, tuples and arrays as lists.

    Raises:
        ValueError: naming the ``place`` of bytes or a set, which would be read back as another thing.
    """
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Enum):
        return value.name
    value = plain(value)
    if dataclasses.is_dataclass(value):
        return written(place, vars(value))
    if isinstance(value, Mapping):
        return {str(key): written(f"{place}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [written(f"{place}.{index}", item) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray | AnySet):
        what, instead = ("a set", "a list") if isinstance(value, AnySet) else ("bytes", "text")
        raise ValueError(
            f"{place} is {what}, {shown(value)}, which the settings file of a run cannot hold; make it "
            f"{instead}."
        )
    return str(value)


def read_settings(path: Path, needed: Mapping[str, type]) -> dict[str, Any]:
    """The entries of a settings file, ``needed`` among them and of these types.

    Raises:
        ValueError: naming the file, and whether it is missing, too large, no plain YAML, or lacks something.
    """
    if not path.is_file():
        raise ValueError(
            f"'{path.parent}' is not a run folder: it has no {path.name}. Give the folder that "
            "`marl-td train --out` wrote."
        )
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"'{path}' has {path.stat().st_size} bytes; settings have at most {MAX_BYTES}."
        )
    try:
        data = PlainLoader(path.read_text(encoding="utf-8")).get_single_data()
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # ValueError: bytes, dates, numbers
        reason = " ".join(str(error).split())
        raise ValueError(f"'{path}' is not YAML that can be read safely: {reason}") from error
    except RecursionError:
        raise ValueError(f"'{path}' is nested too deeply to be settings.") from None
    missing = sorted(set(needed) - set(data)) if isinstance(data, dict) else sorted(needed)
    if missing:
        raise ValueError(
            f"'{path}' lacks {', '.join(missing)}; it is not a run's {path.name}{written_by(data)}."
        )
    _check_plain(data, path, ())
    for name, kind in needed.items():
        check_type(f"'{path}': {name}", data[name], kind)
    return dict(data)


def written_by(data: Any) -> str:
    """A remark on which version of marl_td wrote the file, where it says another one; else empty."""
    version = data.get("marl_td") if isinstance(data, dict) else None
    if not isinstance(version, str) or version == marl_td.__version__:
        return ""
    return f" (marl_td {version[:40]} wrote it, this is {marl_td.__version__})"


def _check_plain(value: Any, path: Path, place: tuple[str, ...]) -> None:
    where = ".".join(place) or "the file"
    if len(place) > DEEPEST:
        raise ValueError(f"'{path}' is nested too deeply to be settings.")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise ValueError(f"'{path}': {where} has the key {shown(key)}, which is no name.")
            if key in CALLS:
                raise ValueError(
                    f"'{path}': {where} has '{key}', which asks for something to be imported and called; no "
                    "settings file is obeyed in that."
                )
            _check_plain(item, path, (*place, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(item, path, (*place, str(index)))
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise ValueError(
            f"'{path}': {where} is a {type(value).__name__}; settings are numbers, text, lists."
        )


def build(cls: type[Any], values: Mapping[str, Any], path: Path) -> Any:
    """The dataclass ``cls`` with ``values`` of the file at ``path``; its own checks of ranges run.

    Raises:
        ValueError: naming the entry that it does not have, or whose type is wrong.
    """
    check_types(cls, values, path)
    hints = field_types(cls)
    try:
        return cls(**{name: as_member(value, hints[name]) for name, value in values.items()})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"'{path}' does not fit {cls.__name__}: {error}.") from error


def check_types(cls: type[Any], values: Mapping[str, Any], path: Path) -> None:
    """Check names and types of ``values`` against the fields of a dataclass.

    Raises:
        ValueError: naming the first entry that does not fit.
    """
    known = {field.name for field in dataclasses.fields(cls) if field.init}
    hints = field_types(cls)
    for key, value in values.items():
        if key not in known:
            raise ValueError(
                f"'{path}' sets '{key}', which {cls.__name__} does not have. {suggest(str(key), known)}"
            )
        check_type(f"'{path}': {key}", value, hints[key])


def layer_class(name: str) -> type[torch.nn.Module]:
    """The layer class of a dotted name below one of ``LAYERS``; nothing else is imported for it.

    Raises:
        ValueError: for any other name: a settings file must not make us import and call things; or if its
            package is not installed.
    """
    package = next((known for known in LAYERS if name.startswith(f"{known}.")), "torch.nn")
    try:
        found: Any = importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"the model's class '{name}' needs a package: {error}.") from error
    inside = name.startswith(f"{package}.")
    for part in name.removeprefix(f"{package}.").split("."):
        found = getattr(found, part, None)
    if not (inside and isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ValueError(
            f"a model's classes must be layers of {' or '.join(LAYERS)}; got '{name}'."
        )
    return found


def require_room(model: Any, task_config: Mapping[str, Any], weights: int, path: Path) -> None:
    """Refuse sizes in a settings file that its weights cannot have, before anything is built with them.

    Args:
        model: configuration of the networks that act.
        task_config: settings of the task.
        weights: bytes of the file with the weights; every number takes at least one.
        path: the settings file.

    Raises:
        ValueError: naming the size.
    """
    for layer in getattr(model, "model_configs", [model]):
        for name, value in vars(layer).items():
            sizes = list(value) if isinstance(value, list | tuple) else [value]
            if not sizes or not all(isinstance(size, int) for size in sizes):
                continue
            least = max(*sizes, 0, *(a * b for a, b in itertools.pairwise(sizes)))
            if least > weights:
                raise ValueError(
                    f"'{path}': networks with {name} = {shown(value)} have at least {least} numbers; the "
                    f"file with the weights has {weights} bytes."
                )
    for name, value in task_config.items():
        if isinstance(value, int) and value > LARGEST:
            raise ValueError(
                f"'{path}': {name} is {shown(value)}; settings from a file go up to {LARGEST}."
            )
