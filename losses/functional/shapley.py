"""Shares of a joint value: Shapley values, and what SHAQ makes of them."""

import itertools
import math

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_exact_shape, check_same_shape


def all_orders(n_agents: int, device: torch.device | None = None) -> Tensor:
    """Every order of the agents, ``[n_agents!, n_agents]``."""
    orders = list(itertools.permutations(range(n_agents)))
    return torch.tensor(orders, dtype=torch.int64, device=device)


def shapley_value(coalition_value: Tensor) -> Tensor:
    """Each agent's marginal contribution, averaged over all orders of joining.

        phi_i = sum over C without i of |C|! (N - |C| - 1)! / N! (v(C + {i}) - v(C))

    (Shapley 1953.) For few agents: it takes the value of all ``2^N`` coalitions.

    Args:
        coalition_value: ``[*B, 2^N]``; bit i of the index says whether agent i is a member, 0 is nobody.

    Returns:
        ``[*B, N]``, which sums to ``v(all) - v(nobody)``.

    Raises:
        ValueError: if the last size is not a power of 2 above 1.

    Example:
        >>> import torch
        >>> shapley_value(torch.tensor([0.0, 100.0, 50.0, 200.0]))
        tensor([125.,  75.])
    """
    n_coalitions = coalition_value.shape[-1]
    n_agents = n_coalitions.bit_length() - 1
    if n_agents < 1 or n_coalitions != 2**n_agents:
        raise ValueError(
            f"`coalition_value` must be [*B, 2^N] with N >= 1 agents; got {tuple(coalition_value.shape)}."
        )
    shares = []
    for agent in range(n_agents):
        without = [c for c in range(n_coalitions) if not c >> agent & 1]
        size = [bin(c).count("1") for c in without]
        weight = [math.factorial(k) * math.factorial(n_agents - k - 1) for k in size]
        share = coalition_value.new_tensor(weight) / math.factorial(n_agents)
        joined = [c | 1 << agent for c in without]
        gain = coalition_value[..., joined] - coalition_value[..., without]
        shares.append((share * gain).sum(-1))
    return torch.stack(shares, dim=-1)


def predecessor_mean(local_value: Tensor, order: Tensor, alive: Tensor | None = None) -> Tensor:
    """Mean value of those who joined before each agent; 0 for the first.

    Args:
        local_value: ``[*B, n_agents]``, in units of the return.
        order: ``[*B, n_orders, n_agents]`` int64: who joins first, second, ...
        alive: ``[*B, n_agents]`` bool; dead agents are not counted. None if all are alive.

    Returns:
        ``[*B, n_orders, n_agents]``, by agent.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> predecessor_mean(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([[2, 0, 1]]))
        tensor([[6.0000, 3.5000, 0.0000]])
    """
    *batch, n_orders, n_agents = order.shape
    check_exact_shape("local_value", local_value, (*batch, n_agents), "[*B, n_agents]")
    counted = torch.ones_like(local_value)
    if alive is not None:
        check_exact_shape("alive", alive, (*batch, n_agents), "[*B, n_agents]")
        counted = alive.to(local_value.dtype)
    shape = (*batch, n_orders, n_agents)
    value = (counted * local_value).unsqueeze(-2).expand(shape).gather(-1, order)
    number = counted.unsqueeze(-2).expand(shape).gather(-1, order)
    before = value.cumsum(-1) - value
    mean = before / (number.cumsum(-1) - number).clamp(min=1.0)
    return mean.gather(-1, order.argsort(-1))


def scaled_values(local_value: Tensor, best_value: Tensor, coalition_weight: Tensor) -> Tensor:
    """SHAQ's scaling of values of actions that are not greedy.

        delta_i(u_i) Q_i(u_i),   delta_i = 1 if u_i is agent i's best action, else alpha_i

    (Wang et al. 2022, https://arxiv.org/abs/2105.15013.)

    Args:
        local_value: ``[*B, n_agents]``, Q_i(u_i).
        best_value: ``[*B, n_agents]``, the largest value of each agent's available actions.
        coalition_weight: ``[*B, n_agents]``, alpha >= 1.

    Returns:
        ``[*B, n_agents]``; no gradient to ``best_value``.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> scaled_values(torch.tensor([2.0, 3.0]), torch.tensor([2.0, 5.0]), torch.tensor([4.0, 4.0]))
        tensor([ 2., 12.])
    """
    check_same_shape(
        local_value=local_value, best_value=best_value, coalition_weight=coalition_weight
    )
    is_best = local_value >= best_value
    return torch.where(is_best, local_value, coalition_weight * local_value)
