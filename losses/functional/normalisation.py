"""Running statistics of value targets, the PopArt rescaling, and advantage normalisation."""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_bool, check_same_shape


def masked_moments(
    value: Tensor, mask: Tensor | None, dims: tuple[int, ...], *, keepdim: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, (population) variance and number of the entries where ``mask`` is true, over ``dims``.

    Args:
        value: ``[*B]``.
        mask: ``[*B]`` bool, or None for all.
        dims: reduced dimensions.
        keepdim: whether they stay, with size 1.

    Returns:
        ``(mean, variance, count)``; where nothing counts all three are 0.

    Raises:
        TypeError: if ``mask`` is not bool.
        ValueError: if the shapes differ.
    """
    if mask is None:
        variance, mean = torch.var_mean(value, dims, correction=0, keepdim=keepdim)
        return mean, variance, torch.full_like(mean, value.numel() / max(mean.numel(), 1))
    check_bool("mask", mask)
    check_same_shape(value=value, mask=mask)
    zero = torch.zeros_like(value)
    count = mask.sum(dims, keepdim=True).to(value.dtype)
    divisor = count.clamp(min=1.0)
    mean = torch.where(mask, value, zero).sum(dims, keepdim=True) / divisor
    square = torch.where(mask, value - mean, zero).square()
    variance = square.sum(dims, keepdim=True) / divisor
    if keepdim:
        return mean, variance, count
    kept = [size for dim, size in enumerate(value.shape) if dim not in dims]
    return mean.reshape(kept), variance.reshape(kept), count.reshape(kept)


def running_moments(
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    batch_mean: Tensor,
    batch_variance: Tensor,
    rate: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of debiased exponential moving statistics.

    MAPPO's reference divides the moving averages of x and of x^2 by the weight they have gathered,
    ``1 - (1 - rate)^t``. This is the same, written for mean and variance, which keeps its precision where
    the mean is large against the deviation::

        w' = w + rate (1 - w)        a = rate / w'
        m' = m + a (m_b - m)         v' = (1 - a) v + a v_b + a (1 - a) (m_b - m)^2

    Args:
        mean: ``[*B]``.
        variance: ``[*B]``.
        weight: ``[*B]`` in [0, 1]; 0 before the first step, which then takes the batch's moments.
        batch_mean: ``[*B]``.
        batch_variance: ``[*B]``.
        rate: ``[*B]`` in [0, 1]; 0 changes nothing.

    Returns:
        ``(mean, variance, weight)``.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(
        mean=mean,
        variance=variance,
        weight=weight,
        batch_mean=batch_mean,
        batch_variance=batch_variance,
        rate=rate,
    )
    new_weight = weight + rate * (1.0 - weight)
    share = rate / new_weight.clamp(min=torch.finfo(weight.dtype).tiny)
    gap = batch_mean - mean
    new_variance = variance + share * (batch_variance - variance + (1.0 - share) * gap.square())
    return mean + share * gap, new_variance, new_weight


def popart_rescale(
    weight: Tensor,
    bias: Tensor,
    old_mean: Tensor,
    old_scale: Tensor,
    new_mean: Tensor,
    new_scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """Output layer that keeps its denormalised outputs after the statistics changed.

    (van Hasselt et al. 2016, https://arxiv.org/abs/1602.07714, eq. 6 and 7)::

        W' = W s_old / s_new        b' = (s_old b + m_old - m_new) / s_new

    so that ``s_new (W' x + b') + m_new = s_old (W x + b) + m_old`` for every x.

    Args:
        weight: ``[*B, 1, d]``.
        bias: ``[*B, 1]``.
        old_mean: scalar or broadcastable to ``bias``.
        old_scale: likewise, > 0.
        new_mean: likewise.
        new_scale: likewise, > 0.

    Returns:
        ``(weight, bias)`` of the same shapes.
    """
    ratio = old_scale / new_scale
    new_bias = (old_scale * bias + old_mean - new_mean) / new_scale
    return weight * (ratio.unsqueeze(-1) if ratio.ndim else ratio), new_bias


def normalise_advantage(
    advantage: Tensor,
    mask: Tensor | None = None,
    *,
    exclude_dims: tuple[int, ...] = (),
    epsilon: float = 1e-5,
) -> Tensor:
    """Zero mean and unit (population) deviation over the entries where ``mask`` is true.

    Args:
        advantage: ``[*B, n_agents]``.
        mask: ``[*B, n_agents]`` bool, true = alive and not padding; None for all. Masked entries become 0.
        exclude_dims: dimensions with statistics of their own; ``(-1,)`` normalises each agent by itself.
        epsilon: added to the deviation.

    Returns:
        Like ``advantage``.

    Raises:
        TypeError: if ``mask`` is not bool.
        ValueError: if the shapes differ, or a dimension is not there.
    """
    for dim in exclude_dims:
        if not -advantage.ndim <= dim < advantage.ndim:
            raise ValueError(
                f"`exclude_dims` must be dimensions of {tuple(advantage.shape)}; got {tuple(exclude_dims)}."
            )
    kept = {dim % advantage.ndim for dim in exclude_dims}
    dims = tuple(dim for dim in range(advantage.ndim) if dim not in kept)
    mean, variance, _ = masked_moments(advantage, mask, dims, keepdim=True)
    normalised = (advantage - mean) / (variance.sqrt() + epsilon)
    return normalised if mask is None else torch.where(mask, normalised, torch.zeros_like(mean))
