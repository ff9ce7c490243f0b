"""The clipped policy and value objectives of PPO, per element."""

import math

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_same_shape
from marl_td.losses.functional.normalisation import masked_moments

LARGEST_LOG_RATIO = 20.0
"""Bound of log-ratios, in nats: one draw that became likelier by e^89 would make a whole batch infinite."""


def clipped_objective(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip_epsilon: float
) -> Tensor:
    """PPO's clipped surrogate, to be maximised.

    (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 7)::

        L = min(rho A, clip(rho, 1 - eps, 1 + eps) A),   rho = exp(log_prob - old_log_prob)

    Beyond ``LARGEST_LOG_RATIO`` rho is constant and has no gradient. Actions that saturate their bounds get
    there: rounding moves what is left of them by many deviations of a narrow policy.

    Args:
        log_prob: ``[*B]``, of the taken action under the current policy; carries the gradient.
        old_log_prob: ``[*B]``, under the policy that took it.
        advantage: ``[*B]``.
        clip_epsilon: clipping range in (0, 1).

    Returns:
        ``[*B]``, not reduced.

    Raises:
        ValueError: if shapes differ or ``clip_epsilon`` is out of range.

    Example:
        >>> import torch
        >>> old = torch.zeros(2)
        >>> clipped_objective(torch.tensor([2.0, 2.0]).log(), old, torch.tensor([1.0, -1.0]),
        ...                   clip_epsilon=0.2)
        tensor([ 1.2000, -2.0000])
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    if not 0.0 < clip_epsilon < 1.0:
        raise ValueError(f"`clip_epsilon` must lie in (0, 1); got {clip_epsilon}.")
    log_ratio = (log_prob - old_log_prob).clamp(max=LARGEST_LOG_RATIO)
    clipped = log_ratio.clamp(math.log1p(-clip_epsilon), math.log1p(clip_epsilon))
    return torch.minimum(log_ratio.exp() * advantage, clipped.exp() * advantage)


def regression_error(prediction: Tensor, target: Tensor, *, huber_delta: float | None) -> Tensor:
    """Half the squared error, or Huber's: linear beyond ``huber_delta``.

    Args:
        prediction: ``[*B]``.
        target: ``[*B]``.
        huber_delta: where the error becomes linear (> 0); None for the squared error.

    Returns:
        ``[*B]``: ``e^2 / 2`` for ``|e| <= delta``, ``delta (|e| - delta / 2)`` beyond.

    Raises:
        ValueError: if shapes differ or ``huber_delta`` is not positive.
    """
    check_same_shape(prediction=prediction, target=target)
    if huber_delta is None:
        return 0.5 * (prediction - target).square()
    if huber_delta <= 0.0:
        raise ValueError(f"`huber_delta` must be above 0; got {huber_delta}.")
    return torch.nn.functional.huber_loss(prediction, target, reduction="none", delta=huber_delta)


def clipped_value_error(
    value: Tensor,
    old_value: Tensor,
    value_target: Tensor,
    *,
    clip_epsilon: float | None,
    huber_delta: float | None,
) -> Tensor:
    """Value loss of MAPPO: the larger of the plain and the clipped error.

    (Yu et al. 2022, https://arxiv.org/abs/2103.01955, eq. 2)::

        v_clip = v_old + clip(v - v_old, -eps, eps)
        L = max(error(v, target), error(v_clip, target))

    Args:
        value: ``[*B]``, current prediction; carries the gradient.
        old_value: ``[*B]``, prediction when the data was collected.
        value_target: ``[*B]``.
        clip_epsilon: clipping range in the unit of ``value``; None for no clipping.
        huber_delta: as in :func:`regression_error`.

    Returns:
        ``[*B]``, not reduced.

    Raises:
        ValueError: if shapes differ or a range is not positive.
    """
    error = regression_error(value, value_target, huber_delta=huber_delta)
    if clip_epsilon is None:
        return error
    check_same_shape(value=value, old_value=old_value)
    if clip_epsilon <= 0.0:
        raise ValueError(f"`clip_epsilon` must be above 0; got {clip_epsilon}.")
    near = old_value + (value - old_value).clamp(-clip_epsilon, clip_epsilon)
    return torch.maximum(error, regression_error(near, value_target, huber_delta=huber_delta))


def explained_variance(value: Tensor, value_target: Tensor, mask: Tensor | None = None) -> Tensor:
    """``1 - Var(target - value) / Var(target)`` over the masked entries; 1 is perfect, 0 a constant.

    Args:
        value: ``[*B]``.
        value_target: ``[*B]``.
        mask: ``[*B]`` bool of the entries that count; None for all.

    Returns:
        A scalar.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(value=value, value_target=value_target)
    dims = tuple(range(value.ndim))
    _, residual, _ = masked_moments(value_target - value, mask, dims)
    _, total, _ = masked_moments(value_target, mask, dims)
    return 1.0 - residual / total.clamp(min=1e-8)
