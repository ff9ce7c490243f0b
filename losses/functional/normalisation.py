"""Running statistics of value targets, the PopArt rescaling, and advantage normalisation."""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_same_shape


def masked_moments(
    value: Tensor, mask: Tensor | None, dims: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Mean of ``value`` and of its square over ``dims``, counting entries where ``mask`` is true.

    Args:
        value: ``[*B]``.
        mask: ``[*B]`` bool, or None for all.
        dims: reduced dimensions.

    Returns:
        ``(mean, mean_square)``, with the other dimensions kept.
    """
    if mask is None:
        return value.mean(dims), value.square().mean(dims)
    check_same_shape(value=value, mask=mask)
    weight = mask.to(value.dtype)
    count = weight.sum(dims).clamp(min=1.0)
    return (value * weight).sum(dims) / count, (value.square() * weight).sum(dims) / count


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
        ValueError: if the shapes differ.
    """
    kept = {dim % advantage.ndim for dim in exclude_dims}
    dims = tuple(dim for dim in range(advantage.ndim) if dim not in kept)
    weight = torch.ones_like(advantage) if mask is None else mask.to(advantage.dtype)
    check_same_shape(advantage=advantage, mask=weight)
    count = weight.sum(dims, keepdim=True).clamp(min=1.0)
    mean = (advantage * weight).sum(dims, keepdim=True) / count
    centred = (advantage - mean) * weight
    deviation = (centred.square().sum(dims, keepdim=True) / count).sqrt()
    return centred / (deviation + epsilon)
