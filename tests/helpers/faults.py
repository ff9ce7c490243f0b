"""Faults on purpose: the n-th file operation of a run fails, kills the process, or is where the power goes.

Counted are opening for writing, every write (half of it is done then), flushing, renaming, linking, making
and removing, of files and folders below one folder.
"""

import errno
import io
import os
import random
import signal
from contextlib import contextmanager
from pathlib import Path

NAMES = ("fsync", "replace", "rename", "link", "mkdir", "unlink", "rmdir")


class PowerLoss:
    """Knows what has reached the disk, and takes the rest away."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.safe = {}  # path to the number of bytes that are flushed
        self.renames = []  # not yet flushed: (from, to, what was there before)

    def opened(self, path, mode):
        size = path.stat().st_size if path.exists() and "a" in mode else 0
        if "r" not in mode:
            self.safe.setdefault(str(path), size) if "a" in mode else self.safe.update(
                {str(path): 0}
            )

    def flushed(self, path):
        if path.is_dir():
            self.renames = [item for item in self.renames if item[1].parent != path]
        elif path.exists():
            self.safe[str(path)] = path.stat().st_size

    def renamed(self, source, target, before):
        for name in list(self.safe):
            if name == str(source) or name.startswith(f"{source}/"):
                self.safe[str(target) + name.removeprefix(str(source))] = self.safe.pop(name)
        self.renames.append((source, target, before))

    def strike(self):
        for source, target, before in reversed(self.renames):
            if target.exists() and self.random.random() < 0.5:
                os.rename(target, source)
                if before is not None:
                    target.write_bytes(before)
        for name, safe in self.safe.items():
            path = Path(name)
            if path.is_file() and path.stat().st_size > safe:
                os.truncate(path, self.random.randint(safe, path.stat().st_size))


class FileFaults:
    """Counts file operations below ``folder``; the one with number ``at`` goes wrong.

    Args:
        folder: what is watched.
        at: number of the operation, from 1; 0 only counts.
        kind: "full" (no space left, from then on), "kill" (SIGKILL), "power" (SIGKILL, and what was not
            flushed is lost).
        seed: of what a power loss leaves.
    """

    def __init__(self, folder, at=0, kind="full", seed=0):
        self.folder = str(Path(folder).resolve())
        self.at = at
        self.kind = kind
        self.count = 0
        self.power = PowerLoss(seed)
        self._real = {name: getattr(os, name) for name in NAMES}
        self._open = io.open
        self._busy = False

    @contextmanager
    def active(self):
        try:
            for name in NAMES:
                setattr(os, name, self._wrapped(name))
            io.open = self._opening
            yield self
        finally:
            self._restore()

    def _restore(self):
        for name, real in self._real.items():
            setattr(os, name, real)
        io.open = self._open

    def point(self, half=lambda: None):
        """A place where things may go wrong; ``half`` does half of what was to be done."""
        self.count += 1
        failing = self.kind == "full" and self.at and self.count >= self.at
        if self.count != self.at and not failing:
            return
        half()
        if self.kind == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        self._restore()
        if self.kind == "power":
            self.power.strike()
        os.kill(os.getpid(), signal.SIGKILL)

    def _watched(self, path):
        return str(path).startswith(self.folder)

    def _wrapped(self, name):
        real = self._real[name]

        def call(*args, **kwargs):
            path = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else args[0]
            if kwargs.get("dir_fd") is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{kwargs['dir_fd']}"), path)
            path = Path(os.path.abspath(path))
            if not self._watched(path):
                return real(*args, **kwargs)
            if name not in ("unlink", "rmdir") or self.kind != "full":
                self.point()  # a full disk can still be cleared
            if name in ("replace", "rename"):
                target = Path(os.path.abspath(args[1]))
                before = target.read_bytes() if target.is_file() else None
                out = real(*args, **kwargs)
                self.power.renamed(path, target, before)
                return out
            out = real(*args, **kwargs)
            if name == "fsync":
                self.power.flushed(path)
            return out

        return call

    def _opening(self, file, mode="r", *args, **kwargs):
        writes = any(letter in mode for letter in "wax+")
        if (
            not writes
            or not isinstance(file, str | Path)
            or not self._watched(Path(file).resolve())
        ):
            return self._open(file, mode, *args, **kwargs)
        self.point()
        self.power.opened(Path(file).resolve(), mode)
        opened = self._open(file, mode, *args, **kwargs)
        return _Watched(opened, self)


class _Watched:
    """A file whose writes are counted."""

    def __init__(self, file, faults):
        self.file = file
        self.faults = faults

    def write(self, content):
        def half():
            self.file.write(content[: len(content) // 2])
            self.file.flush()

        self.faults.point(half)
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)


def flip(path, seed):
    """Flip one random bit of a file."""
    content = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.unlink()  # a hard link elsewhere keeps its content
    path.write_bytes(bytes(content))
