"""Printing: aligned tables on stdout, notes and progress on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(data: Any) -> None:
    """Print ``data`` as JSON, and nothing else, on stdout."""
    print(json.dumps(data, indent=2))


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns lined up: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def note(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr, flush=True)


def count(text: str) -> int:
    """An argument that must be a whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not '{text}'")
    return value


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    """``--progress`` and ``--no-progress``."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="progress bars on stderr (default: on a terminal only)",
    )


def add_env_option(parser: argparse.ArgumentParser) -> None:
    """``--env``, for commands that read a run's folder."""
    parser.add_argument(
        "--env",
        metavar="MODULE:FUNCTION",
        help="for a run on an environment of yours: its import path again, since no code is imported "
        "because a file in DIR names it",
    )


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """``--import``, for commands that look names up."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module of yours first, which registers tasks, algorithms or networks "
        "(marl_td.extend); may be given several times",
    )


class Steps:
    """Announces what runs now, on stderr, if wanted (or if stderr is a terminal)."""

    def __init__(self, show: bool | None, what: str) -> None:
        self.show = sys.stderr.isatty() if show is None else show
        self.what = what

    def __call__(self, name: str) -> None:
        """Say that ``name`` runs now."""
        if self.show:
            note(f"{self.what}: {name}")
