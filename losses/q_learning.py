"""What the losses of value-based learning share: values now and next, targets, masks, errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.nn.functional import huber_loss
from torchrl.objectives.utils import distance_loss

from marl_td.losses.common import MultiAgentLoss, masked_mean, next_key, read, require, run
from marl_td.losses.functional.action_values import chosen_action_value, mask_unavailable
from marl_td.losses.functional.checks import check_choice, check_fraction
from marl_td.losses.functional.returns import one_step_target
from marl_td.losses.multi_step import QLambda, Returns, followed
from marl_td.losses.targets import target_copy
from marl_td.losses.trajectory import real_steps, window_values

LOSS_FUNCTIONS = ("l2", "l1", "smooth_l1", "huber")
LossFunction = Literal["l2", "l1", "smooth_l1", "huber"]


class ActionValues(NamedTuple):
    """Values ``[*B, n_agents, n_actions]``: live now, next (to choose, to evaluate), target now (or None)."""

    now: Tensor
    choosing: Tensor
    evaluated: Tensor
    target_now: Any


class QLearningLoss(MultiAgentLoss):
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

    Raises:
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
        priority_weight: NestedKey = "priority_weight"

    out_keys: ClassVar[list[str]]
    has_target: ClassVar[bool] = True
    """Whether next values come from a target network."""

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
    ) -> None:
        super().__init__()
        check_fraction("gamma", gamma)
        check_choice("loss_function", loss_function, LOSS_FUNCTIONS)
        if not huber_delta > 0.0:
            raise ValueError(f"`huber_delta` must be above 0; got {huber_delta}.")
        if burn_in < 0 or ((burn_in or states) and not sequences):
            raise ValueError(
                f"`burn_in` must be at least 0 and, as `states`, needs sequences=True; got {burn_in}."
            )
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
        self.states = list(states)
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

    # ----------------------------------------------------------------- values
    def _live(
        self,
        module: TensorDictModuleBase,
        tensordict: TensorDictBase,
        key: NestedKey,
        **which: bool,
    ) -> tuple[Any, Any]:
        """Output ``key`` of a live module at each step and at what it reaches, ``[*B, n_agents, d]``.

        The first carries the gradient, the second none. Of single steps, what is not asked for
        (``following=False``) is None.
        """
        if not self.sequences:
            now = run(module, tensordict, key)
            if not which.get("following", True):
                return now, None
            with torch.no_grad():
                return now, run(module, tensordict.get("next"), key)
        values = window_values(
            module,
            tensordict,
            key,
            burn_in=self.burn_in,
            states=self.states,
            stored=module is self.network or module is self.target_network,
            is_init=self.tensor_keys.is_init,
        )
        time, n_steps = tensordict.ndim - 1, tensordict.shape[-1] - self.burn_in
        return values.narrow(time, 0, n_steps), values.detach().narrow(time, 1, n_steps)

    @torch.no_grad()
    def _target(
        self,
        module: TensorDictModuleBase,
        tensordict: TensorDictBase,
        key: NestedKey,
        **which: bool,
    ) -> tuple[Any, Any]:
        """The same of a target network; of single steps the first is computed with ``now=True`` only."""
        if self.sequences:
            return self._live(module, tensordict, key)
        now = run(module, tensordict, key) if which.get("now", False) else None
        return now, run(module, tensordict.get("next"), key)

    def _values_and_choosing(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Live values of this step, and those that choose the next action."""
        key = self.tensor_keys.action_value
        now, choosing = self._live(self.network, tensordict, key, following=self.double_q)
        if not self.double_q:
            _, choosing = self._target(self.target_network, tensordict, key)
        return now, choosing

    def _action_values(self, tensordict: TensorDictBase) -> ActionValues:
        """Live values of this step, and of the next: those that choose and those that evaluate."""
        key = self.tensor_keys.action_value
        now, choosing = self._live(self.network, tensordict, key, following=self.double_q)
        target_now, evaluated = self._target(self.target_network, tensordict, key)
        choosing = choosing if self.double_q else evaluated
        return ActionValues(now, choosing, evaluated, target_now)

    def _is_greedy(self, tensordict: TensorDictBase, action_value: Tensor) -> Tensor:
        """Whether each agent's action has the largest available value, ``[*B, n_agents]``."""
        action = require(tensordict, self.tensor_keys.action)
        mask = tensordict.get(self.tensor_keys.action_mask, None)
        available = mask_unavailable(action_value, mask)
        return chosen_action_value(available, action) == available.amax(-1)

    def _learnt(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The steps that are learnt from: without those of the burn-in."""
        return tensordict[..., self.burn_in :] if self.burn_in else tensordict

    def _priority_of(self, td_error: Tensor) -> Tensor:
        """Absolute errors ``[*B, n_agents, 1]`` as priorities of the batch: those of the burn-in are 0."""
        shape = list(td_error.shape)
        shape[-3] = self.burn_in
        return torch.cat([td_error.new_zeros(shape), td_error], -3) if self.burn_in else td_error

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
        terminated = read(tensordict, next_key(self.tensor_keys.terminated))
        if valid is None:
            return one_step_target(reward, next_value, terminated, gamma=self.gamma)
        time = tensordict.ndim - 1
        return self.returns.target(
            reward,
            next_value,
            terminated,
            followed(valid, time),
            gamma=self.gamma,
            time_dim=time,
            is_greedy=lambda: self._is_greedy(tensordict, action_value),
            chosen_value=chosen_value,
        )

    def _valid(self, tensordict: TensorDictBase, like: Tensor) -> Tensor | None:
        """What counts, shaped like ``like``: no padding and, in a sequence, nothing after its first end."""
        steps = tensordict.get(self.tensor_keys.step_mask, None)
        if steps is not None:
            steps = real_steps(steps, like)
        if not self.sequences:
            return steps
        done = read(tensordict, next_key(self.tensor_keys.done))
        first = (done.cumsum(tensordict.ndim - 1) - done.long()) == 0
        return first if steps is None else first & steps

    # ----------------------------------------------------------------- errors
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
        error = self._weighted(tensordict, self._distance(value, value_target))
        return error, value_target, td_error

    def _weighted(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """``error`` ``[*B]`` or ``[*B, n_agents]`` times the importance weights of prioritised replay."""
        weight = tensordict.get(self.tensor_keys.priority_weight, None)
        if weight is None:
            return error
        ones = [1] * (error.ndim - tensordict.ndim)
        return error * weight.reshape(*tensordict.shape, *ones).expand_as(error)

    def _distance(self, value: Tensor, value_target: Tensor) -> Tensor:
        """Unreduced loss, shaped like ``value``."""
        if self.loss_function == "huber":
            return huber_loss(value, value_target, reduction="none", delta=self.huber_delta)
        return distance_loss(value, value_target, self.loss_function)


def metrics_of(valid: Tensor | None, **values: Tensor) -> dict[str, Tensor]:
    """Means of detached values over what counts."""
    return {name: masked_mean(value.detach(), valid) for name, value in values.items()}
