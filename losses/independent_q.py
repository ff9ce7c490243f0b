"""Independent Q-learning: every agent learns its own value from its own reward."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.entries import flag, living, masked_mean, next_key, require
from marl_td.losses.functional.action_values import chosen_action_value, greedy_value
from marl_td.losses.functional.priorities import item_priority, mean_over_agents
from marl_td.losses.q_learning import QLearningLoss, metrics_of


class IndependentQLoss(QLearningLoss):
    """Q-learning of every agent by itself; the others are part of its environment.

        y_i        = r_i + gamma (1 - terminated_i) Q_i^-(o_i', u_i')
        loss_value = mean over the agents' steps that count of (Q_i(o_i, u_i) - y_i)^2

    (Tan 1993; deep: Tampuu et al. 2017, https://arxiv.org/abs/1511.08779.) ``^-`` is the target network,
    u_i' agent i's greedy available action by the live network (double Q-learning) or by the target
    network. A dead agent's steps do not count, and the value of being dead is 0.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``.
        options: as for :class:`marl_td.losses.q_learning.QLearningLoss`.

    Reads (defaults): ``action`` ``[*B, n_agents]``, what the network reads, the same under ``"next"``, and
    ``("next", "agents", "reward" | "terminated")`` ``[*B, n_agents, 1]``; with ``sequences`` also
    ``("next", "agents", "done")``. If present, here and under ``"next"``: the action mask
    ``[*B, n_agents, n_actions]``, the alive mask ``mask`` ``[*B, n_agents]``; and ``step_mask``
    ``[*B, 1]`` (false on padding) and ``priority_weight`` ``[*B]``.

    Writes ``loss_value`` and metrics ``td_error`` (mean absolute), ``target_value``,
    ``chosen_action_value``; :meth:`forward` also writes each agent's absolute error to the batch's
    ``priority`` key, and the priority of each replayed item (a step, or a row of ``sequences``) to its
    ``item_priority`` key, ``[*B, n_agents, 1]`` both.
    """

    @dataclass
    class _AcceptedKeys(QLearningLoss._AcceptedKeys):
        reward: NestedKey = ("agents", "reward")
        done: NestedKey = ("agents", "done")
        terminated: NestedKey = ("agents", "terminated")

    out_keys: ClassVar[list[str]] = [
        "loss_value",
        "td_error",
        "target_value",
        "chosen_action_value",
    ]

    def __init__(self, network: TensorDictModuleBase, **options: Any) -> None:
        super().__init__(network, **options)

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Loss, metrics and priority from a batch ``[*B]``."""
        values = self._action_values(tensordict)
        tensordict = self._learnt(tensordict)
        action = require(tensordict, self.tensor_keys.action)
        local_value = chosen_action_value(values.now, action)  # [*B, n_agents]
        valid = self._valid_agents(tensordict, local_value)
        with torch.no_grad():
            mask = flag(tensordict, next_key(self.tensor_keys.action_mask))
            next_value = greedy_value(values.evaluated, values.choosing, mask)
            alive = living(tensordict, next_key(self.tensor_keys.mask))
            if alive is not None:
                next_value = torch.where(alive, next_value, torch.zeros_like(next_value))
            value_target = self._value_target(
                tensordict,
                next_value,
                valid,
                action_value=values.now,
                chosen_value=lambda: chosen_action_value(values.target_now, action),
            )
        error, value_target, td_error = self._error(tensordict, local_value, value_target, valid)
        return {
            "loss_value": masked_mean(error, valid),
            **metrics_of(
                valid,
                td_error=td_error,
                target_value=value_target,
                chosen_action_value=local_value,
            ),
            "priority": self._priority_of(td_error.unsqueeze(-1)),
        }

    def item_priority(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """Priorities of the replayed items: mean errors of the agents that count."""
        error = self._learnt_error(error)
        steps = mean_over_agents(error, self._valid_agents(self._learnt(tensordict), error))
        return item_priority(*steps, sequences=self.sequences, eta=self.priority_eta)

    def _valid_agents(self, tensordict: TensorDictBase, like: Tensor) -> Tensor | None:
        """The steps ``[*B, n_agents]`` that count: no padding, nothing after an end, nobody dead."""
        steps = self._valid(tensordict, like)
        alive = living(tensordict, self.tensor_keys.mask)
        if steps is None or alive is None:
            return alive if steps is None else steps
        return steps & alive
