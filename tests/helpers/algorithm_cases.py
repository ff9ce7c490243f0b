"""Every algorithm with every kind of action that it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from marl_td.registry import ALGORITHMS, action_kinds, algorithm_config

ALGORITHM_KINDS = [
    (name, kind) for name in ALGORITHMS for kind in action_kinds(algorithm_config(name))
]
"""Name of the algorithm, and "continuous" or "discrete"."""


def algorithm_cases(marks: Callable[[str], Sequence[Any]] = lambda title: ()) -> list[Any]:
    """Parameters ``(name, continuous)``.

    Args:
        marks: of a case, from its title such as "qmix-discrete".
    """
    return [
        pytest.param(name, kind == "continuous", id=title, marks=marks(title))
        for name, kind in ALGORITHM_KINDS
        for title in [f"{name}-{kind}"]
    ]
