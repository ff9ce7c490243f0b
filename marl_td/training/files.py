"""Files that are either the old version or the new one, never something in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

_TEMPORARY = ".tmp-"


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; a crash at any moment leaves the old file or the new one."""
    replace_atomic(path, lambda file: file.write(content))


def save_atomic(path: Path, state: Any) -> None:
    """``torch.save`` to ``path``; a crash at any moment leaves the old file or the new one."""
    replace_atomic(path, lambda file: torch.save(state, file))


def replace_atomic(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, then rename it."""
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (POSIX only; Windows has no such call)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed run left in ``folder``."""
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        leftover.unlink(missing_ok=True)
