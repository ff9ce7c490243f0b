"""WoLF-PHC's policy step, and drawing from tabular policies with noise that is given."""

import torch
from torch import Tensor

from marl_td.losses.functional.action_values import masked_argmax
from marl_td.losses.functional.checks import check_exact_shape, check_fraction, check_same_shape


def average_policy_update(average_policy: Tensor, policy: Tensor, n_visits: Tensor) -> Tensor:
    """The mean of the policies so far: ``p_mean <- p_mean + (p - p_mean) / n``.

    (WoLF-PHC, Bowling and Veloso 2002, *Multiagent learning using a variable learning rate*,
    https://doi.org/10.1016/S0004-3702(02)00121-2.)

    Args:
        average_policy: ``[*B, n_agents, n_actions]``, p_mean.
        policy: likewise, p.
        n_visits: ``[*B, n_agents]``, n >= 1: visits of the state, this one included.

    Returns:
        The new ``average_policy``.

    Raises:
        ValueError: if shapes do not fit.
    """
    check_same_shape(average_policy=average_policy, policy=policy)
    check_exact_shape("n_visits", n_visits, policy.shape[:-1], "[*B, n_agents]")
    return average_policy + (policy - average_policy) / n_visits.unsqueeze(-1)


def wolf_update(
    policy: Tensor,
    average_policy: Tensor,
    action_value: Tensor,
    greedy_action: Tensor,
    action_mask: Tensor | None = None,
    *,
    delta_win: float,
    delta_lose: float,
) -> Tensor:
    """Move probability to the greedy action: slowly when winning, fast when losing.

        delta        = delta_win if sum_u p(u) Q(u) > sum_u p_mean(u) Q(u) else delta_lose
        delta(u)     = min(p(u), delta / (n_available - 1))       for every other action u
        p(u)        <- p(u) - delta(u)
        p(greedy u) <- p(greedy u) + sum of the delta(u)

    (WoLF-PHC, Bowling and Veloso 2002; algorithm 2 of Matignon et al. 2012,
    https://doi.org/10.1017/S0269888912000057.)

    Args:
        policy: ``[*B, n_agents, n_actions]``, p: rows that sum to 1, unavailable actions 0.
        average_policy: likewise, p_mean.
        action_value: likewise, Q.
        greedy_action: ``[*B, n_agents]`` int64, the greedy available action.
        action_mask: like ``policy``, bool, true = available; None if all are.
        delta_win: step when winning, in [0, 1].
        delta_lose: step when losing, in [``delta_win``, 1].

    Returns:
        The new ``policy``; rows sum to 1.

    Raises:
        ValueError: if shapes do not fit, or a step is out of range.

    Example:
        >>> import torch
        >>> even = torch.full((1, 3), 1 / 3)
        >>> wolf_update(even, even, torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1]),
        ...             delta_win=0.1, delta_lose=0.2)
        tensor([[0.2333, 0.5333, 0.2333]])
    """
    check_fraction("delta_win", delta_win)
    check_fraction("delta_lose", delta_lose)
    if delta_win > delta_lose:
        raise ValueError(
            f"`delta_lose` must be at least `delta_win`; got {delta_lose} and {delta_win}."
        )
    check_same_shape(policy=policy, average_policy=average_policy, action_value=action_value)
    check_exact_shape("greedy_action", greedy_action, policy.shape[:-1], "[*B, n_agents]")
    wins = ((policy - average_policy) * action_value).sum(-1, keepdim=True) > 0.0
    available = torch.ones_like(policy, dtype=torch.bool) if action_mask is None else action_mask
    check_same_shape(policy=policy, action_mask=available)
    n_others = (available.sum(-1, keepdim=True) - 1).clamp(min=1)
    step = torch.where(wins, delta_win, delta_lose) / n_others
    is_greedy = greedy_action.unsqueeze(-1) == torch.arange(policy.shape[-1], device=policy.device)
    given = torch.where(is_greedy, torch.zeros_like(policy), torch.minimum(policy, step))
    return torch.where(is_greedy, policy + given.sum(-1, keepdim=True), policy - given)


def boltzmann_action(
    action_value: Tensor, gumbel: Tensor, temperature: float, action_mask: Tensor | None = None
) -> Tensor:
    """An action drawn from the softmax of values / temperature.

        p(u) = exp(Q(u) / tau) / sum over the available v of exp(Q(v) / tau)

    It is the largest of ``Q(u) / tau`` plus independent Gumbel noise, which has that distribution.

    Args:
        action_value: ``[*B, n_actions]``, Q.
        gumbel: ``[*B, n_actions]``, see :func:`marl_td.losses.functional.deterministic.gumbel_of_uniform`.
        temperature: tau > 0, in units of the values.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are.

    Returns:
        ``[*B]`` int64.

    Raises:
        ValueError: if shapes differ or the temperature is not positive.
    """
    if not temperature > 0.0:
        raise ValueError(f"`temperature` must be above 0; got {temperature}.")
    check_same_shape(action_value=action_value, gumbel=gumbel)
    return masked_argmax(action_value / temperature + gumbel, action_mask)


def policy_action(policy: Tensor, gumbel: Tensor) -> Tensor:
    """An action drawn from given probabilities.

    Args:
        policy: ``[*B, n_actions]``, non-negative, not all 0.
        gumbel: ``[*B, n_actions]``, see :func:`marl_td.losses.functional.deterministic.gumbel_of_uniform`.

    Returns:
        ``[*B]`` int64: never an action of probability 0.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(policy=policy, gumbel=gumbel)
    return masked_argmax(policy.log() + gumbel, policy > 0.0)
