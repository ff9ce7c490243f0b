"""Values of joint actions without any factorisation, at a cost that grows linearly with the agents."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.functional.checks import check_shape
from marl_td.models.mixers.base import StateInput, check_sizes


def _three_layers(d_in: int, d_hidden: int) -> nn.Sequential:
    layers = [nn.Linear(d_in, d_hidden), nn.ReLU(), nn.Linear(d_hidden, d_hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(d_hidden, 1))


class JointActionValue(TensorDictModuleBase):
    """QTRAN's joint value: each agent's history and action are encoded and summed.

        Q_jt(s, u) = f(s, sum_i e(h_i, u_i))

    Son et al. 2019, https://arxiv.org/abs/1905.05408, with the sizes of PyMARL's small network: e has two
    layers as wide as its input, f two hidden layers of 64.

    Args:
        n_actions: actions of each agent, at least 1.
        d_state: width of the global state, at least 1 (2 with ``state_norm="layer"``).
        d_feature: width of h, at least 1.
        d_hidden: width of the hidden layers of f, at least 1.
        state_norm: ``"none"`` or ``"layer"``, see :class:`marl_td.models.mixers.StateInput`.
        feature_key: what is known of each agent, ``[*B, n_agents, d_feature]``; zeros for the dead.
        action_key: one-hot joint action, ``[*B, n_agents, n_actions]``; zeros for the dead.
        state_key: the global state, ``[*B, d_state]``.
        out_key: where the value goes, ``[*B, 1]``.

    Raises:
        ValueError: if a size is below its minimum or ``state_norm`` is unknown; on a call, if a shape does
            not fit.
    """

    def __init__(
        self,
        n_actions: int,
        d_state: int,
        d_feature: int,
        *,
        d_hidden: int = 64,
        state_norm: str = "none",
        feature_key: NestedKey = ("agents", "joint_feature"),
        action_key: NestedKey = ("agents", "joint_action"),
        state_key: NestedKey = "state",
        out_key: NestedKey = "global_value",
    ) -> None:
        super().__init__()
        self.in_keys = [feature_key, action_key, state_key]
        self.out_keys = [out_key]
        self.scaled = StateInput(d_state, state_norm)
        check_sizes(n_actions=n_actions, d_feature=d_feature, d_hidden=d_hidden)
        self.n_actions = n_actions
        self.d_feature = d_feature
        width = d_feature + n_actions
        # A layer of its own for the action: among the many inputs of one layer its one-hot row would
        # start so small that the joint value stays linear in the actions.
        self.known = nn.Linear(d_feature, width)
        self.taken = nn.Linear(n_actions, width, bias=False)
        self.encode = nn.Sequential(nn.ReLU(), nn.Linear(width, width))
        self.joint = _three_layers(d_state + width, d_hidden)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the value of the joint action into ``tensordict``."""
        value = self.value(*[tensordict.get(key) for key in self.in_keys])
        return tensordict.set(self.out_keys[0], value.unsqueeze(-1))

    def value(self, feature: Tensor, joint_action: Tensor, state: Tensor) -> Tensor:
        """Value ``[*B]`` of the joint action."""
        return self._joint(state, self._encoded(feature, joint_action).sum(-2))

    def counterfactual(self, feature: Tensor, joint_action: Tensor, state: Tensor) -> Tensor:
        """Values ``[*B, n_agents, n_actions]`` if one agent takes another action and the others theirs."""
        own = self._encoded(feature, joint_action)
        each = torch.eye(self.n_actions, device=feature.device, dtype=feature.dtype)
        each = each.expand(*feature.shape[:-1], self.n_actions, self.n_actions)
        known = feature.unsqueeze(-2).expand(*feature.shape[:-1], self.n_actions, self.d_feature)
        total = (own.sum(-2, keepdim=True) - own).unsqueeze(-2) + self._encoded(known, each)
        return self._joint(state, total)

    def _joint(self, state: Tensor, total: Tensor) -> Tensor:
        """Value ``[*B, ..]`` of the state ``[*B, d_state]`` and one or more sums ``[*B, .., width]`` each.

        The first layer takes its part of the state once, not beside every sum: a state that grows with the
        agents would make that quadratic.
        """
        layers: list[Any] = list(self.joint)
        first, others = layers[0], layers[1:]
        scaled = self.scaled(state)
        of_state, of_total = first.weight.split([scaled.shape[-1], total.shape[-1]], dim=-1)
        hidden = nn.functional.linear(scaled, of_state, first.bias)
        for _ in range(total.ndim - scaled.ndim):
            hidden = hidden.unsqueeze(-2)
        hidden = hidden + nn.functional.linear(total, of_total)
        for layer in others:
            hidden = layer(hidden)
        return hidden.squeeze(-1)

    def _encoded(self, feature: Tensor, joint_action: Tensor) -> Tensor:
        check_shape("feature", feature, (self.d_feature,), "[*B, n_agents, d_feature]")
        layout = "[*B, n_agents, n_actions]"
        check_shape("joint_action", joint_action, (self.n_actions,), layout)
        return self.encode(self.known(feature) + self.taken(joint_action))


def state_value(
    d_state: int,
    *,
    d_hidden: int = 64,
    state_norm: str = "none",
    state_key: NestedKey = "state",
    out_key: NestedKey = "state_value",
) -> TensorDictModule:
    """A value of the state alone, two hidden layers: ``[*B, d_state]`` to ``[*B, 1]``."""
    network = nn.Sequential(StateInput(d_state, state_norm), _three_layers(d_state, d_hidden))
    return TensorDictModule(network, in_keys=[state_key], out_keys=[out_key])


class CounterfactualValue(TensorDictModuleBase):
    """The same joint value for every other action of each agent; it has no parameters of its own.

    Args:
        joint: whose parameters are used.
        out_key: where the values go, ``[*B, n_agents, n_actions]``.
    """

    def __init__(
        self, joint: JointActionValue, out_key: NestedKey = ("agents", "counterfactual_value")
    ) -> None:
        super().__init__()
        self.in_keys = list(joint.in_keys)
        self.out_keys = [out_key]
        self._joint = [joint]  # in a list, so that its parameters are not listed twice

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the values into ``tensordict``."""
        value = self._joint[0].counterfactual(*[tensordict.get(key) for key in self.in_keys])
        return tensordict.set(self.out_keys[0], value)
