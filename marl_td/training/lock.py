"""One process at a time trains in a run folder; the lock goes with the process, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """A lock on a folder itself, without a file that could be left behind.

    Args:
        folder: must exist when the lock is taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle: int | None = None

    def take(self) -> None:
        """Hold it until :meth:`release`, or until the process ends.

        Raises:
            ValueError: if another process holds it.
        """
        if fcntl is None or self._handle is not None:
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise ValueError(
                f"another process is training in '{self.folder}'; wait for it, or stop it first."
            ) from error
        except OSError:  # a file system without locks
            os.close(handle)
            return
        self._handle = handle

    def release(self) -> None:
        """Let others take it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def check(self) -> None:
        """Raise as :meth:`take` if another process holds it."""
        self.take()
        self.release()
