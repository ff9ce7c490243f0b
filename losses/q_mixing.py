"""Q-learning on a mixed team value: VDN, QMIX, Qatten, QPLEX and SHAQ, by the choice of the mixer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules, check_target
from marl_td.losses.entries import (
    MissingEntry,
    check_written,
    flag,
    living,
    masked_mean,
    next_key,
    next_of,
    read,
    require,
    run,
)
from marl_td.losses.functional.action_values import (
    chosen_action_value,
    greedy_value,
    masked_argmax,
    one_hot_action,
)
from marl_td.losses.network_values import ActionValues
from marl_td.losses.q_learning import QLearningLoss, metrics_of
from marl_td.losses.targets import target_copy
from marl_td.losses.trajectory import cut_off


class MixedQLoss(QLearningLoss):
    """Base of the losses with a team value: what mixers read is put together here.

    A mixer may ask for any of these (see :mod:`marl_td.models.mixers`), beside the batch's own entries:

    * ``chosen_action_value`` ``[*B, n_agents, 1]``: each agent's value of its action;
    * ``greedy_action_value`` ``[*B, n_agents, 1]``: the largest value of its available actions;
    * ``joint_action`` ``[*B, n_agents, n_actions]``: the actions as one-hot rows.

    Of a dead agent all three are 0, now and next: its action changes nothing, so it neither learns
    nor adds to the team's value.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``.
        options: as for :class:`marl_td.losses.q_learning.QLearningLoss`.

    Reads (defaults): ``action`` ``[*B, n_agents]``, what the networks read, the same under ``"next"``,
    and ``("next", "reward" | "terminated")`` ``[*B, 1]`` of the team; with ``sequences`` also
    ``("next", "done")``, and ``("next", "agents", "truncated")`` where agents are cut off before the team: no
    return over several steps goes beyond that. If present, here and under ``"next"``: the action mask
    ``[*B, n_agents, n_actions]``, the alive mask ``mask`` ``[*B, n_agents]``; and ``step_mask``
    ``[*B, 1]`` (false on padding) and ``priority_weight`` ``[*B]``.

    :meth:`forward` writes the absolute error to the batch's ``priority`` key, and the priority of each
    replayed item (a step, or a row of ``sequences``) to its ``item_priority`` key, both
    ``[*B, n_agents, 1]``.
    """

    @dataclass
    class _AcceptedKeys(QLearningLoss._AcceptedKeys):
        chosen_action_value: NestedKey = ("agents", "chosen_action_value")
        greedy_action_value: NestedKey = ("agents", "greedy_action_value")
        joint_action: NestedKey = ("agents", "joint_action")
        global_value: NestedKey = "global_value"
        truncated: NestedKey = ("agents", "truncated")

    def __init__(self, network: TensorDictModuleBase, **options: Any) -> None:
        super().__init__(network, **options)

    def _mix(
        self,
        mixer: TensorDictModuleBase,
        tensordict: TensorDictBase,
        action_value: Tensor,
        action: Tensor,
    ) -> Tensor:
        """Team value ``[*B]`` of the joint action ``[*B, n_agents]``."""
        keys = self.tensor_keys
        check_written(mixer, keys.global_value)
        if keys.chosen_action_value not in mixer.in_keys:
            raise MissingEntry(
                f"a mixer must read the agents' values at {keys.chosen_action_value!r}; "
                f"{type(mixer).__name__} reads {list(mixer.in_keys)}. Make it with "
                f"`local_key={keys.chosen_action_value!r}`, or `set_keys(chosen_action_value=...)`."
            )
        inputs = tensordict.copy()
        local_value = self._of_alive(tensordict, chosen_action_value(action_value, action))
        inputs.set(keys.chosen_action_value, local_value.unsqueeze(-1))
        if keys.greedy_action_value in mixer.in_keys:
            mask = flag(tensordict, keys.action_mask)
            best = self._of_alive(tensordict, greedy_value(action_value, action_value, mask))
            inputs.set(keys.greedy_action_value, best.unsqueeze(-1))
        if keys.joint_action in mixer.in_keys:
            rows = self._joint_action(tensordict, action, action_value.shape[-1])
            inputs.set(keys.joint_action, rows)
        return read(mixer(inputs), keys.global_value)

    def _joint_action(self, tensordict: TensorDictBase, action: Tensor, n_actions: int) -> Tensor:
        """One-hot rows ``[*B, n_agents, n_actions]``, those of dead agents zero."""
        return self._of_alive(tensordict, one_hot_action(action, n_actions))

    def _of_alive(self, tensordict: TensorDictBase, value: Tensor) -> Tensor:
        """``value`` ``[*B, n_agents, ...]`` with 0 for dead agents."""
        alive = living(tensordict, self.tensor_keys.mask)
        if alive is None:
            return value
        alive = alive.reshape(*alive.shape, *[1] * (value.ndim - alive.ndim))
        return torch.where(alive, value, torch.zeros_like(value))

    def _is_greedy(self, tensordict: TensorDictBase, action_value: Tensor) -> Tensor:
        """Whether every living agent's action has its largest available value, ``[*B]``."""
        greedy = super()._is_greedy(tensordict, action_value)
        alive = living(tensordict, self.tensor_keys.mask)
        return (greedy if alive is None else greedy | ~alive).all(-1)

    def _goes_on(self, tensordict: TensorDictBase, valid: Tensor, time: int) -> Tensor:
        """As long as no agent is cut off: the team's rewards after that are not those of all."""
        goes_on = super()._goes_on(tensordict, valid, time)
        cut = cut_off(tensordict, self.tensor_keys.mask, self.tensor_keys.truncated)
        return goes_on if cut is None else goes_on & ~cut.any(-1)

    def _next_action(self, tensordict: TensorDictBase, choosing: Tensor) -> Tensor:
        """Greedy available next actions ``[*B, n_agents]``."""
        mask = flag(tensordict, next_key(self.tensor_keys.action_mask))
        return masked_argmax(choosing, mask)

    def _priority(self, td_error: Tensor, action: Tensor) -> Tensor:
        """The team's error, once per agent: ``[*B, n_agents, 1]``."""
        return self._priority_of(td_error.unsqueeze(-1).expand(action.shape).unsqueeze(-1))

    def _regression(
        self,
        tensordict: TensorDictBase,
        action_value: Tensor,
        global_value: Tensor,
        value_target: Tensor,
        valid: Tensor | None,
    ) -> dict[str, Tensor]:
        """Loss, metrics and priority of regressing the team's value on its target, both ``[*B]``."""
        action = require(tensordict, self.tensor_keys.action)
        error, value_target, td_error = self._error(tensordict, global_value, value_target, valid)
        local_value = self._of_alive(tensordict, chosen_action_value(action_value, action))
        return {
            "loss_value": masked_mean(error, valid),
            **metrics_of(
                valid,
                td_error=td_error,
                global_value=global_value,
                target_value=value_target,
                chosen_action_value=local_value.mean(-1),
            ),
            "priority": self._priority(td_error, action),
        }

    def _value_of(
        self,
        network: TensorDictModuleBase,
        mixer: TensorDictModuleBase,
        tensordict: TensorDictBase,
    ) -> Tensor:
        """Team value ``[*B]`` of the batch's joint actions by these networks (batches of single steps)."""
        action = require(tensordict, self.tensor_keys.action)
        values = run(network, tensordict, self.tensor_keys.action_value)
        return self._mix(mixer, tensordict, values, action)


