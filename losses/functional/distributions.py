"""Log-probabilities, entropies and divergences of categorical and of independent normal distributions."""

import math

import torch
from torch import Tensor

from marl_td.losses.functional.action_values import mask_unavailable
from marl_td.losses.functional.checks import check_same_shape, check_shape


def categorical_log_prob(
    logits: Tensor, action: Tensor, action_mask: Tensor | None = None
) -> Tensor:
    """Log-probability ``[*B]`` of one-hot actions under ``softmax(logits)`` over the available actions.

    Args:
        logits: ``[*B, n_actions]``.
        action: one-hot, like ``logits``; an available action.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> categorical_log_prob(torch.zeros(4), torch.tensor([0.0, 1.0, 0.0, 0.0])).exp()
        tensor(0.2500)
    """
    check_same_shape(logits=logits, action=action)
    log_prob = torch.log_softmax(mask_unavailable(logits, action_mask), dim=-1)
    return torch.where(action > 0.0, log_prob, torch.zeros_like(log_prob)).sum(-1)


def categorical_entropy(logits: Tensor, action_mask: Tensor | None = None) -> Tensor:
    """Entropy ``[*B]`` in nats of ``softmax(logits)`` over the available actions.

    Args:
        logits: ``[*B, n_actions]``.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are.

    Raises:
        ValueError: if the shapes differ.
    """
    log_prob = torch.log_softmax(mask_unavailable(logits, action_mask), dim=-1)
    prob = log_prob.exp()
    return -torch.where(prob > 0.0, prob * log_prob, torch.zeros_like(prob)).sum(-1)


def categorical_divergence(log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """Kullback-Leibler divergence ``sum_a p(a) (log p(a) - log q(a))``, KL(p || q), in nats.

    Args:
        log_probs: ``[*B, n_actions]``, normalised; ``-inf`` for actions that are not available.
        other_log_probs: ``[*B, n_actions]``, normalised, over the same actions.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(log_probs=log_probs, other_log_probs=other_log_probs)
    possible = log_probs.isfinite()
    # Filled before the difference: the gradient of what is left out must be 0, not undefined.
    gap = torch.where(possible, log_probs, 0.0) - torch.where(possible, other_log_probs, 0.0)
    return (log_probs.exp() * gap).sum(-1)


def gaussian_log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of ``value`` under independent normal distributions, in nats.

        log N(x; m, s) = -sum_k ((x_k - m_k)^2 / (2 s_k^2) + log s_k + log(2 pi) / 2)

    Args:
        value: ``[*B, d]``, x, any unit.
        mean: ``[*B, d]``, m, or what broadcasts with it.
        std: shape of ``mean``, s > 0.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if ``mean`` and ``std`` differ in shape, or ``value`` in width.
    """
    check_same_shape(mean=mean, std=std)
    check_shape("value", value, mean.shape[-1:], "[*B, d]")
    density = -0.5 * ((value - mean) / std).square() - std.log() - 0.5 * math.log(2.0 * math.pi)
    return density.sum(-1)


def gaussian_entropy(std: Tensor) -> Tensor:
    """Entropy ``[*B]`` of independent normal distributions with ``std`` ``[*B, d]`` > 0, in nats.

    Example:
        >>> gaussian_entropy(torch.ones(2))  # 1 + log(2 pi)
        tensor(2.8379)
    """
    return (std.log() + 0.5 * (1.0 + math.log(2.0 * math.pi))).sum(-1)


def gaussian_divergence(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p || q) of independent normal distributions, in nats.

        KL = sum_k log(s'_k / s_k) + (s_k^2 + (m_k - m'_k)^2) / (2 s'_k^2) - 1/2

    Args:
        mean: ``[*B, d]``, m of p, any unit.
        std: ``[*B, d]``, s of p, > 0.
        other_mean: ``[*B, d]``, m' of q.
        other_std: ``[*B, d]``, s' of q, > 0.

    Returns:
        ``[*B]``, at least 0.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> one = torch.ones(1)
        >>> gaussian_divergence(3.0 * one, one, one, one)
        tensor(2.)
    """
    check_same_shape(mean=mean, std=std, other_mean=other_mean, other_std=other_std)
    squared = (std / other_std).square() + ((mean - other_mean) / other_std).square()
    return ((other_std / std).log() + 0.5 * squared - 0.5).sum(-1)
