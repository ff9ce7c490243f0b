"""Agents that are updated one after the other: how the others' new policies count for the next one."""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_same_shape
from marl_td.losses.functional.policy_gradient import LARGEST_LOG_RATIO


def sequential_factor(
    log_prob: Tensor, old_log_prob: Tensor, earlier: Tensor, mask: Tensor | None = None
) -> Tensor:
    """How much more likely the agents that were updated before make their part of the joint action.

    (Kuba et al. 2022, https://arxiv.org/abs/2109.11251, eq. 9)::

        M = prod over earlier agents j of  pi_new(u_j | o_j) / pi_old(u_j | o_j)

    It multiplies the advantage of the agent whose turn it is, is not clipped (it is bounded at e^20), and
    carries no gradient. Without earlier agents, and where no policy has changed, it is 1.

    Args:
        log_prob: ``[*B, n_agents]``, under the current policies, summed over an action's dimensions.
        old_log_prob: ``[*B, n_agents]``, under those that acted.
        earlier: ``[n_agents]`` bool, true for the agents that had their turn.
        mask: ``[*B, n_agents]`` bool, true = alive; the dead count with 1.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> new, old = torch.tensor([[0.5, 0.3, 0.9]]).log(), torch.tensor([[0.25, 0.6, 0.3]]).log()
        >>> sequential_factor(new, old, torch.tensor([True, True, False]))
        tensor([1.0000])
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob)
    counts = earlier.expand_as(log_prob)
    if mask is not None:
        check_same_shape(log_prob=log_prob, mask=mask)
        counts = counts & mask
    log_ratio = (log_prob - old_log_prob).detach()
    log_factor = torch.where(counts, log_ratio, torch.zeros_like(log_ratio)).sum(-1)
    return log_factor.clamp(max=LARGEST_LOG_RATIO).exp()


def turn_position(n_done: Tensor, n_updates: int, n_agents: int) -> Tensor:
    """Position in the order of the agents whose turn the next update is.

    ``n_updates`` updates are divided among the agents in order, in parts as equal as can be::

        position = floor(n_done * n_agents / n_updates)

    With fewer updates than agents some positions are passed over.

    Args:
        n_done: int64 ``[*B]``, updates so far; beyond the last the last agent stays.
        n_updates: updates in all, at least 1.
        n_agents: number of agents, at least 1.

    Returns:
        int64 ``[*B]`` in ``0 .. n_agents - 1``.

    Example:
        >>> import torch
        >>> turn_position(torch.arange(5), 5, 2)
        tensor([0, 0, 0, 1, 1])
    """
    return (n_done * n_agents // n_updates).clamp(max=n_agents - 1)
