"""Whether the weights of a bundle are finite; safetensors is read without its package, which acting lacks."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from marl_td.deploy.format import ACTORS, BundleError, BundleFiles, checked_bytes
from marl_td.deploy.signature import Array

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types that can hold something else than a number; whole numbers and booleans cannot."""


def require_finite_weights(files: BundleFiles) -> None:
    """Check every ``actors/NAME.safetensors`` that the bundle lists.

    Raises:
        BundleError: naming the file and the first tensor that is not finite.
    """
    for name, entry in files.manifest["files"].items():
        if name.startswith(f"{ACTORS}/") and name.endswith(".safetensors"):
            path = files.folder / name
            for tensor, values in _tensors(checked_bytes(files.folder, name, entry), path):
                if not np.isfinite(values).all():
                    raise BundleError(
                        f"'{path}' holds numbers that are not finite in '{tensor}': training went wrong "
                        "before the export. Train again, then export."
                    )


def _tensors(data: bytes, path: Path) -> Iterator[tuple[str, Array]]:
    """Names and values of the tensors of floats in a file."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        start = 8 + length
        if start > len(data):
            raise ValueError("it ends before its header does")
        header = json.loads(data[8:start])
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            if not 0 <= first <= last <= len(data) - start:
                raise ValueError(f"'{name}' lies outside of it")
            kind = entry["dtype"]
            if kind not in FLOATS:
                continue
            values = np.frombuffer(data[start + first : start + last], FLOATS[kind])
            if values.size != math.prod(entry["shape"]):
                raise ValueError(f"'{name}' has another size than its shape says")
            if kind == "BF16":  # the upper half of a float32
                values = (values.astype(np.uint32) << 16).view(np.float32)
            yield name, values
    except (
        struct.error,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise BundleError(
            f"'{path}' is not a whole safetensors file ({error}); export the run again."
        ) from error
