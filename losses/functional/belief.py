"""How well a belief predicts what others do, per pair of agents."""

import math

import torch
from torch import Tensor

from marl_td.losses.functional.action_values import chosen_action_value, mask_unavailable
from marl_td.losses.functional.checks import check_same_shape, check_shape

SCALE_FLOOR = 0.05
"""Smallest standard deviation of a predicted continuous action: densities stay bounded."""


def discrete_log_likelihood(
    logits: Tensor, action: Tensor, available: Tensor | None = None
) -> Tensor:
    """``log p(action)`` under the softmax of ``logits``.

    Args:
        logits: ``[*B, n_actions]``.
        action: ``[*B]`` int64.
        available: bool, broadcast to ``logits``: actions that exist; None for all.

    Returns:
        ``[*B]`` in nats.

    Raises:
        ValueError: if ``action`` is not ``[*B]``.
    """
    mask = None if available is None else available.expand_as(logits)
    return chosen_action_value(mask_unavailable(logits, mask).log_softmax(-1), action)


def continuous_log_likelihood(
    parameters: Tensor, action: Tensor, available: Tensor | None = None
) -> Tensor:
    """``log p(action)`` under independent normal distributions.

        p = N(loc, SCALE_FLOOR + softplus(raw)),   parameters = (loc, raw)

    Args:
        parameters: ``[*B, 2 d_action]``.
        action: ``[*B, d_action]``.
        available: bool, broadcast to ``action``: dimensions that exist; None for all.

    Returns:
        ``[*B]`` in nats, summed over the dimensions.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_shape("parameters", parameters, (2 * action.shape[-1],), "[*B, 2 d_action]")
    loc, raw = parameters.chunk(2, dim=-1)
    check_same_shape(action=action, loc=loc)
    scale = SCALE_FLOOR + torch.nn.functional.softplus(raw)
    each = -0.5 * ((action - loc) / scale).square() - scale.log() - 0.5 * math.log(2.0 * math.pi)
    return (each if available is None else torch.where(available, each, 0.0)).sum(-1)
