"""Regression targets and advantages from rewards and values, along a time dimension.

All functions are batched: with ``time_dim=-1`` tensors are ``[*B, T]`` (a team), with ``time_dim=-2`` they
are ``[*B, T, n_agents]``. ``next_value[t]`` is the value of the state reached by step t, *before* any reset,
so that a step whose ``done`` is true still bootstraps unless it also ``terminated``.
"""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_bool, check_fraction, check_same_shape


def one_step_target(
    reward: Tensor, next_value: Tensor, terminated: Tensor, *, gamma: float
) -> Tensor:
    """TD(0) target ``y = r + gamma (1 - terminated) v'``.

    Args:
        reward: ``[*B]``.
        next_value: ``[*B]``, value of the next state, usually from target parameters.
        terminated: ``[*B]`` bool; a time limit is not a termination.
        gamma: discount in [0, 1].

    Returns:
        ``[*B]``; gradient flows if it does in the arguments.

    Raises:
        TypeError: if ``terminated`` is not bool.
        ValueError: if shapes differ or ``gamma`` is out of range.

    Example:
        >>> import torch
        >>> one_step_target(torch.tensor([1.0, 1.0]), torch.tensor([10.0, 10.0]),
        ...                 torch.tensor([False, True]), gamma=0.5)
        tensor([6., 1.])
    """
    check_same_shape(reward=reward, next_value=next_value, terminated=terminated)
    check_bool("terminated", terminated)
    check_fraction("gamma", gamma)
    return reward + gamma * torch.where(terminated, torch.zeros_like(next_value), next_value)


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    done: Tensor,
    terminated: Tensor,
    *,
    gamma: float,
    lmbda: float,
    time_dim: int = -2,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16).

        delta_t = r_t + gamma (1 - terminated_t) v'_t - v_t
        A_t     = delta_t + gamma lmbda (1 - done_t) A_{t+1}

    Args:
        reward: ``[*B, T, ...]``, time at ``time_dim``.
        value: like ``reward``, value of the state in which step t acts.
        next_value: like ``reward``, value of the state that step t reaches.
        done: bool like ``reward``; true where the trajectory ends, for whatever reason.
        terminated: bool like ``reward``; true where it really ends.
        gamma: discount in [0, 1].
        lmbda: mixing of n-step returns in [0, 1].
        time_dim: which dimension is time.

    Returns:
        ``(advantage, value_target)``, both like ``reward``; ``value_target = advantage + value``.

    Raises:
        TypeError: if ``done`` or ``terminated`` is not bool.
        ValueError: if shapes differ or ``gamma`` or ``lmbda`` is out of range.
    """
    check_same_shape(
        reward=reward, value=value, next_value=next_value, done=done, terminated=terminated
    )
    check_bool("done", done)
    check_fraction("lmbda", lmbda)
    delta = one_step_target(reward, next_value, terminated, gamma=gamma) - value
    keep = gamma * lmbda * (~done).to(delta.dtype)
    advantage = _backward_sum(delta, keep, time_dim)
    return advantage, advantage + value


def lambda_return(
    reward: Tensor,
    next_value: Tensor,
    done: Tensor,
    terminated: Tensor,
    *,
    gamma: float,
    lmbda: float,
    time_dim: int = -1,
    next_chosen_value: Tensor | None = None,
    keeps: Tensor | None = None,
) -> Tensor:
    """TD(lambda) target, and with the last two arguments the two forms of Q(lambda) that correct it.

        G_t = r_t + gamma (1 - terminated_t) [v'_t + lmbda c_t (G_{t+1} - b_t)]

    with ``G_{t+1} = b_t`` where the trajectory is cut (``done_t``, or the last step given). v' is the value
    of the next state's best action; u' is the action that was really taken there.

    * b = v', c = 1 (the defaults): the mixture (1 - lmbda) v' + lmbda G of Peng and Williams 1994,
      "Incremental multi-step Q-learning", and of PyMARL2 (Hu et al. 2021,
      https://arxiv.org/abs/2102.03479). It takes the return of u' for that of the best action.
    * c = 1 where u' is a best action, else 0 (``keeps``): Watkins 1989, "Learning from delayed rewards".
    * b = Q(s', u') (``next_chosen_value``): Harutyunyan et al. 2016, "Q(lambda) with off-policy
      corrections", https://arxiv.org/abs/1602.04951 (Q*, the greedy target policy).

    Where every u' is a best action all three are the same.

    Args:
        reward: ``[*B, T, ...]``, time at ``time_dim``.
        next_value: like ``reward``: v'.
        done: bool like ``reward``.
        terminated: bool like ``reward``.
        gamma: discount in [0, 1].
        lmbda: 0 gives TD(0), 1 (with the defaults) the Monte-Carlo return.
        time_dim: which dimension is time.
        next_chosen_value: like ``reward``, finite: b; None for ``next_value``.
        keeps: bool like ``reward``: c; None for true everywhere.

    Returns:
        Like ``reward``.

    Raises:
        TypeError: if ``done`` or ``terminated`` is not bool.
        ValueError: if shapes differ or ``gamma`` or ``lmbda`` is out of range.
    """
    check_fraction("lmbda", lmbda)
    baseline = next_value if next_chosen_value is None else next_chosen_value
    check_same_shape(
        reward=reward,
        next_value=next_value,
        done=done,
        terminated=terminated,
        next_chosen_value=baseline,
        keeps=done if keeps is None else keeps,
    )
    check_bool("done", done)
    one_step = one_step_target(reward, next_value, terminated, gamma=gamma)
    goes_on = ~(done | terminated) if keeps is None else keeps & ~(done | terminated)
    # G_t = one_step_t + gamma lmbda c_t (1 - cut_t) (G_{t+1} - b_t): solved for the difference G - one_step.
    keep = gamma * lmbda * goes_on.to(reward.dtype)
    following = torch.cat([_tail(one_step, time_dim), _last(baseline, time_dim)], dim=time_dim)
    correction = keep * (following - baseline)
    return one_step + _backward_sum(correction, keep, time_dim)


def n_step_return(
    reward: Tensor,
    next_value: Tensor,
    done: Tensor,
    terminated: Tensor,
    *,
    gamma: float,
    n_steps: int,
    time_dim: int = -1,
) -> Tensor:
    """Target of the next n rewards and the value of the state after them.

        G_t = r_t + gamma r_{t+1} + .. + gamma^(n-1) r_{t+n-1} + gamma^n v'_{t+n-1}

    (Sutton and Barto 2018, Reinforcement Learning, eq. 7.1.) Where the trajectory is cut earlier
    (``done``, or the last step given) the sum ends there with the value reached, and with no value where it
    ``terminated``.

    Args:
        reward: ``[*B, T, ...]``, time at ``time_dim``.
        next_value: like ``reward``.
        done: bool like ``reward``.
        terminated: bool like ``reward``.
        gamma: discount in [0, 1].
        n_steps: n, at least 1; 1 gives TD(0).
        time_dim: which dimension is time.

    Returns:
        Like ``reward``.

    Raises:
        TypeError: if ``done`` or ``terminated`` is not bool.
        ValueError: if shapes differ, ``gamma`` is out of range or ``n_steps`` is below 1.

    Example:
        >>> import torch
        >>> no = torch.tensor([False, False, False])
        >>> n_step_return(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 0.0, 8.0]), no, no,
        ...               gamma=0.5, n_steps=2)
        tensor([2., 6., 8.])
    """
    if n_steps < 1:
        raise ValueError(f"`n_steps` must be at least 1; got {n_steps}.")
    check_same_shape(reward=reward, next_value=next_value, done=done, terminated=terminated)
    check_bool("done", done)
    target = one_step_target(reward, next_value, terminated, gamma=gamma)
    for _ in range(min(n_steps, reward.shape[time_dim]) - 1):
        following = torch.cat([_tail(target, time_dim), _last(next_value, time_dim)], dim=time_dim)
        value = torch.where(done, next_value, following)
        target = one_step_target(reward, value, terminated, gamma=gamma)
    return target


def _backward_sum(source: Tensor, keep: Tensor, time_dim: int) -> Tensor:
    """``x_t = source_t + keep_t x_{t+1}`` with ``x_T = 0``.

    By doubling: after each turn ``source_t`` holds the terms of twice as many steps, and ``keep_t`` what a
    step that far ahead counts. So T steps take log2(T) operations on whole tensors.
    """
    n_steps, span = source.shape[time_dim], 1
    while span < n_steps:
        near, reached = n_steps - span, keep.narrow(time_dim, 0, n_steps - span)
        later = reached * source.narrow(time_dim, span, near)
        source = torch.cat(
            [source.narrow(time_dim, 0, near) + later, source.narrow(time_dim, near, span)],
            time_dim,
        )
        rest = torch.zeros_like(keep.narrow(time_dim, near, span))
        keep = torch.cat([reached * keep.narrow(time_dim, span, near), rest], time_dim)
        span *= 2
    return source


def _tail(value: Tensor, time_dim: int) -> Tensor:
    return value.narrow(time_dim, 1, value.shape[time_dim] - 1)


def _last(value: Tensor, time_dim: int) -> Tensor:
    return value.narrow(time_dim, value.shape[time_dim] - 1, 1)
