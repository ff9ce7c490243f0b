"""Mixing beyond sums and monotone networks: attention over agents (Qatten), duplex dueling (QPLEX)."""

import math

import torch
from torch import Tensor

from marl_td.losses.functional.action_values import mask_unavailable
from marl_td.losses.functional.checks import check_exact_shape, check_same_shape


def attention_weight(query: Tensor, key: Tensor, alive: Tensor | None = None) -> Tensor:
    """Softmax over the agents of scaled dot products, one row per head.

        lambda_{h,i} = exp(q_h . k_{h,i} / sqrt(d)) / sum over the living j of exp(q_h . k_{h,j} / sqrt(d))

    (Yang et al. 2020, https://arxiv.org/abs/2002.03939.) A dead agent's weight is 0; where all are
    dead the weights are equal.

    Args:
        query: ``[*B, n_heads, d]``, from the state.
        key: ``[*B, n_heads, n_agents, d]``, from what is seen of each agent.
        alive: ``[*B, n_agents]`` bool; None if all are.

    Returns:
        ``[*B, n_heads, n_agents]``, rows that sum to 1.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> attention_weight(torch.zeros(1, 2), torch.randn(1, 4, 2))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    *batch, n_heads, n_agents, width = key.shape
    check_exact_shape("query", query, (*batch, n_heads, width), "[*B, n_heads, d]")
    score = (key * query.unsqueeze(-2)).sum(-1) / math.sqrt(width)
    if alive is not None:
        check_exact_shape("alive", alive, (*batch, n_agents), "[*B, n_agents]")
        score = mask_unavailable(score, alive.unsqueeze(-2).expand(score.shape))
    return score.softmax(-1)


def mix_attention(
    local_value: Tensor, attention: Tensor, head_weight: Tensor, bias: Tensor
) -> Tensor:
    """Qatten's mixing: attention-weighted sums of the agents' values, several heads, and a constant.

        Q_tot = c + sum_h |w_h| sum_i lambda_{h,i} Q_i

    (Yang et al. 2020, https://arxiv.org/abs/2002.03939.) The absolute values, taken here, make
    every ``dQ_tot / dQ_i`` non-negative.

    Args:
        local_value: ``[*B, n_agents]``, in units of the return.
        attention: ``[*B, n_heads, n_agents]``, lambda, non-negative.
        head_weight: ``[*B, n_heads]``, w before its absolute value.
        bias: ``[*B]``, c: the state's own value.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> half = torch.full((1, 2), 0.5)
        >>> mix_attention(torch.tensor([2.0, 6.0]), half, torch.tensor([-3.0]), torch.tensor(1.0))
        tensor(13.)
    """
    batch, n_agents = local_value.shape[:-1], local_value.shape[-1]
    n_heads = head_weight.shape[-1]
    layout = "[*B, n_heads, n_agents]"
    check_exact_shape("attention", attention, (*batch, n_heads, n_agents), layout)
    check_exact_shape("head_weight", head_weight, (*batch, n_heads), "[*B, n_heads]")
    check_exact_shape("bias", bias, batch, "[*B]")
    heads = (attention * local_value.unsqueeze(-2)).sum(-1)
    return (heads * head_weight.abs()).sum(-1) + bias


def mix_duplex(
    local_value: Tensor,
    best_value: Tensor,
    weight: Tensor,
    bias: Tensor,
    importance: Tensor,
    *,
    stop_gradient: bool = True,
) -> Tensor:
    """QPLEX's duplex dueling mixing of transformed values.

        Q_i'  = w_i Q_i + b_i        V_i' = w_i max Q_i + b_i        A_i' = Q_i' - V_i' <= 0
        Q_tot = sum_i V_i' + sum_i lambda_i A_i' = sum_i Q_i' + sum_i (lambda_i - 1) A_i'

    (Wang et al. 2021, https://arxiv.org/abs/2008.01062.) With positive w and lambda the best
    joint action is the agents' own best ones, whatever lambda says of the others: any payoff table with that
    joint argmax can be represented.

    Args:
        local_value: ``[*B, n_agents]``, Q_i of the joint action, in units of the return.
        best_value: ``[*B, n_agents]``, the largest value of each agent's available actions.
        weight: ``[*B, n_agents]``, w > 0.
        bias: ``[*B, n_agents]``, b.
        importance: ``[*B, n_agents]``, lambda > 0, of state and joint action.
        stop_gradient: no gradient into the advantages beside lambda (the reference code); agents then learn
            from the sum alone.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> one = torch.ones(2)
        >>> mix_duplex(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]), one, one, 4 * one)
        tensor(-4.)
    """
    check_same_shape(
        local_value=local_value,
        best_value=best_value,
        weight=weight,
        bias=bias,
        importance=importance,
    )
    advantage = weight * (local_value - best_value)
    if stop_gradient:
        advantage = advantage.detach()
    transformed = weight * local_value + bias
    return torch.sum(transformed + (importance - 1.0) * advantage, dim=-1)
