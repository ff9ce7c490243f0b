"""The order of numbers in memory, in which a compiled step is fast."""

from __future__ import annotations

from torch import Tensor


def written(value: Tensor) -> Tensor:
    """``value`` as numbers in memory.

    The CPU's compiler makes what is read at several places anew for each of them. This is for what is read
    by pairs of agents, by a window of cells or in a scattered order, and takes longer to make than to read.
    """
    return value.as_strided(value.shape, value.stride())


def envs_last(value: Tensor) -> Tensor:
    """``value`` ``[n_envs, ...]`` with environments next to each other in memory, for vector instructions."""
    return value.movedim(0, -1).contiguous().movedim(-1, 0)
