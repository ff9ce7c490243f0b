"""What an error looks like on the command line: one sentence for bad input, a traceback for a bug."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

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

    Bad input is an error that this package (or BenchMARL's checks of settings) raised in its own words;
    the same type of error from inside a library is a bug, and keeps its traceback.
    """
    own_words = _raised_by_us(error)
    if debug or not own_words:
        traceback.print_exception(error)
    else:
        print(f"marl-td: error: {one_line(error)}", file=sys.stderr)
    return BAD_INPUT if own_words and isinstance(error, _INPUT_ERRORS) else FAILURE


def one_line(error: Exception) -> str:
    """The message on one line."""
    return " ".join(str(error).split())


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
