"""Environments of users, named by an import path such as ``"my_package.my_env:make"``.

Importing runs code. Callers pass paths that the user gave, never one that a file named.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pettingzoo.utils.env import AECEnv, ParallelEnv

from marl_td.tasks.adapters.pettingzoo import as_parallel
from marl_td.tasks.registry import suggest

FORM = "write it as package.module:function, such as my_env:make"


def env_factory(path: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    """A function that builds the PettingZoo environment at ``path``, each time a new one.

    Modules are found as in Python, and in the current folder besides.

    Args:
        path: ``"package.module:name"`` of a function or class that returns the environment.
        options: its keyword arguments.

    Raises:
        ValueError: in one sentence, if nothing can be imported from ``path``, it takes no such
            arguments, building fails, or what it builds is no PettingZoo environment.
    """
    build = _imported(path)
    _check_arguments(path, build, options)

    def make() -> Any:
        called = f"{path}({', '.join(f'{key}={value!r}' for key, value in options.items())})"
        try:
            env = build(**options)
        except Exception as error:
            raise ValueError(f"building the environment {called} failed: {_told(error)}") from error
        if not isinstance(env, AECEnv | ParallelEnv):
            raise ValueError(
                f"{called} gave a {type(env).__module__}.{type(env).__qualname__}, not a PettingZoo "
                "environment; it must return an instance of pettingzoo.ParallelEnv."
            )
        return as_parallel(env)

    return make


def _imported(path: str) -> Callable[..., Any]:
    """The function or class at ``path``."""
    if not path:
        raise ValueError(f"no environment was given in task.env; {FORM}.")
    name, colon, attribute = path.partition(":")
    words = [*name.split("."), *attribute.split(".")]
    if not colon or not all(word.isidentifier() for word in words):
        raise ValueError(f"task.env '{path}' is not an import path; {FORM}.")
    found: Any = import_user_module(name, f"task.env '{path}'")
    for word in attribute.split("."):
        if not hasattr(found, word):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise ValueError(
                f"task.env '{path}': '{name}' has no '{word}'. {suggest(word, public)}"
            )
        found = getattr(found, word)
    if not callable(found):
        raise ValueError(
            f"task.env '{path}' is of type {type(found).__name__}, not a function or class that builds "
            "the environment; give one, so that several copies can be made."
        )
    return found


def import_user_module(name: str, asked: str) -> ModuleType:
    """The module ``name`` of the user's, found as in Python, and in the current folder besides.

    Args:
        name: with dots, such as ``"package.module"``.
        asked: who asks for it, which is how messages begin.

    Raises:
        ValueError: in one sentence, if there is none, or if importing it fails.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # as `python -m` does; a script does not
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise ValueError(
                f"{asked}: there is no module '{missing}' in the current folder or in this "
                "Python environment."
            ) from error
        raise ValueError(
            f"{asked}: '{name}' needs the module '{missing}', which is not installed."
        ) from error
    except Exception as error:
        raise ValueError(f"{asked}: importing '{name}' failed: {_told(error)}") from error


def _check_arguments(path: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse arguments that the function does not have, as far as its signature tells."""
    try:
        signature = inspect.signature(build)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    known = list(signature.parameters)
    for name in options:
        if name not in known and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise ValueError(f"task.options: '{path}' takes no '{name}'. {suggest(name, known)}")
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ValueError(
            f"task.options does not fit '{path}{signature}': {error}; give its arguments as "
            "task.options.NAME=VALUE."
        ) from error


def _told(error: Exception) -> str:
    """Type, message and place of somebody else's error, on one line."""
    message = " ".join(str(error).split()) or "no message"
    frames = traceback.extract_tb(error.__traceback__)
    line = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
    if isinstance(error, SyntaxError):  # its own message has the place
        line = ""
    return f"{type(error).__name__}: {message.rstrip('.')}{line}."
