"""Update rules of independent learners with tables: Q-learning, its optimistic relatives, WoLF-PHC.

A table has one row of actions per agent, ``[*B, n_agents, n_actions]``; ``*B`` are independent runs, or the
rows of the states that the runs are in. Every rule takes the target ``[*B, n_agents]`` of the chosen
action, ``y = r + gamma (1 - terminated) max_u Q_i(s', u)`` (see
:func:`marl_td.losses.functional.returns.one_step_target`), which in a one-step game is the reward, and
returns new tables. Where an agent's action is -1 (it is dead, or padding) its tables of values stay.

Matignon et al. 2012 below is *Independent reinforcement learners in cooperative Markov games: a survey
regarding coordination problems*, https://doi.org/10.1017/S0269888912000057.
"""

import torch
from torch import Tensor

from marl_td.losses.functional.action_values import (
    chosen_action_value,
    mask_unavailable,
    masked_argmax,
    masked_max,
)
from marl_td.losses.functional.checks import check_exact_shape, check_fraction, check_same_shape


def hysteretic_update(
    action_value: Tensor, action: Tensor, value_target: Tensor, *, alpha: float, beta: float
) -> Tensor:
    """Q-learning that learns good news faster than bad news.

        delta = y - Q(u)        Q(u) <- Q(u) + (alpha if delta >= 0 else beta) delta

    (Hysteretic Q-learning, Matignon et al. 2007, https://doi.org/10.1109/IROS.2007.4399095.) With
    beta = alpha it is independent Q-learning, with alpha = 1 and beta = 0 distributed Q-learning's maximum.

    Args:
        action_value: ``[*B, n_agents, n_actions]``, Q, in units of the return.
        action: ``[*B, n_agents]`` int64, u; -1 changes nothing.
        value_target: ``[*B, n_agents]``, y.
        alpha: learning rate where the target lies above the value, in [0, 1].
        beta: learning rate where it lies below, in [0, 1].

    Returns:
        The new ``action_value``.

    Raises:
        ValueError: if shapes do not fit or a rate is out of range.

    Example:
        >>> import torch
        >>> q, u = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> hysteretic_update(q, u, torch.tensor([10.0, -10.0]), alpha=0.1, beta=0.01)
        tensor([[ 1.0000,  0.0000],
                [ 0.0000, -0.1000]])
    """
    check_fraction("alpha", alpha)
    check_fraction("beta", beta)
    chosen, target = _chosen(action_value, action, value_target)
    error = target - action_value
    step = alpha * error if alpha == beta else torch.where(error < 0.0, beta * error, alpha * error)
    return torch.where(chosen, action_value + step, action_value)


def q_update(action_value: Tensor, action: Tensor, value_target: Tensor, *, alpha: float) -> Tensor:
    """Independent ("decentralised") Q-learning: ``Q(u) <- Q(u) + alpha (y - Q(u))`` for every agent.

    (Watkins and Dayan 1992; for teams Tan 1993 and Claus and Boutilier 1998.) Arguments, result and errors as
    for :func:`hysteretic_update`.
    """
    return hysteretic_update(action_value, action, value_target, alpha=alpha, beta=alpha)


def maximum_update(max_value: Tensor, action: Tensor, value_target: Tensor) -> Tensor:
    """The best that each action ever led to: ``Q_max(u) <- max(Q_max(u), y)``.

    (Distributed Q-learning, Lauer and Riedmiller 2000, *An Algorithm for Distributed Reinforcement Learning
    in Cooperative Multi-Agent Systems*; Matignon et al. 2012, algorithm 1.) It must start no higher than the
    smallest return. In deterministic games it becomes the value of the action if the others do their best.

    Args:
        max_value: ``[*B, n_agents, n_actions]``, Q_max.
        action: ``[*B, n_agents]`` int64, u; -1 changes nothing.
        value_target: ``[*B, n_agents]``, y.

    Returns:
        The new ``max_value``.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> maximum_update(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([10.0, -10.0]))
        tensor([[10.,  0.],
                [ 0.,  0.]])
    """
    chosen, target = _chosen(max_value, action, value_target)
    return torch.where(chosen, torch.maximum(max_value, target), max_value)


def random_greedy(
    action_value: Tensor, tie_noise: Tensor, action_mask: Tensor | None = None
) -> Tensor:
    """An available action of the largest value, at random where several have it.

    Args:
        action_value: ``[*B, n_actions]``.
        tie_noise: ``[*B, n_actions]``, independent and of one continuous distribution: the largest wins.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are.

    Returns:
        ``[*B]`` int64.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> random_greedy(torch.tensor([2.0, 2.0, 1.0]), torch.tensor([0.1, 0.5, 0.9]))
        tensor(1)
    """
    check_same_shape(action_value=action_value, tie_noise=tie_noise)
    is_best = action_value == masked_max(action_value, action_mask).unsqueeze(-1)
    if action_mask is not None:
        is_best = is_best & action_mask
    return masked_argmax(tie_noise, is_best)


def keep_greedy(
    greedy_action: Tensor,
    action_value: Tensor,
    tie_noise: Tensor,
    action_mask: Tensor | None = None,
) -> Tensor:
    """The social convention: an agent's greedy action stays until another one is strictly better.

    So agents that found one of several best joint actions together stay there (Lauer and Riedmiller 2000;
    the equilibria selection of Matignon et al. 2012, algorithms 1 and 3).

    Args:
        greedy_action: ``[*B]`` int64, the greedy action so far.
        action_value: ``[*B, n_actions]``, the values now.
        tie_noise: ``[*B, n_actions]``, see :func:`random_greedy`, by which a new one is chosen.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are.

    Returns:
        ``[*B]`` int64.

    Raises:
        ValueError: if shapes do not fit.
    """
    kept = chosen_action_value(mask_unavailable(action_value, action_mask), greedy_action)
    still_best = kept == masked_max(action_value, action_mask)
    return torch.where(
        still_best, greedy_action, random_greedy(action_value, tie_noise, action_mask)
    )


