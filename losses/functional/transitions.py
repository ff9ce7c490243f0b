"""Several consecutive steps as one transition, for replay of single items."""

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.losses.functional.checks import (
    check_bool,
    check_fraction,
    check_same_shape,
    check_shape,
)


class Transitions(NamedTuple):
    """What n steps are worth as one."""

    reward: Tensor
    """``[*B, T, n_agents]``: discounted sum of the rewards up to the last step."""
    terminated: Tensor
    """``[*B, T, n_agents]`` bool: whether it ended really on the way."""
    last: Tensor
    """``[*B, T]`` int64: index of the last step, whose reached state the transition reaches."""
    discount: Tensor
    """``[*B, T]``: gamma to the power of the number of steps."""


def n_step_transitions(
    reward: Tensor, terminated: Tensor, done: Tensor, *, gamma: float, n_steps: int
) -> Transitions:
    """The next n steps from each one, fewer where the episode or the row ends before.

        R_t = r_t + gamma r_{t+1} + .. + gamma^(k-1) r_{t+k-1},   y_t = R_t + gamma^k V(s_{t+k})

    (Sutton and Barto 2018, Reinforcement Learning, eq. 7.1.) An agent's rewards end with its own termination;
    the state reached is the environment's.

    y is :func:`marl_td.losses.functional.returns.n_step_return`, for a V that is computed later. The parts
    are not made by calling that (R with V = 0, gamma^k with V = 1 and no rewards): it gives the same numbers,
    in 1.1 to 2.2 times the time.

    Args:
        reward: ``[*B, T, n_agents]`` of consecutive steps.
        terminated: bool like ``reward``.
        done: ``[*B, T]`` bool, ends of the environment's episodes, for whatever reason.
        gamma: discount in [0, 1].
        n_steps: n, at least 1.

    Raises:
        TypeError: if ``terminated`` or ``done`` is not bool.
        ValueError: if shapes do not fit or a number is out of range.

    Example:
        >>> import torch
        >>> no = torch.zeros(3, dtype=torch.bool)
        >>> found = n_step_transitions(torch.tensor([[1.0], [2.0], [4.0]]), no.unsqueeze(-1), no,
        ...                            gamma=0.5, n_steps=2)
        >>> found.reward.squeeze(-1), found.last, found.discount
        (tensor([2., 4., 4.]), tensor([1, 2, 2]), tensor([0.2500, 0.2500, 0.5000]))
    """
    check_same_shape(reward=reward, terminated=terminated)
    check_shape("done", done, reward.shape[:-1], "[*B, T]")
    check_bool("terminated", terminated)
    check_bool("done", done)
    check_fraction("gamma", gamma)
    if n_steps < 1:
        raise ValueError(f"`n_steps` must be at least 1; got {n_steps}.")
    n_rows = reward.shape[-2]
    here = torch.arange(n_rows, device=reward.device).expand(done.shape)
    goes_on = ~done & (here < n_rows - 1)
    total, ended, last = reward, terminated, here
    discount = torch.full(done.shape, gamma, dtype=reward.dtype, device=reward.device)
    one = discount
    for _ in range(min(n_steps, n_rows) - 1):
        lives = goes_on.unsqueeze(-1) & ~terminated
        total = reward + torch.where(lives, gamma * _later(total, -2), 0.0)
        ended = terminated | (lives & _later(ended, -2))
        last = torch.where(goes_on, _later(last, -1), here)
        discount = torch.where(goes_on, gamma * _later(discount, -1), one)
    return Transitions(total, ended, last, discount)


def _later(value: Tensor, time_dim: int) -> Tensor:
    """``value`` of the next step; what the last one gets is not used."""
    return value.roll(-1, dims=time_dim)
