"""Targets of value-based learning from one reward, n of them, or a mixture of all numbers of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_choice, check_count, check_fraction
from marl_td.losses.functional.returns import lambda_return, n_step_return, one_step_target

Q_LAMBDAS = ("peng", "watkins", "corrected")
QLambda = Literal["peng", "watkins", "corrected"]


@dataclass(frozen=True)
class Returns:
    """Which target is meant.

    Args:
        lmbda: mixing of n-step returns in [0, 1]; 0 is one-step.
        n_steps: rewards in an n-step return, at least 1; above 1 it needs ``lmbda`` 0.
        q_lambda: what ``lmbda`` does about actions that are not greedy: nothing (``"peng"``), it stops there
            (``"watkins"``), or corrects by their values (``"corrected"``); the equations are at
            :func:`marl_td.losses.functional.returns.lambda_return`.

    Raises:
        ValueError: for a number out of range, an unknown ``q_lambda``, or ``lmbda`` above 0 with ``n_steps``
            above 1.
    """

    lmbda: float = 0.0
    n_steps: int = 1
    q_lambda: QLambda = "peng"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_fraction("lmbda", self.lmbda)
        check_choice("q_lambda", self.q_lambda, Q_LAMBDAS)
        check_count(n_steps=self.n_steps)
        if self.lmbda > 0.0 and self.n_steps > 1:
            raise ValueError(
                f"`lmbda` = {self.lmbda} and `n_steps` = {self.n_steps} are two ways of using several "
                "rewards; leave one of them at its default."
            )

    @property
    def needs_sequences(self) -> bool:
        """Whether the target of a step takes later steps."""
        return self.lmbda > 0.0 or self.n_steps > 1

    def check_single_steps(self) -> None:
        """Raise ``ValueError`` if single steps are not enough."""
        if self.needs_sequences:
            name = f"lmbda` = {self.lmbda}" if self.lmbda > 0.0 else f"n_steps` = {self.n_steps}"
            raise ValueError(
                f"`{name} needs whole episodes; set sequences=True and give batches "
                "[*B, T] with one episode a row."
            )

    def target(
        self,
        reward: Tensor,
        next_value: Tensor,
        terminated: Tensor,
        goes_on: Tensor,
        *,
        gamma: float,
        time_dim: int,
        is_greedy: Callable[[], Tensor],
        chosen_value: Callable[[], Tensor],
    ) -> Tensor:
        """The target, shaped like ``reward``.

        Args:
            reward: ``[*B, T, ...]``, time at ``time_dim``.
            next_value: like ``reward``, target value of the best action in the state that step t reaches.
            terminated: bool like ``reward``; true where the trajectory really ends.
            goes_on: bool like ``reward``; true where step t is followed by step t + 1 of its trajectory.
            gamma: discount in [0, 1].
            time_dim: which dimension is time.
            is_greedy: gives a bool like ``reward``, whether step t took a best action; called if needed.
            chosen_value: gives the target value of step t's action, like ``reward``; called if needed.
        """
        if not self.needs_sequences:
            return one_step_target(reward, next_value, terminated, gamma=gamma)
        steps = (reward, next_value, ~goes_on, terminated)
        if self.n_steps > 1:
            return n_step_return(*steps, gamma=gamma, n_steps=self.n_steps, time_dim=time_dim)
        corrections: dict[str, Tensor] = {}
        if self.q_lambda == "watkins":
            corrections["keeps"] = _later(is_greedy(), time_dim)
        elif self.q_lambda == "corrected":
            # What follows a cut may be anything, and anything times 0 need not be 0.
            chosen = torch.where(goes_on, _later(chosen_value(), time_dim), next_value)
            corrections["next_chosen_value"] = chosen
        return lambda_return(
            *steps, gamma=gamma, lmbda=self.lmbda, time_dim=time_dim, **corrections
        )


def followed(valid: Tensor, time_dim: int) -> Tensor:
    """True where the next step along ``time_dim`` is there and ``valid``, shaped like it."""
    later = valid.narrow(time_dim, 1, valid.shape[time_dim] - 1)
    return torch.cat([later, torch.zeros_like(valid.narrow(time_dim, 0, 1))], dim=time_dim)


def _later(value: Tensor, time_dim: int) -> Tensor:
    """``value`` of the next step; the last step keeps its own."""
    n_later = value.shape[time_dim] - 1
    later, last = value.narrow(time_dim, 1, n_later), value.narrow(time_dim, n_later, 1)
    return torch.cat([later, last], dim=time_dim)
