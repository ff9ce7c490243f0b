"""Random streams of the process: set aside, and put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from marl_td.tasks.random_state import pack_numpy, pack_python, unpack_numpy, unpack_python


@contextmanager
def isolated_rng(seed: int | None = None) -> Iterator[None]:
    """Put every global random stream back as it was, whatever the body draws.

    Covers torch (CPU and every CUDA device in use), NumPy, Python, and the one stream that all VMAS
    environments of a process share. An environment of ours owns its generator and needs none of it.

    Args:
        seed: seeds the global streams of the body; None lets the body go on from where they are.
    """
    state = global_streams()
    try:
        if seed is not None:
            _seed(seed)
        yield
    finally:
        put_back(state)


def rng_snapshot() -> dict[str, Any]:
    """Where every global random stream is, as tensors and numbers (see :func:`isolated_rng`)."""
    state = global_streams()
    vmas = state["vmas"]
    if vmas is not None:
        vmas = [vmas[0], pack_numpy(vmas[1]), pack_python(vmas[2])]
    return {
        "torch": state["torch"],
        "cuda": state["cuda"],
        "numpy": pack_numpy(state["numpy"]),
        "python": pack_python(state["python"]),
        "vmas": vmas,
    }


def rng_restore(state: dict[str, Any]) -> None:
    """Let every global random stream go on from what :func:`rng_snapshot` gave."""
    vmas = state["vmas"]
    if vmas is not None:
        vmas = [vmas[0], unpack_numpy(vmas[1]), unpack_python(vmas[2])]
    plain = {"numpy": unpack_numpy(state["numpy"]), "python": unpack_python(state["python"])}
    put_back({**state, **plain, "vmas": vmas})


def _vmas_stream() -> list[Any] | None:
    """The list in which VMAS keeps its stream (a class attribute), if VMAS is loaded."""
    module = sys.modules.get("vmas.simulator.environment.environment")
    return None if module is None else module.Environment.vmas_random_state


def torch_streams() -> dict[str, Any]:
    """Where torch's global random streams are, for :func:`put_back_torch`.

    A compiled graph draws from no other, and the others take as long to read as a small task's step.
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
    }


def put_back_torch(state: dict[str, Any]) -> None:
    """Let torch's global random streams go on from what :func:`torch_streams` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def global_streams() -> dict[str, Any]:
    """Where every global random stream is, for :func:`put_back` in this process."""
    vmas = _vmas_stream()
    return {
        **torch_streams(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the stream that others use
        "python": random.getstate(),
        "vmas": None if vmas is None else list(vmas),
    }


def put_back(state: dict[str, Any]) -> None:
    """Let every global random stream go on from what :func:`global_streams` gave."""
    put_back_torch(state)
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])
    vmas = _vmas_stream()
    if vmas is not None and state["vmas"] is not None:
        vmas[:] = state["vmas"]


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
