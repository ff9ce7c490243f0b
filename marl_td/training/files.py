"""Files that are either the old version or the new one, never something in between."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

TEMPORARY = ".tmp-"
"""How names of files and folders begin that are not whole yet."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; a crash at any moment leaves the old file or the new one."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        write_flushed(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_flushed(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_file(path: Path) -> None:
    """Wait until what was written to ``path`` earlier is on the disk."""
    if path.exists():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (POSIX only; Windows has no such call)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove temporary files and folders that a killed run left in ``folder``."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
