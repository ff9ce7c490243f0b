"""Order and place of a few numbers as comparisons, which a compiled step does in the loops it has anyway.

The library's sorts and running totals are calls of their own, which take longer than the rest of a small
task's step, and its ``one_hot`` looks at all values first.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 64
"""Numbers up to which each is compared with all others; beyond, the library is faster."""
VERY_FEW = 16
"""The same for running totals and the smallest few, which the library makes in one go."""


def one_hot(index: Tensor, n: int) -> Tensor:
    """Rows of zeros with a one: ``[*B, n]`` float32 of ``[*B]`` indices; out of range all are zero."""
    return (index.unsqueeze(-1) == torch.arange(n, device=index.device)).to(torch.float32)


def ranks(value: Tensor) -> Tensor:
    """How many are smaller than each, or as large and before it: ``[*B, n]`` int64 of ``[*B, n]``."""
    n = value.shape[-1]
    if n > FEW:
        return value.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
    place = torch.arange(n, device=value.device)
    own, other = value.unsqueeze(-1), value.unsqueeze(-2)
    before = (other < own) | ((other == own) & (place < place.unsqueeze(-1)))
    return before.float().sum(-1).long()


def argsort(value: Tensor) -> Tensor:
    """Indices from the smallest to the largest, of equal ones the first first: ``[*B, n]`` int64."""
    n = value.shape[-1]
    if n > FEW:
        return value.argsort(dim=-1, stable=True)
    place = torch.arange(n, device=value.device).expand(value.shape)
    # NaNs share a place and leave gaps, which must be indices, too.
    return torch.zeros_like(place).scatter(-1, ranks(value), place)


def smallest(value: Tensor, k: int) -> Tensor:
    """Indices of the ``k`` smallest, from the smallest on: ``[*B, k]`` int64 of ``[*B, n]``."""
    if k == 1:
        return value.argmin(dim=-1, keepdim=True)
    if value.shape[-1] > VERY_FEW:
        return value.topk(k, dim=-1, largest=False).indices
    return argsort(value)[..., :k]


def running_total(value: Tensor) -> Tensor:
    """``value.cumsum(-1)``, as sums of their own: ``[*B, n]`` of ``[*B, n]``."""
    n = value.shape[-1]
    if n > VERY_FEW:
        return value.cumsum(-1)
    index = torch.arange(n, device=value.device)
    included = index.unsqueeze(-1) <= index
    return torch.where(included, value.unsqueeze(-1), 0).sum(-2, dtype=value.dtype)
