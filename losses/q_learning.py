"""What the losses of value-based learning share: values now and next, targets, masks, errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules, checked_keys
from marl_td.losses.entries import flag, masked_mean, next_key, read, read_flag
from marl_td.losses.functional.checks import (
    check_choice,
    check_fraction,
    check_not_negative,
    check_positive,
)
from marl_td.losses.functional.priorities import item_priority
from marl_td.losses.functional.returns import one_step_target
from marl_td.losses.multi_step import QLambda, Returns, followed
from marl_td.losses.network_values import NetworkValues
from marl_td.losses.regression import LOSS_FUNCTIONS, LossFunction, regression_error
from marl_td.losses.targets import target_copy
from marl_td.losses.trajectory import real_steps


class QLearningLoss(NetworkValues):
    """Base of the losses that learn the values of discrete actions from replayed steps.

    The regression target bootstraps from the value of the next step's greedy available action, chosen by
    the live network (double Q-learning) or by the target network.

    With ``sequences`` a row of the batch ``[*B, T]`` is one episode or a window of one, and the networks are
    run once over its T + 1 observations. A row that goes on after its episode ended, or is padded,
    does no harm: those steps do not count. Hidden states start from zero, or (``states``) from those stored
    with the first step; the first ``burn_in`` steps only warm them up: they give neither loss nor gradient.
    Other networks of the agents (CW- and OW-QMIX's, QTRAN's) did not act, so that no state of theirs is
    stored: they start from zero.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``.
        gamma: discount in [0, 1].
        double_q: the live network chooses the next action and the target network values it; if
            false, the target network does both.
        loss_function: ``"l2"``, ``"l1"``, ``"smooth_l1"`` or ``"huber"`` of the error.
        huber_delta: error at which ``"huber"`` becomes linear, in units of the return, > 0.
        lmbda: mixing of n-step returns in [0, 1]; 0 is one-step. Above 0 it needs ``sequences``.
        n_steps: rewards in an n-step return, at least 1. Above 1 it needs ``sequences`` and ``lmbda`` 0.
        q_lambda: what ``lmbda`` does about replayed actions that are not greedy: nothing (``"peng"``), it
            stops there (``"watkins"``), or corrects by their values (``"corrected"``); the equations are at
            :func:`marl_td.losses.functional.returns.lambda_return`. Greedy is what the live network says.
        sequences: whether a batch is ``[*B, T]`` with one episode, or a window of one, a row.
        burn_in: steps at the beginning of each row that only warm up hidden states, at least 0.
        states: keys of the hidden states of ``network`` that are in the data, which it reads before a step
            and writes under ``"next"``.
        priority_eta: share of the largest error in the priority of a row, in [0, 1]; the rest is their mean.

    Raises:
        TypeError: for a network that is no TensorDictModule, or a number that is none.
        ValueError: for an unknown choice, a number out of range, ``lmbda`` above 0, ``n_steps``
            above 1, ``burn_in`` or ``states`` without ``sequences``, or both of the first at once; on a batch
            that has no step after ``burn_in``.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = ("agents", "action")
        action_value: NestedKey = ("agents", "action_value")
        action_mask: NestedKey = ("agents", "action_mask")
        mask: NestedKey = ("agents", "mask")
        step_mask: NestedKey = "step_mask"
        is_init: NestedKey = "is_init"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        priority: NestedKey = ("agents", "td_error")
        item_priority: NestedKey = ("agents", "priority")
        priority_weight: NestedKey = "priority_weight"

    out_keys: ClassVar[list[str]]

    def __init__(
        self,
        network: TensorDictModuleBase,
        *,
        gamma: float = 0.99,
        double_q: bool = True,
        loss_function: LossFunction = "l2",
        huber_delta: float = 1.0,
        lmbda: float = 0.0,
        n_steps: int = 1,
        q_lambda: QLambda = "peng",
        sequences: bool = False,
        burn_in: int = 0,
        states: Sequence[NestedKey] = (),
        priority_eta: float = 0.9,
    ) -> None:
        super().__init__()
        check_modules(network=network)
        check_fraction("gamma", gamma)
        check_fraction("priority_eta", priority_eta)
        check_choice("loss_function", loss_function, LOSS_FUNCTIONS)
        check_positive(huber_delta=huber_delta)
        check_not_negative(burn_in=burn_in)
        for name, given in (("burn_in", burn_in), ("states", states)):
            if given and not sequences:
                raise ValueError(f"`{name}` needs sequences=True and batches [*B, T]; got {given}.")
        self.network = network
        if self.has_target:
            self.target_network = target_copy(network)
        self.gamma = gamma
        self.double_q = double_q
        self.loss_function = loss_function
        self.huber_delta = huber_delta
        self.returns = Returns(lmbda, n_steps, q_lambda)
        self.sequences = sequences
        self.burn_in = burn_in
        self.states = checked_keys("states", states)
        self.priority_eta = priority_eta
        if not sequences:
            self.returns.check_single_steps()

    def networks(self) -> dict[str, list[nn.Module]]:
        """Which live networks each named loss trains."""
        return {"loss_value": [self.network]}

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The networks that have targets."""
        return [(self.network, self.target_network)] if self.has_target else []

    def team_value(self, tensordict: TensorDictBase) -> Tensor:
        """The live team value ``[*B]`` of the batch's joint actions (batches of single steps)."""
        raise NotImplementedError

    def joint_value(self, tensordict: TensorDictBase) -> Tensor | None:
        """The same by a network that is not factorised, ``[*B]``; None where the loss has none."""
        return None

    # ---------------------------------------------------------------- targets
    def _value_target(
        self,
        tensordict: TensorDictBase,
        next_value: Tensor,
        valid: Tensor | None,
        *,
        action_value: Tensor,
        chosen_value: Callable[[], Tensor],
    ) -> Tensor:
        """The regression target of the team ``[*B]`` or the agents ``[*B, n_agents]``, as ``next_value``.

        ``action_value`` are the live values of this step, which say what was greedy; ``chosen_value`` gives
        the target value of this step's action, shaped as ``next_value``, that of the next greedy action.
        """
        reward = read(tensordict, next_key(self.tensor_keys.reward))
        terminated = read_flag(tensordict, next_key(self.tensor_keys.terminated))
        if valid is None:
            return one_step_target(reward, next_value, terminated, gamma=self.gamma)
        time = tensordict.ndim - 1
        return self.returns.target(
            reward,
            next_value,
            terminated,
            self._goes_on(tensordict, valid, time),
            gamma=self.gamma,
            time_dim=time,
            is_greedy=lambda: self._is_greedy(tensordict, action_value),
            chosen_value=chosen_value,
        )

    def _goes_on(self, tensordict: TensorDictBase, valid: Tensor, time: int) -> Tensor:
        """Steps of a sequence that the next one follows, as rewards of the same return; like ``valid``."""
        return followed(valid, time)

    def _valid(self, tensordict: TensorDictBase, like: Tensor) -> Tensor | None:
        """What counts, shaped like ``like``: no padding and, in a sequence, nothing after its first end."""
        steps = flag(tensordict, self.tensor_keys.step_mask)
        if steps is not None:
            steps = real_steps(steps, like)
        if not self.sequences:
            return steps
        done = read_flag(tensordict, next_key(self.tensor_keys.done))
        first = (done.cumsum(tensordict.ndim - 1) - done.long()) == 0
        return first if steps is None else first & steps

    # ----------------------------------------------------------------- errors
    def item_priority(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """Priorities of the replayed items (steps, or rows of ``sequences``) from the team's errors."""
        team = self._learnt_error(error)[..., 0]  # the same for every agent
        counts = self._valid(self._learnt(tensordict), team)
        return item_priority(team, counts, sequences=self.sequences, eta=self.priority_eta)

    def _error(
        self,
        tensordict: TensorDictBase,
        value: Tensor,
        value_target: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Unreduced loss, its target, and the absolute error; shaped like ``value``.

        Entries that do not count may hold anything: their target becomes their value. The loss, not the
        absolute error, is weighted by importance.
        """
        if valid is not None:
            value_target = torch.where(valid, value_target, value.detach())
        td_error = (value - value_target).detach().abs()
        error = self._weighted(
            tensordict,
            regression_error(value, value_target, self.loss_function, self.huber_delta),
        )
        return error, value_target, td_error

    def _weighted(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """``error`` ``[*B]`` or ``[*B, n_agents]`` times the importance weights of prioritised replay."""
        weight = tensordict.get(self.tensor_keys.priority_weight, None)
        if weight is None:
            return error
        ones = [1] * (error.ndim - tensordict.ndim)
        return error * weight.reshape(*tensordict.shape, *ones).expand_as(error)


def metrics_of(valid: Tensor | None, **values: Tensor) -> dict[str, Tensor]:
    """Means of detached values over what counts."""
    return {name: masked_mean(value.detach(), valid) for name, value in values.items()}
