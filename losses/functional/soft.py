"""Maximum-entropy policies: samples with their log-probabilities, and what a temperature learns from them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marl_td.losses.functional.action_values import mask_unavailable, one_hot_action
from marl_td.losses.functional.checks import check_same_shape, check_shape

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class PolicySample(NamedTuple):
    """Actions of a stochastic policy, in the form that a critic takes."""

    action: Tensor
    """``[*B, d_action or n_actions]``; continuous ones carry the gradient of what made them."""
    log_prob: Tensor
    """``[*B]``: of this action (continuous), or its expectation over all actions (discrete)."""
    prob: Tensor | None
    """``[*B, n_actions]``: probabilities of discrete actions, 0 for unavailable ones; None if continuous."""


def normal_sample(loc: Tensor, scale: Tensor, noise: Tensor, *, squash: bool) -> PolicySample:
    """A reparametrised action of a normal policy, squashed into (-1, 1) by tanh or as it is.

        x = loc + scale noise,   u = tanh(x)
        log pi(u) = sum_d [ log N(x_d; loc_d, scale_d) - log(1 - tanh(x_d)^2) ]

    (Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290, appendix C.) The density is that of the squashed
    action, whatever bounds it is scaled to afterwards, so that an entropy means the same for every range.
    Without ``squash`` it is that of x itself.

    Args:
        loc: ``[*B, d_action]``.
        scale: like ``loc``, > 0.
        noise: like ``loc``, standard normal.
        squash: whether to squash.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> normal_sample(zero, one, one, squash=True).action
        tensor([0.7616])
    """
    check_same_shape(loc=loc, scale=scale, noise=noise)
    x = loc + scale * noise
    log_prob = (-0.5 * noise.square() - scale.log() - HALF_LOG_TWO_PI).sum(-1)
    if not squash:
        return PolicySample(x, log_prob, None)
    # log(1 - tanh(x)^2), which is a difference of equal numbers where x is large
    stretch = 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))
    return PolicySample(torch.tanh(x), log_prob - stretch.sum(-1), None)


def categorical_sample(logits: Tensor, action_mask: Tensor | None, noise: Tensor) -> PolicySample:
    """A one-hot action of a categorical policy over the available actions, and its probabilities.

        u = onehot(argmax_a (logits_a + noise_a)),   log_prob = sum_a pi(a) log pi(a)

    With standard Gumbel noise u is drawn from ``softmax(logits)``. No gradient flows through u: where an
    expectation over the policy is wanted it is taken over all actions.

    Args:
        logits: ``[*B, n_actions]``.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are. At least one must be.
        noise: ``[*B, n_actions]``.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> sample = categorical_sample(torch.zeros(2), None, torch.tensor([0.0, 1.0]))
        >>> sample.action, sample.log_prob
        (tensor([0., 1.]), tensor(-0.6931))
    """
    check_same_shape(logits=logits, noise=noise)
    drawn = mask_unavailable(logits + noise, action_mask).argmax(-1)
    log_prob = torch.log_softmax(mask_unavailable(logits, action_mask), dim=-1)
    prob = log_prob.exp()
    if action_mask is not None:
        # Nothing of an unavailable action reaches a sum or a gradient, not even 0 times a huge number.
        prob = torch.where(action_mask, prob, 0.0)
        log_prob = torch.where(action_mask, log_prob, 0.0)
    action = one_hot_action(drawn, logits.shape[-1]).to(logits.dtype)
    return PolicySample(action, (prob * log_prob).sum(-1), prob)


def soft_state_value(least: Tensor, sample: PolicySample, bonus: Tensor) -> Tensor:
    """Value of a state under a policy with an entropy bonus.

        V = Q(u) + bonus                   continuous, u the sampled action
        V = sum_a pi(a) Q(a) + bonus       discrete

    (Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290, eq. 3; Christodoulou 2019,
    https://arxiv.org/abs/1910.07207, eq. 10.)

    Args:
        least: the smallest of several critics' values: ``[*B]`` of the sampled action, or
            ``[*B, n_actions]`` of all of a discrete agent's own.
        sample: what the policy does.
        bonus: ``[*B]``, such as ``-alpha log_prob``.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> sample = categorical_sample(torch.zeros(2), None, torch.zeros(2))
        >>> soft_state_value(torch.tensor([1.0, 3.0]), sample, -0.5 * sample.log_prob)
        tensor(2.3466)
    """
    if sample.prob is not None:
        check_shape("least", least, sample.prob.shape, "[*B, n_actions]")
        least = (sample.prob * least).sum(-1)
    check_same_shape(log_prob=sample.log_prob, least=least, bonus=bonus)
    return least + bonus


def temperature_error(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """What the temperature minimises: ``-log alpha (log pi + H)``, ``[*B]``.

    It falls while the policy's entropy is above its target H and rises while it is below. (Haarnoja et al.
    2018, https://arxiv.org/abs/1812.05905, eq. 18, in its usual form with log alpha instead of alpha.)

    Args:
        log_alpha: broadcastable to ``log_prob``; gets the gradient.
        log_prob: ``[*B]``, taken as a constant.
        target_entropy: H, nats.

    Example:
        >>> import torch
        >>> temperature_error(torch.tensor(1.0), torch.tensor([-2.0, 0.0]), 0.5)
        tensor([ 1.5000, -0.5000])
    """
    return -log_alpha * (log_prob.detach() + target_entropy)
