"""What names that there are not could have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl_td.tasks.registry import suggest
from marl_td.training.settings import or_own


def closest(name: str, known: Iterable[str]) -> str:
    """A sentence with the names most like ``name``, those of the same library only; empty if none is."""
    library, _, leaf = name.rpartition("/")
    alike = {word.rpartition("/")[2]: word for word in known if word.rpartition("/")[0] == library}
    found = [f"'{alike[word]}'" for word in difflib.get_close_matches(leaf, alike, n=2)]
    return f"Did you mean {' or '.join(found)}?" if found else ""


def elsewhere(name: str, kind: str, known: Iterable[str]) -> str:
    """Where there are names, if none is like ``name``."""
    library = name.rpartition("/")[0]
    if library and not any(word.startswith(f"{library}/") for word in known):
        return or_own(name, known)
    return f"`marl-td list {kind}s` shows the names."


def check_one_value(name: str, value: str) -> None:
    """Refuse ``name=a,b``, which to Hydra are two runs.

    Raises:
        ValueError: saying how to start several runs.
    """
    if "," in value and value[0] not in "[{('\"":
        short, each = name.rpartition(".")[2], value.replace(",", " ")
        raise ValueError(
            f"'{name}={value}' names several values, but this is one run; start one for each in a loop of "
            f"your shell (docs/comparing.md), such as: for {short} in {each}; do ...; done. "
            "(A list is written [a,b].)"
        )


def known_fields(field: str, sample: DictConfig | None) -> str:
    """The fields beside the one that does not exist; those of its name in any part, if it names no part."""
    parent, _, leaf = field.rpartition(".")
    node: Any = sample
    if sample is not None and parent:
        node = OmegaConf.select(sample, parent, throw_on_missing=False)
    if isinstance(node, DictConfig) and not parent:
        parts = {str(name): part for name, part in node.items() if isinstance(part, DictConfig)}
        found = [f"'{name}.{leaf}'" for name, part in parts.items() if leaf in part]
        found = found or near_fields(leaf, parts)
        if found:
            return f"Did you mean {' or '.join(found)}?"
    known = [str(key) for key in node] if isinstance(node, DictConfig) else []
    return suggest(leaf, known) if known else "Check its spelling."


def near_fields(name: str, parts: Mapping[Any, Any]) -> list[str]:
    """The two fields of all parts of the settings that are most like ``name``, quoted and with their part."""
    leaves = {str(key): part for part, fields in parts.items() for key in fields}
    return [
        f"'{leaves[leaf]}.{leaf}'"
        for leaf in difflib.get_close_matches(name, leaves, 2, cutoff=0.8)
    ]
