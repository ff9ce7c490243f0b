"""Priorities of replayed items from the TD errors in them."""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_fraction, check_same_shape


def mean_over_agents(
    td_error: Tensor, counts: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Mean absolute error of the agents that count, and whether any does.

    The losses are means over agents too, so that an item's priority does not depend on the size of the team.

    Args:
        td_error: ``[*B, n_agents]``.
        counts: ``[*B, n_agents]`` bool; None counts all.

    Returns:
        ``[*B]``, 0 where nobody counts; and ``[*B]`` bool, None if ``counts`` is.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> error = torch.tensor([[1.0, -3.0], [5.0, 7.0]])
        >>> mean_over_agents(error, torch.tensor([[True, True], [True, False]]))
        (tensor([2., 5.]), tensor([True, True]))
    """
    size, counts = _counted(td_error, counts)
    return _mean(size, counts), None if counts is None else counts.any(-1)


def sequence_priority(
    td_error: Tensor, counts: Tensor | None = None, *, eta: float = 0.9
) -> Tensor:
    """Priority of a sequence: between the mean and the largest of its absolute errors.

        p = eta max_t |td_error_t| + (1 - eta) mean_t |td_error_t|

    (R2D2, Kapturowski et al. 2019, https://openreview.net/forum?id=r1lyTjAqYX, section 2.3, with eta = 0.9.)

    Args:
        td_error: ``[*B, T]``.
        counts: ``[*B, T]`` bool, false on padding and warm-up steps; None counts all.
        eta: share of the largest error, in [0, 1].

    Returns:
        ``[*B]``, 0 where no step counts.

    Raises:
        ValueError: if shapes differ or ``eta`` is out of range.

    Example:
        >>> import torch
        >>> error = torch.tensor([[1.0, -3.0, 100.0]])
        >>> sequence_priority(error, torch.tensor([[True, True, False]]), eta=0.5)
        tensor([2.5000])
    """
    check_fraction("eta", eta)
    size, counts = _counted(td_error, counts)
    return eta * size.amax(-1) + (1.0 - eta) * _mean(size, counts)


def item_priority(
    td_error: Tensor, counts: Tensor | None = None, *, sequences: bool, eta: float = 0.9
) -> Tensor:
    """Priority of what is replayed as one item: a step, or with ``sequences`` the last dimension's steps.

    Args:
        td_error: ``[*B]``, or ``[*B, T]`` with ``sequences``.
        counts: shaped like ``td_error``, bool; None counts all.
        sequences: whether a row is one item.
        eta: see :func:`sequence_priority`.

    Returns:
        ``[*B]``, 0 where nothing counts.

    Raises:
        ValueError: as :func:`sequence_priority`.

    Example:
        >>> import torch
        >>> item_priority(torch.tensor([1.0, -3.0]), sequences=False)
        tensor([1., 3.])
    """
    if sequences:
        return sequence_priority(td_error, counts, eta=eta)
    return _counted(td_error, counts)[0]


def _counted(td_error: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Absolute errors with 0 where nothing counts; what does not count may hold anything."""
    size = td_error.abs()
    if counts is None:
        return size, None
    check_same_shape(td_error=td_error, counts=counts)
    return torch.where(counts, size, torch.zeros_like(size)), counts


def _mean(size: Tensor, counts: Tensor | None) -> Tensor:
    if counts is None:
        return size.mean(-1)
    return size.sum(-1) / counts.sum(-1).clamp(min=1)
