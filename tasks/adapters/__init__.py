"""Environments of others as TorchRL environments in our layout of keys, and our tasks as theirs.

Importing this package loads no third party: each function is fetched from its module when it is
first used (``docs/tasks/adapters.md``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marl_td.tasks.adapters.mpe import alias_mpe, from_mpe
    from marl_td.tasks.adapters.numpy_env import from_numpy
    from marl_td.tasks.adapters.parallel_task import to_pettingzoo
    from marl_td.tasks.adapters.pettingzoo import from_pettingzoo
    from marl_td.tasks.adapters.vmas import from_vmas

_MODULES = {
    "alias_mpe": "mpe",
    "from_mpe": "mpe",
    "from_numpy": "numpy_env",
    "from_pettingzoo": "pettingzoo",
    "from_vmas": "vmas",
    "to_pettingzoo": "parallel_task",
}

__all__ = [
    "alias_mpe",
    "from_mpe",
    "from_numpy",
    "from_pettingzoo",
    "from_vmas",
    "to_pettingzoo",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
