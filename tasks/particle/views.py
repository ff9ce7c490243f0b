"""What the bodies of a particle world see of each other, as rows of numbers.

Environments are last, as in :mod:`marl_td.tasks.particle.physics`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def without_itself(pairs: Tensor) -> Tensor:
    """``pairs`` ``[d, n, n, n_envs]`` without the diagonal, ``[d, n, n - 1, n_envs]``, in order.

    Row i has the columns before i, then those after it. Choosing between two slices, instead of
    an index, keeps the compiled loops plain.
    """
    place = torch.arange(pairs.shape[1], device=pairs.device)
    after = place[:-1] >= place.unsqueeze(-1)
    return torch.where(after.unsqueeze(-1), pairs[:, :, 1:], pairs[:, :, :-1])


def columns(pairs: Tensor) -> Tensor:
    """``[2, n, m, n_envs]`` as ``[2 m, n, n_envs]``: x and y of each of the m in turn."""
    return pairs.permute(2, 0, 1, 3).flatten(0, 1)