class QMixingLoss(MixedQLoss):
    """Q-learning on a team value that is mixed from the agents' values.

        Q_tot(s, u) = mix(Q_1(o_1, u_1), .., Q_N(o_N, u_N); s)
        y           = r + gamma (1 - terminated) mix^-(Q_1^-(o_1', u_1'), .., Q_N^-(o_N', u_N'); s')
        loss_value  = mean over the steps that count of (Q_tot - y)^2

    (Rashid et al. 2018, https://arxiv.org/abs/1803.11485, eq. 6.) ``^-`` are target networks. u_i' is
    agent i's greedy available action by the live network (double Q-learning) or by the target network.
    The mixer makes the algorithm: a sum is VDN.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``.
        mixer: reads ``chosen_action_value`` ``[*B, n_agents, 1]`` (and what else it asks for), writes
            ``global_value`` ``[*B, 1]``; see :mod:`marl_td.models.mixers`, or TorchRL's mixers.
        target_mixer: mixes the next values where that is not a copy of ``mixer`` (SHAQ's plain sum).
        options: as for :class:`marl_td.losses.q_learning.QLearningLoss`.

    Reads what :class:`MixedQLoss` lists. Writes ``loss_value`` and metrics ``td_error`` (mean absolute),
    ``global_value``, ``target_value``, ``chosen_action_value``.
    """

    out_keys: ClassVar[list[str]] = [
        "loss_value",
        "td_error",
        "global_value",
        "target_value",
        "chosen_action_value",
    ]

    def __init__(
        self,
        network: TensorDictModuleBase,
        mixer: TensorDictModuleBase,
        *,
        target_mixer: TensorDictModuleBase | None = None,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        check_modules(mixer=mixer)
        self.mixer = mixer
        self.copies_mixer = target_mixer is None
        check_target("target_mixer", mixer, target_mixer)
        self.target_mixer = target_copy(mixer) if target_mixer is None else target_mixer

    def networks(self) -> dict[str, list[nn.Module]]:
        """The agents' network and the mixer."""
        return {"loss_value": [self.network, self.mixer]}

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The networks that have targets: the agents' and the mixer."""
        mixers: list[tuple[nn.Module, nn.Module]] = [(self.mixer, self.target_mixer)]
        return super().target_pairs() + (mixers if self.copies_mixer else [])

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Loss, metrics and priority from a batch ``[*B]``."""
        values = self._action_values(tensordict)
        return self._losses(self._learnt(tensordict), values)

    def _losses(self, tensordict: TensorDictBase, values: ActionValues) -> dict[str, Tensor]:
        """The same from the agents' values; ``tensordict`` holds the steps that are learnt from."""
        action = require(tensordict, self.tensor_keys.action)
        global_value = self._mix(self.mixer, tensordict, values.now, action)  # [*B]
        valid = self._valid(tensordict, global_value)
        with torch.no_grad():
            next_action = self._next_action(tensordict, values.choosing)
            next_value = self._mix(
                self.target_mixer, next_of(tensordict), values.evaluated, next_action
            )
            # A target mixer that is no copy holds for greedy actions only.
            mixer = self.target_mixer if self.copies_mixer else self.mixer
            value_target = self._value_target(
                tensordict,
                next_value,
                valid,
                action_value=values.now,
                chosen_value=lambda: self._mix(mixer, tensordict, values.target_now, action),
            )
        return self._regression(tensordict, values.now, global_value, value_target, valid)

    def team_value(self, tensordict: TensorDictBase) -> Tensor:
        """The live team value ``[*B]`` of the batch's joint actions (batches of single steps)."""
        return self._value_of(self.network, self.mixer, tensordict)
