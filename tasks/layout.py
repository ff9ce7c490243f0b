"""The order of numbers in memory, in which a compiled step is fast."""

from __future__ import annotations

from torch import Tensor


def envs_last(value: Tensor) -> Tensor:
    """``value`` ``[n_envs, ...]`` with environments next to each other in memory, for vector instructions."""
    return value.movedim(0, -1).contiguous().movedim(-1, 0)
