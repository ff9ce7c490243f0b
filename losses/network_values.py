"""What the networks of value-based losses say of the steps of a batch, now and next."""

from typing import Any, ClassVar, NamedTuple

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.common import MultiAgentLoss
from marl_td.losses.entries import check_written, flag, next_of, require, run
from marl_td.losses.functional.action_values import chosen_action_value, mask_unavailable
from marl_td.losses.trajectory import window_entries


class ActionValues(NamedTuple):
    """Values ``[*B, n_agents, n_actions]``: live now, next (to choose, to evaluate), target now (or None)."""

    now: Tensor
    choosing: Tensor
    evaluated: Tensor
    target_now: Any


class NetworkValues(MultiAgentLoss):
    """Base of the value-based losses: runs their networks over single steps, episodes or windows.

    What the attributes mean is said at :class:`marl_td.losses.q_learning.QLearningLoss`.
    """

    network: TensorDictModuleBase
    target_network: TensorDictModuleBase
    double_q: bool
    sequences: bool
    burn_in: int
    states: list[NestedKey]
    has_target: ClassVar[bool] = True
    """Whether next values come from a target network."""

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
        now, following = self._live_entries(module, tensordict, [key], **which)
        return now.get(key), None if following is None else following.get(key)

    def _live_entries(
        self,
        module: TensorDictModuleBase,
        tensordict: TensorDictBase,
        keys: list[NestedKey],
        **which: bool,
    ) -> tuple[TensorDictBase, TensorDictBase | None]:
        """The same for several outputs of one run: TensorDicts ``[*B]`` of ``keys``."""
        check_written(module, *keys)
        if not self.sequences:
            now = module(tensordict.copy()).select(*keys)
            if not which.get("following", True):
                return now, None
            with torch.no_grad():
                return now, module(next_of(tensordict).copy()).select(*keys)
        values = window_entries(
            module,
            tensordict,
            keys,
            burn_in=self.burn_in,
            states=self.states,
            stored=module is self.network or module is self.target_network,
            is_init=self.tensor_keys.is_init,
        )
        return values[..., :-1], values.detach()[..., 1:]

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
        return now, run(module, next_of(tensordict), key)

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
        mask = flag(tensordict, self.tensor_keys.action_mask)
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

    def _learnt_error(self, error: Tensor) -> Tensor:
        """The reverse: ``[*B, n_agents]`` of the steps that are learnt from."""
        return (error[..., self.burn_in :, :, :] if self.burn_in else error).squeeze(-1)
