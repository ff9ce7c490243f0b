"""What an error looks like on the command line: one sentence for bad input, a traceback for a bug."""

from __future__ import annotations

import dis
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marl_td.training.stopping import RunStopped

BAD_INPUT = 2
FAILURE = 1

_OURS = ("marl_td", "benchmarl")
_INPUT_ERRORS = (ValueError, ImportError)
"""What code of ours raises for bad input and missing packages."""
_STOPS = (FloatingPointError, RunStopped)
"""What it raises where a run cannot go on."""


def report_error(error: Exception, debug: bool) -> int:
    """Print ``error`` on stderr and return the exit code.

    Bad input is an error that this package (or BenchMARL's checks of settings) raised in its own words, or
    a user's own task about its parameters; the same type of error from inside a library is a bug, and keeps
    its traceback.
    """
    task = _own_task(error)
    own_words = task is not None or _raised_by_us(error)
    if debug or not own_words:
        traceback.print_exception(error)
    else:
        where = "" if task is None else f"task '{task}': "
        print(f"marl-td: error: {where}{one_line(error)}", file=sys.stderr)
    return BAD_INPUT if own_words and isinstance(error, _INPUT_ERRORS) else FAILURE


def one_line(error: Exception) -> str:
    """The message on one line."""
    return " ".join(str(error).split())


def _own_task(error: Exception) -> str | None:
    """Name of the user's task that raised this ``ValueError`` when it was made with its parameters."""
    registry = sys.modules.get("marl_td.tasks.registry")  # without it there are no tasks
    if registry is None or not isinstance(error, ValueError):
        return None
    tasks = {name: cls for name, cls in registry.TASKS.items() if "/" in name}
    for cls, name in _made_in(error, tasks):
        if _is_in_words_of(error, cls):
            return name
    return None


def _made_in(error: Exception, tasks: dict[str, Any]) -> Iterator[tuple[type, str]]:
    """The tasks or their parameters that were just being made, and the names of the tasks."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name in ("__init__", "__post_init__"):
            made = type(frame.f_locals.get("self"))
            yield from ((made, name) for name, cls in tasks.items() if made in (cls, cls.Params))


def _is_in_words_of(error: Exception, cls: type) -> bool:
    """Whether a ``raise`` of the package of ``cls`` made the error, or one of ours that it called."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    code = last.tb_frame.f_code
    # A function in C that refused its arguments, such as int("x"), has no frame of its own.
    is_raise = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    package = last.tb_frame.f_globals["__name__"].partition(".")[0]
    return is_raise and package in ("marl_td", cls.__module__.partition(".")[0])


def _raised_by_us(error: Exception) -> bool:
    if not isinstance(error, (*_INPUT_ERRORS, *_STOPS)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _package(frames[-1].filename) in _OURS


def _package(filename: str) -> str:
    """The top-level package that a source file belongs to, ours under either of its real folders."""
    import marl_td

    path = Path(filename).resolve()
    package = Path(marl_td.__file__).resolve().parent
    folders = (package, (package / "tasks").resolve(), (package / "losses").resolve())
    if any(path.is_relative_to(folder) for folder in folders):
        return "marl_td"
    return "benchmarl" if "benchmarl" in path.parts else ""
