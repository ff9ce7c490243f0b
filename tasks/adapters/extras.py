"""Packages that are not a core dependency: import them, or say in one sentence how to get them."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType


def import_extra(module: str, extra: str) -> ModuleType:
    """Import ``module``, which the extra ``extra`` of this package installs.

    Raises:
        ImportError: if its package is not installed; the message names the extra.
    """
    package = module.split(".")[0]
    if find_spec(package) is None:
        raise ImportError(
            f"this needs the package '{package}', which is not installed; "
            f"get it with: pip install 'marl-td[{extra}]'"
        )
    return importlib.import_module(module)
