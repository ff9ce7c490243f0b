"""Weights of the error of a factorised value against an unrestricted one (WQMIX)."""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_fraction, check_same_shape


def optimistic_weight(global_value: Tensor, value_target: Tensor, *, alpha: float) -> Tensor:
    """Full weight where the factorised value is too low, ``alpha`` where it is too high.

        w = 1 if Q_tot < y else alpha

    (OW-QMIX, Rashid et al. 2020, https://arxiv.org/abs/2006.10800.)

    Args:
        global_value: ``[*B]``, Q_tot of the joint action.
        value_target: ``[*B]``, y.
        alpha: weight of overestimates, in [0, 1].

    Returns:
        ``[*B]``; no gradient.

    Raises:
        ValueError: if shapes differ or ``alpha`` is out of range.

    Example:
        >>> import torch
        >>> optimistic_weight(torch.tensor([0.0, 2.0]), torch.ones(2), alpha=0.1)
        tensor([1.0000, 0.1000])
    """
    check_fraction("alpha", alpha)
    check_same_shape(global_value=global_value, value_target=value_target)
    return _weight(global_value < value_target, value_target, alpha)


def central_weight(
    is_greedy: Tensor, value_target: Tensor, greedy_value: Tensor, *, alpha: float
) -> Tensor:
    """Full weight to the greedy joint action and to those that look better than it.

        w = 1 if u is greedy or y > Q*(s, greedy u) else alpha

    (CW-QMIX, Rashid et al. 2020, https://arxiv.org/abs/2006.10800.)

    Args:
        is_greedy: ``[*B]`` bool, whether the joint action is made of the agents' best ones.
        value_target: ``[*B]``, y.
        greedy_value: ``[*B]``, unrestricted target value of the greedy joint action.
        alpha: weight of all other joint actions, in [0, 1].

    Returns:
        ``[*B]``; no gradient.

    Raises:
        ValueError: if shapes differ or ``alpha`` is out of range.

    Example:
        >>> import torch
        >>> is_greedy, y = torch.tensor([True, False, False]), torch.tensor([0.0, 0.0, 2.0])
        >>> central_weight(is_greedy, y, torch.ones(3), alpha=0.1)
        tensor([1.0000, 0.1000, 1.0000])
    """
    check_fraction("alpha", alpha)
    check_same_shape(is_greedy=is_greedy, value_target=value_target, greedy_value=greedy_value)
    return _weight(is_greedy | (value_target > greedy_value), value_target, alpha)


def _weight(full: Tensor, like: Tensor, alpha: float) -> Tensor:
    one = torch.ones_like(like).detach()
    return torch.where(full, one, alpha * one)
