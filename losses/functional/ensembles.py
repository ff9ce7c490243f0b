"""Ensembles of policies: every sub-policy learns from what it played, and all count the same."""

import torch
from torch import Tensor

from marl_td.losses.functional.action_values import one_hot_action
from marl_td.losses.functional.checks import check_same_shape


def ensemble_weight(index: Tensor, ensemble_size: int, mask: Tensor | None = None) -> Tensor:
    """Weights that make a sum over a mixed batch the mean over sub-policies of the means over their steps.

        sum of w f = sum_i (n_i / n) (1/K) sum_k (mean of f_i over the steps that i's sub-policy k played)

    (Lowe et al. 2017, https://arxiv.org/abs/1706.02275, eq. 10, which keeps one replay memory per sub-policy:
    steps of one memory that were played by k are a uniform sample of k's memory.) n_i is the number of steps
    of agent i that count, n that of all agents; with one sub-policy this is the plain mean. A sub-policy
    without a step in the batch contributes nothing.

    Args:
        index: which sub-policy played, int64 ``[*B, n_agents]`` in [0, ``ensemble_size``).
        ensemble_size: sub-policies of each agent, >= 1: K.
        mask: entries that count, bool ``[*B, n_agents]``; None if all do.

    Returns:
        ``[*B, n_agents]``, >= 0, 0 where the mask is false.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> ensemble_weight(torch.tensor([[0], [0], [0], [1]]), 2).squeeze(-1)
        tensor([0.1667, 0.1667, 0.1667, 0.5000])
    """
    if mask is None:
        mask = torch.ones_like(index, dtype=torch.bool)
    check_same_shape(index=index, mask=mask)
    played = one_hot_action(index, ensemble_size) * mask.unsqueeze(-1)  # [*B, n_agents, K]
    n_steps = played.flatten(0, -3).sum(0)  # [n_agents, K]
    n_agent = n_steps.sum(-1, keepdim=True)
    share = n_agent / (ensemble_size * n_steps.clamp(min=1.0) * n_agent.sum().clamp(min=1.0))
    return (played * share).sum(-1)
