"""Stored inputs with what the training policy made of them, and how far an actor's outputs are from that."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marl_td.deploy.format import GOLDEN, MAX_FILE, BundleError
from marl_td.deploy.signature import AgentSignature, Array

TOLERANCE = 1e-5
"""Largest difference to the training policy's outputs."""


def read_arrays(data: bytes, path: Path) -> dict[str, Array]:
    """The arrays in an ``.npz`` file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_FILE:
                raise BundleError(f"'{path}' unpacks to more than {MAX_FILE} bytes.")
            for info in archive.infolist():
                _check_array(archive, info)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"'{path}' holds no plain arrays: {error}") from error


def _check_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Raise ``ValueError`` unless an array is as large as its header says: room is made by the header."""
    with archive.open(info) as entry:
        version = np.lib.format.read_magic(entry)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in read:
            raise ValueError(f"{info.filename} has the format {version}")
        shape, _, dtype = read[version](entry)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} is not an array of numbers, or is not whole")


def replay(
    agent: str, signature: AgentSignature, session: Any, golden: Mapping[str, Array]
) -> float:
    """Largest difference of one agent's outputs to the stored ones.

    Raises:
        BundleError: if it is above the tolerance, or there are none.
    """
    names = [entry.name for entry in signature.inputs]
    keys = [f"{agent}/in/{name}" for name in names]
    keys += [f"{agent}/out/{name}" for name in signature.outputs]
    lacking = [key for key in keys if key not in golden]
    if lacking:
        raise BundleError(f"{GOLDEN} has no {', '.join(lacking)}.")
    expected = {name: golden[f"{agent}/out/{name}"] for name in signature.outputs}
    try:
        found = session.run(list(expected), {name: golden[f"{agent}/in/{name}"] for name in names})
    except Exception as error:  # onnxruntime's errors have no common class
        raise BundleError(
            f"the inputs of agent '{agent}' in {GOLDEN} do not fit: {error}"
        ) from error
    worst = largest_difference(dict(zip(expected, found, strict=True)), expected)
    if not worst <= TOLERANCE:
        raise BundleError(
            f"the actor of agent '{agent}' differs by {worst:.3g} from what the training policy gave for the "
            f"inputs in {GOLDEN} (at most {TOLERANCE:g})."
        )
    return worst


def largest_difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Largest absolute difference of outputs by name, relative where the expected number is above 1.

    A discrete action that differs counts by how much worse its score is: of two equal scores either is best.
    What cannot be compared (another shape, not a number) is infinitely far.
    """
    worst = 0.0
    for name, value in expected.items():
        got, want = np.asarray(found[name]), np.asarray(value)
        if got.shape != want.shape:
            return float("inf")
        if name == "action" and "scores" in expected:
            scores = np.asarray(expected["scores"], dtype=np.float64)
            if not ((want >= 0) & (want < scores.shape[-1])).all():
                return float("inf")
            got, want = (np.take_along_axis(scores, a[..., None], -1) for a in (got, want))
        want = want.astype(np.float64)
        gap = np.abs(got.astype(np.float64) - want) / np.maximum(np.abs(want), 1.0)
        if not np.isfinite(gap).all():
            return float("inf")
        worst = max(worst, float(gap.max(initial=0.0)))
    return worst
