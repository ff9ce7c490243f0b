"""One checkpoint: a folder that is there whole or not at all, and says if it was damaged.

``checkpoints/checkpoint_<frames>/`` is written under another name, flushed to the disk and then renamed. Its
``manifest.json`` holds size and SHA-256 of every other file, and a digest of itself. What is loaded is read
once: the bytes that were checked are the bytes that are used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchrl
from torch import Tensor

import marl_td
from marl_td.training.files import flush_folder, write_flushed
from marl_td.training.tensor_files import pack, parse_tensors, tensor_bytes, unpack

FORMAT = 2
MANIFEST_FILE = "manifest.json"
STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
_LARGEST_MANIFEST = 4 * 1024 * 1024


class Damaged(ValueError):
    """A checkpoint that cannot be used; the message names it, the file and what is wrong."""


@dataclass(frozen=True)
class Summary:
    """What a checkpoint's manifest says of it beside its files."""

    frames: int
    iteration: int
    score: float | None
    """Mean score or return of the latest evaluation; None if there was none."""


class Checkpoint:
    """A checkpoint on the disk, whose files are checked as they are read.

    Args:
        folder: the checkpoint's folder.

    Raises:
        Damaged: if its manifest cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = _read_manifest(folder)
        self.files: dict[str, dict[str, Any]] = manifest["files"]
        self.summary = Summary(manifest["frames"], manifest["iteration"], manifest["score"])
        self.versions: dict[str, str] = manifest["versions"]

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            Damaged: if it is missing, or not what was written.
        """
        expected, path = self.files.get(name), self.folder / name
        if expected is None:
            raise Damaged(f"checkpoint '{self.folder}' has no file {name}.")
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise Damaged(
                    f"checkpoint '{self.folder}' is damaged: {name} has {size} bytes, {expected['bytes']} "
                    "were written."
                )
            content = path.read_bytes()
        except OSError as error:
            raise Damaged(
                f"checkpoint '{self.folder}' is damaged: {name} cannot be read ({error.strerror})."
            ) from error
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise Damaged(
                f"checkpoint '{self.folder}' is damaged: {name} is not what was written (SHA-256)."
            )
        return content

    def state(self) -> Any:
        """The nest of tensors and values that was saved.

        Raises:
            Damaged: naming the file.
        """
        try:
            packed = json.loads(self.read(STATE_FILE))
            return unpack(packed, self.tensors(TENSORS_FILE), self.folder / STATE_FILE)
        except (ValueError, RecursionError) as error:
            raise _damaged(error, self.folder) from error

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file of the checkpoint."""
        try:
            return parse_tensors(self.read(name), self.folder / name)
        except ValueError as error:
            raise _damaged(error, self.folder) from error

    def check(self) -> None:
        """Read everything; raises ``Damaged`` for the first file that is not what was written."""
        for name in self.files:
            self.read(name)


def _damaged(error: Exception, folder: Path) -> Damaged:
    return error if isinstance(error, Damaged) else Damaged(f"checkpoint '{folder}': {error}")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        content = path.read_bytes()
        manifest = json.loads(content)
        del manifest["digest"]
        if content != manifest_bytes(manifest):
            raise ValueError("it is not what was written (SHA-256)")
        if type(manifest["format"]) is not int or manifest["format"] == FORMAT:
            _check_form(manifest)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Damaged(
            f"checkpoint '{folder}' is damaged: {MANIFEST_FILE} cannot be used ({error})."
        ) from error
    if manifest["format"] != FORMAT:
        versions = manifest.get("versions")
        version = versions.get("marl_td") if isinstance(versions, dict) else "of an unknown version"
        raise Damaged(
            f"checkpoint '{folder}' has format {manifest['format']}, this version of marl_td reads {FORMAT}; "
            f"it was written by marl_td {version}."
        )
    for name in manifest["files"]:
        if Path(name).name != name or name in ("", ".", ".."):
            raise Damaged(f"checkpoint '{folder}' lists '{name}', which is not a plain file name.")
    return dict(manifest)


def _check_form(manifest: dict[str, Any]) -> None:
    """Raise ``ValueError`` for an entry of a type that is never written: anybody can make a digest."""
    score = manifest["score"]
    kinds = {"format": int, "frames": int, "iteration": int, "files": dict, "versions": dict}
    wrong = [name for name, kind in kinds.items() if type(manifest[name]) is not kind]
    wrong += [name for name in ("frames", "iteration") if name not in wrong and manifest[name] < 0]
    if score is not None and not isinstance(score, float):
        wrong.append("score")
    for name, entry in manifest["files"].items() if "files" not in wrong else ():
        sizes = entry.get("bytes") if isinstance(entry, dict) else None
        if not isinstance(sizes, int) or not isinstance(entry.get("sha256"), str):
            wrong.append(f"the entry of {name}")
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: of another form than is written")


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The content of a manifest's file, with the digest that says whether it was changed."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "digest": digest}, indent=1).encode()


class NewCheckpoint:
    """A checkpoint that is being written: files are added, then it is published or abandoned.

    Args:
        folder: its temporary folder, made here.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.files: dict[str, dict[str, Any]] = {}

    def add(self, name: str, content: bytes) -> None:
        """Write a file and flush it to the disk."""
        (self.folder / name).unlink(missing_ok=True)  # never into what an earlier one shares
        write_flushed(self.folder / name, content)
        self.files[name] = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    def add_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write tensors as safetensors."""
        self.add(name, tensor_bytes(tensors))

    def add_state(self, state: Any) -> None:
        """Write a nest of tensors and plain values."""
        packed, tensors = pack(state)
        self.add_tensors(TENSORS_FILE, tensors)
        self.add(STATE_FILE, json.dumps(packed).encode())

    def share(self, other: Checkpoint, name: str) -> None:
        """Take over a file of an earlier checkpoint, without a copy where the disk can do that."""
        source = other.folder / name
        if source.stat().st_size != other.files[name]["bytes"]:
            raise OSError(errno.EIO, f"'{source}' was changed")
        try:
            os.link(source, self.folder / name)
        except OSError:  # a file system without hard links
            self.add(name, other.read(name))
        self.files[name] = dict(other.files[name])

    def finish(self, summary: Summary) -> None:
        """Write the manifest: from here on the folder is whole."""
        versions = {
            "marl_td": marl_td.__version__,
            "torch": torch.__version__,
            "torchrl": torchrl.__version__,
        }
        manifest = {
            "format": FORMAT,
            "frames": summary.frames,
            "iteration": summary.iteration,
            "score": summary.score,
            "versions": versions,
            "files": self.files,
        }
        write_flushed(self.folder / MANIFEST_FILE, manifest_bytes(manifest))
        flush_folder(self.folder)