def maximum_count_update(
    max_value: Tensor, n_maximum: Tensor, n_chosen: Tensor, action: Tensor, value_target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """How often each action led to the best it ever led to, by counting.

    (FMQ, Kapetanakis and Kudenko 2002, *Reinforcement Learning of Coordination in Cooperative Multi-Agent
    Systems*.) A new maximum is counted from 1; the frequency is ``n_maximum / n_chosen``.

    Args:
        max_value: ``[*B, n_agents, n_actions]``, maxR, at first no higher than the smallest return.
        n_maximum: like ``max_value``: how often it was received.
        n_chosen: like ``max_value``: how often the action was taken.
        action: ``[*B, n_agents]`` int64; -1 changes nothing.
        value_target: ``[*B, n_agents]``, the reward.

    Returns:
        The new ``(max_value, n_maximum, n_chosen)``.

    Raises:
        ValueError: if shapes do not fit.
    """
    check_same_shape(max_value=max_value, n_maximum=n_maximum, n_chosen=n_chosen)
    chosen, target = _chosen(max_value, action, value_target)
    one = torch.ones_like(n_maximum)
    counted = torch.where(target > max_value, one, n_maximum + (target == max_value))
    new_max = torch.where(chosen, torch.maximum(max_value, target), max_value)
    return new_max, torch.where(chosen, counted, n_maximum), n_chosen + chosen


def fmq_evaluation(
    action_value: Tensor, max_value: Tensor, n_maximum: Tensor, n_chosen: Tensor, *, weight: float
) -> Tensor:
    """FMQ's evaluation of actions ``E(u) = Q(u) + c F(u) maxR(u)``, F the frequency of the maximum.

    (Kapetanakis and Kudenko 2002.) Of an action never taken it is Q.

    Args:
        action_value: ``[*B, n_agents, n_actions]``, Q.
        max_value: likewise, and the counts, see :func:`maximum_count_update`.
        n_maximum: likewise.
        n_chosen: likewise.
        weight: c >= 0.

    Returns:
        ``[*B, n_agents, n_actions]``.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(
        action_value=action_value, max_value=max_value, n_maximum=n_maximum, n_chosen=n_chosen
    )
    frequency = n_maximum / n_chosen.clamp(min=1.0)
    return torch.where(n_chosen > 0, action_value + weight * frequency * max_value, action_value)


def recursive_frequency_update(
    max_value: Tensor,
    frequency: Tensor,
    action: Tensor,
    value_target: Tensor,
    *,
    alpha_frequency: float,
) -> tuple[Tensor, Tensor]:
    """How often each action leads to the best it ever led to, forgetting the past.

        y > Q_max(u):  Q_max(u) <- y,  F(u) <- 1
        y = Q_max(u):  F(u) <- (1 - alpha_f) F(u) + alpha_f
        y < Q_max(u):  F(u) <- (1 - alpha_f) F(u)

    (Recursive FMQ, Matignon et al. 2008, *A study of FMQ heuristic in cooperative multi-agent games*; 2012,
    algorithm 3.)

    Args:
        max_value: ``[*B, n_agents, n_actions]``, Q_max.
        frequency: like ``max_value``, F, in [0, 1], 1 at first.
        action: ``[*B, n_agents]`` int64, u; -1 changes nothing.
        value_target: ``[*B, n_agents]``, y.
        alpha_frequency: alpha_f, in [0, 1].

    Returns:
        The new ``(max_value, frequency)``.

    Raises:
        ValueError: if shapes do not fit or the rate is out of range.
    """
    check_fraction("alpha_frequency", alpha_frequency)
    check_same_shape(max_value=max_value, frequency=frequency)
    chosen, target = _chosen(max_value, action, value_target)
    followed = frequency + alpha_frequency * ((target == max_value).to(frequency) - frequency)
    new = torch.where(target > max_value, torch.ones_like(frequency), followed)
    new_max = torch.where(chosen, torch.maximum(max_value, target), max_value)
    return new_max, torch.where(chosen, new, frequency)


def recursive_fmq_evaluation(action_value: Tensor, max_value: Tensor, frequency: Tensor) -> Tensor:
    """Recursive FMQ's evaluation of actions, between the mean and the best of what they led to.

        E(u) = (1 - F(u)) Q(u) + F(u) Q_max(u)

    (Matignon et al. 2012, algorithm 3.) With F = 1 these are distributed Q-learning's values, with F = 0
    independent Q-learning's.

    Args:
        action_value: ``[*B, n_agents, n_actions]``, Q.
        max_value: likewise, Q_max.
        frequency: likewise, F in [0, 1].

    Returns:
        ``[*B, n_agents, n_actions]``.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(action_value=action_value, max_value=max_value, frequency=frequency)
    return (1.0 - frequency) * action_value + frequency * max_value


def _chosen(table: Tensor, action: Tensor, value_target: Tensor) -> tuple[Tensor, Tensor]:
    """Which entries were taken, ``[*B, n_agents, n_actions]`` bool, and the targets, broadcastable to it."""
    check_exact_shape("action", action, table.shape[:-1], "[*B, n_agents]")
    check_exact_shape("value_target", value_target, table.shape[:-1], "[*B, n_agents]")
    index = torch.arange(table.shape[-1], device=table.device)
    return action.unsqueeze(-1) == index, value_target.unsqueeze(-1)
