"""The files of a bundle: which there are, and that they are what the manifest says.

A bundle is a folder. ``manifest.json`` names every other file with its size and SHA-256; nothing is read that
is not listed, is a link, lies outside of the folder or has other content. Standard library only.

::

    manifest.json       format, versions that made it, licence, the files
    signature.json      what each agent's actor reads and writes
    actors/NAME.onnx  NAME.pt2  NAME.safetensors
    config.yaml         settings of the training run
    evaluation.json     scores of the run's report, or that there is none
    golden.npz          inputs, and what the training policy made of them
    README.md           the card: what it is, licence, provenance, how to use it
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
"""Version of the layout; a reader takes no other."""
KIND = "marl_td policy bundle"
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
ACTORS = "actors"
CONFIG = "config.yaml"
EVALUATION = "evaluation.json"
GOLDEN = "golden.npz"
CARD = "README.md"

NOT_USED = (".pt2", ".safetensors")
"""Files for others: they are checked, but not kept in memory."""

MEBIBYTE = 2**20
MAX_MANIFEST = 4 * MEBIBYTE
MAX_JSON = 16 * MEBIBYTE
MAX_FILE = 1024 * MEBIBYTE
MAX_TOTAL = 4096 * MEBIBYTE
MAX_FILES = 4096
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""A folder's or file's name inside a bundle."""


class BundleError(ValueError):
    """The bundle is not what it should be; the message says which file, and why."""


@dataclass(frozen=True)
class BundleFiles:
    """A bundle whose files have been checked, and the content of those that are used.

    Args:
        folder: where it lies.
        manifest: what ``manifest.json`` says.
        content: path inside the bundle to the bytes that were checked.
    """

    folder: Path
    manifest: dict[str, Any]
    content: dict[str, bytes]

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            BundleError: if the bundle has no such file.
        """
        if name not in self.content:
            raise BundleError(f"the bundle '{self.folder}' has no '{name}'; export it again.")
        return self.content[name]

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file.

        Raises:
            BundleError: if it is missing, too large or none.
        """
        return parse_json(self.read(name), self.folder / name)


def open_bundle(folder: Path) -> BundleFiles:
    """Check every file of the bundle in ``folder``; each is read once, and used as it was checked.

    Raises:
        BundleError: if something is missing, too large, a link, elsewhere or changed.
    """
    manifest = read_manifest(folder)
    content, total = {}, 0
    for name, entry in manifest["files"].items():
        total += entry["size"]
        if total > MAX_TOTAL:
            raise BundleError(
                f"the files of '{folder}' have more than {MAX_TOTAL // MEBIBYTE} MiB."
            )
        data = checked_bytes(folder, name, entry)
        if not name.endswith(NOT_USED):
            content[name] = data
    return BundleFiles(folder, manifest, content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of a bundle, its form checked, the files not yet.

    Raises:
        BundleError: if there is none, or it cannot be used.
    """
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        raise BundleError(
            f"'{folder}' is no bundle: it has no {MANIFEST}. Give the folder that `marl-td export "
            "--out` wrote."
        )
    if path.stat().st_size > MAX_MANIFEST:
        raise BundleError(f"'{path}' is larger than {MAX_MANIFEST // MEBIBYTE} MiB.")
    manifest = parse_json(path.read_bytes(), path)
    if manifest.get("kind") != KIND or manifest.get("format") != FORMAT:
        raise BundleError(
            f"'{path}' says kind '{manifest.get('kind')}', format {manifest.get('format')}; this version "
            f"reads '{KIND}', format {FORMAT}. Export the run again with this version of marl_td."
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not 0 < len(files) <= MAX_FILES:
        raise BundleError(f"'{path}' must list 1 to {MAX_FILES} files under 'files'.")
    for name, entry in files.items():
        _check_listed(path, name, entry)
    return manifest


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The object in ``data``, which was read from ``path``.

    Raises:
        BundleError: if it is too large, not JSON, or not an object.
    """
    if len(data) > MAX_JSON:
        raise BundleError(f"'{path}' is larger than {MAX_JSON // MEBIBYTE} MiB.")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"'{path}' is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BundleError(f"'{path}' must hold a JSON object.")
    return found


def describe_file(data: bytes) -> dict[str, Any]:
    """A file's entry in the manifest."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _check_listed(path: Path, name: str, entry: Any) -> None:
    parts = name.split("/")
    if len(parts) > 2 or not all(PART.fullmatch(part) for part in parts):
        raise BundleError(
            f"'{path}' lists '{name}': a file of a bundle is NAME or FOLDER/NAME, inside the bundle, of "
            "letters, digits and ._- only."
        )
    size, digest = (
        entry.get(key) if isinstance(entry, dict) else None for key in ("size", "sha256")
    )
    if type(size) is not int or not isinstance(digest, str):
        raise BundleError(f"'{path}' must give size and sha256 of '{name}'.")
    if not 0 <= size <= MAX_FILE:
        raise BundleError(
            f"'{path}' says that '{name}' has {size} bytes; at most {MAX_FILE // MEBIBYTE} MiB are read."
        )


def checked_bytes(folder: Path, name: str, entry: dict[str, Any]) -> bytes:
    """The bytes of a listed file.

    Raises:
        BundleError: if it is missing, a link, or not what the manifest says.
    """
    path = folder / name
    for place in (path, *path.parents[: name.count("/")]):
        if place.is_symlink():
            raise BundleError(f"'{place}' is a link; a bundle holds plain files only.")
    if not path.is_file():
        raise BundleError(
            f"'{path}' is missing, though {MANIFEST} lists it. Copy the whole bundle."
        )
    with path.open("rb") as file:
        data = file.read(entry["size"] + 1)
    if len(data) != entry["size"] or describe_file(data) != {
        "size": entry["size"],
        "sha256": entry["sha256"],
    }:
        raise BundleError(
            f"'{path}' is not the file that {MANIFEST} lists (another size or SHA-256): it was changed or "
            "damaged after the export. Copy the bundle again, or export it again."
        )
    return data
