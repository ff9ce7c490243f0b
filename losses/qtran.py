"""Q-learning on an unrestricted joint value, and agents' values tied to it: QTRAN-base and QTRAN-alt."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules
from marl_td.losses.entries import flag, living, masked_mean, next_of, require, run
from marl_td.losses.functional.action_values import chosen_action_value, masked_argmax
from marl_td.losses.functional.checks import check_not_negative
from marl_td.losses.functional.mixing import mix_sum
from marl_td.losses.functional.transformation import (
    below_zero_error,
    counterfactual_error,
    transformation_gap,
)
from marl_td.losses.q_learning import metrics_of
from marl_td.losses.q_mixing import MixedQLoss
from marl_td.losses.targets import target_copy


class QtranLoss(MixedQLoss):
    """Q-learning on a joint value Q_jt; the sum of the agents' values is made to have its best joint action.

        y          = r + gamma (1 - terminated) Q_jt^-(s', u')
        loss_joint = mean of (Q_jt(s, u) - y)^2
        loss_value = mean of c_opt gap(greedy u)^2 + c_nopt (nonoptimal error of u)
        gap(u)     = sum_i Q_i(u_i) - Q_jt(u) + V(s)

    (Son et al. 2019, https://arxiv.org/abs/1905.05408: L_td, L_opt and L_nopt; means over the steps that
    count.) u' and "greedy u" are the agents' own best available actions, ``^-`` are target networks. The
    nonoptimal error of QTRAN-base is the squared gap(u) where it is below 0, that of QTRAN-alt
    :func:`marl_td.losses.functional.transformation.counterfactual_error`. Q_jt learns from ``loss_joint``
    alone: in ``loss_value`` it is a constant.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``.
        feature_network: reads observations, writes ``joint_feature`` ``[*B, n_agents, d_feature]``.
        joint: reads ``joint_feature``, ``joint_action`` (and a state), writes ``global_value`` ``[*B, 1]``;
            see :class:`marl_td.models.joint_value.JointActionValue`.
        state_value: reads a state, writes ``state_value`` ``[*B, 1]``.
        counterfactual: reads what ``joint`` does, writes ``counterfactual_value``
            ``[*B, n_agents, n_actions]``; given, it is QTRAN-alt, None: QTRAN-base.
        opt_coeff: c_opt, >= 0.
        nopt_coeff: c_nopt, >= 0.
        options: as for :class:`marl_td.losses.q_learning.QLearningLoss`.

    Reads what :class:`marl_td.losses.q_mixing.MixedQLoss` lists. Writes ``loss_value``, ``loss_joint`` and
    metrics ``td_error`` (mean absolute, of Q_jt), ``global_value`` (Q_jt), ``target_value``,
    ``optimal_error`` and ``nonoptimal_error`` (before their coefficients).

    Raises:
        ValueError: if a coefficient is negative.
    """

    @dataclass
    class _AcceptedKeys(MixedQLoss._AcceptedKeys):
        joint_feature: NestedKey = ("agents", "joint_feature")
        counterfactual_value: NestedKey = ("agents", "counterfactual_value")
        state_value: NestedKey = "state_value"

    out_keys: ClassVar[list[str]] = [
        "loss_value",
        "loss_joint",
        "td_error",
        "global_value",
        "target_value",
        "optimal_error",
        "nonoptimal_error",
    ]

    def __init__(
        self,
        network: TensorDictModuleBase,
        feature_network: TensorDictModuleBase,
        joint: TensorDictModuleBase,
        state_value: TensorDictModuleBase,
        *,
        counterfactual: TensorDictModuleBase | None = None,
        opt_coeff: float = 1.0,
        nopt_coeff: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        check_modules(feature_network=feature_network, joint=joint, state_value=state_value)
        check_not_negative(opt_coeff=opt_coeff, nopt_coeff=nopt_coeff)
        self.feature_network = feature_network
        self.joint = joint
        self.state_value = state_value
        self.counterfactual = counterfactual
        self.target_feature_network = target_copy(feature_network)
        self.target_joint = target_copy(joint)
        self.opt_coeff = opt_coeff
        self.nopt_coeff = nopt_coeff

    def networks(self) -> dict[str, list[nn.Module]]:
        """The agents' values with V, and the joint value."""
        return {
            "loss_value": [self.network, self.state_value],
            "loss_joint": [self.feature_network, self.joint],
        }

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The networks that have targets: the agents' and the joint value's."""
        return [
            *super().target_pairs(),
            (self.feature_network, self.target_feature_network),
            (self.joint, self.target_joint),
        ]

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses, metrics and priority from a batch ``[*B]``."""
        key = self.tensor_keys.joint_feature
        action_value, choosing = self._values_and_choosing(tensordict)
        feature, _ = self._live(self.feature_network, tensordict, key, following=False)
        now, reached = self._target(self.target_feature_network, tensordict, key)
        tensordict = self._learnt(tensordict)
        action = require(tensordict, self.tensor_keys.action)
        inputs = self._joint_inputs(tensordict, feature, action, action_value.shape[-1])
        joint_value = self._joint_value(self.joint, inputs)
        valid = self._valid(tensordict, joint_value)
        with torch.no_grad():
            next_action = self._next_action(tensordict, choosing)

            def target_value(data: TensorDictBase, feature: Tensor, action: Tensor) -> Tensor:
                inputs = self._joint_inputs(data, feature, action, action_value.shape[-1])
                return self._joint_value(self.target_joint, inputs)

            value_target = self._value_target(
                tensordict,
                target_value(next_of(tensordict), reached, next_action),
                valid,
                action_value=action_value,
                chosen_value=lambda: target_value(tensordict, now, action),
            )
        error, shown, td_error = self._error(tensordict, joint_value, value_target, valid)
        optimal = self._optimal_error(tensordict, action_value, feature.detach())
        nonoptimal = self._nonoptimal_error(
            tensordict, action_value, inputs.detach(), joint_value.detach()
        )
        total = self.opt_coeff * optimal + self.nopt_coeff * nonoptimal
        return {
            "loss_value": masked_mean(self._weighted(tensordict, total), valid),
            "loss_joint": masked_mean(error, valid),
            **metrics_of(
                valid,
                td_error=td_error,
                global_value=joint_value,
                target_value=shown,
                optimal_error=optimal,
                nonoptimal_error=nonoptimal,
            ),
            "priority": self._priority(td_error, action),
        }

    def team_value(self, tensordict: TensorDictBase) -> Tensor:
        """``sum_i Q_i + V`` ``[*B]`` of the batch's joint actions (batches of single steps)."""
        values = run(self.network, tensordict, self.tensor_keys.action_value)
        action = require(tensordict, self.tensor_keys.action)
        local_value = self._of_alive(tensordict, chosen_action_value(values, action))
        return mix_sum(local_value) + self._state_value(tensordict)

    def joint_value(self, tensordict: TensorDictBase) -> Tensor:
        """The live joint value ``[*B]`` of the same."""
        feature = run(self.feature_network, tensordict, self.tensor_keys.joint_feature)
        values = run(self.network, tensordict, self.tensor_keys.action_value)
        action = require(tensordict, self.tensor_keys.action)
        inputs = self._joint_inputs(tensordict, feature, action, values.shape[-1])
        return self._joint_value(self.joint, inputs)

    # ------------------------------------------------------------------ parts
    def _joint_inputs(
        self, tensordict: TensorDictBase, feature: Tensor, action: Tensor, n_actions: int
    ) -> TensorDictBase:
        """What the joint value reads of a joint action ``[*B, n_agents]``; nothing of dead agents."""
        inputs = tensordict.copy()
        inputs.set(self.tensor_keys.joint_feature, self._of_alive(tensordict, feature))
        rows = self._joint_action(tensordict, action, n_actions)
        return inputs.set(self.tensor_keys.joint_action, rows)

    def _joint_value(self, joint: TensorDictModuleBase, inputs: TensorDictBase) -> Tensor:
        return run(joint, inputs, self.tensor_keys.global_value).squeeze(-1)

    def _state_value(self, tensordict: TensorDictBase) -> Tensor:
        return run(self.state_value, tensordict, self.tensor_keys.state_value).squeeze(-1)

    def _optimal_error(
        self, tensordict: TensorDictBase, action_value: Tensor, feature: Tensor
    ) -> Tensor:
        """Squared gap ``[*B]`` at the greedy joint action."""
        mask = flag(tensordict, self.tensor_keys.action_mask)
        greedy = masked_argmax(action_value, mask)
        with torch.no_grad():
            inputs = self._joint_inputs(tensordict, feature, greedy, action_value.shape[-1])
            joint_value = self._joint_value(self.joint, inputs)
        best = self._of_alive(tensordict, chosen_action_value(action_value, greedy))
        gap = transformation_gap(mix_sum(best), joint_value, self._state_value(tensordict))
        return gap.square()

    def _nonoptimal_error(
        self,
        tensordict: TensorDictBase,
        action_value: Tensor,
        inputs: TensorDictBase,
        joint_value: Tensor,
    ) -> Tensor:
        """What is below 0 of the gap ``[*B]``: of the joint action (base), or its smallest (alt)."""
        keys = self.tensor_keys
        action = require(tensordict, keys.action)
        local_value = self._of_alive(tensordict, chosen_action_value(action_value, action))
        state_value = self._state_value(tensordict)
        if self.counterfactual is None:
            gap = transformation_gap(mix_sum(local_value), joint_value, state_value)
            return below_zero_error(gap)
        with torch.no_grad():
            others = run(self.counterfactual, inputs, keys.counterfactual_value)
        mask, alive = flag(tensordict, keys.action_mask), living(tensordict, keys.mask)
        return counterfactual_error(local_value, action_value, others, state_value, mask, alive)
