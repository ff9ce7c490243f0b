"""QPLEX's duplex dueling mixer."""

from __future__ import annotations

import torch
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.functional.checks import check_shape
from marl_td.losses.functional.factorisation import mix_duplex
from marl_td.models.grouped import GroupedLinear
from marl_td.models.mixers.base import Mixer, StateInput, check_sizes, two_layers

TINY = 1e-10
"""Keeps weights above 0, as in the reference code."""


class Kernels(nn.Module):
    """Several small networks side by side: ``[*B, d_in]`` to ``[*B, n_kernels, d_out]``.

    Args:
        n_kernels: number of networks.
        d_in: width of the input.
        d_hidden: width of their hidden layers.
        d_out: width of each output.
        n_layers: linear layers in each, with ReLU between.
    """

    def __init__(self, n_kernels: int, d_in: int, d_hidden: int, d_out: int, n_layers: int) -> None:
        super().__init__()
        width = d_hidden if n_layers > 1 else d_out
        self.shape = (n_kernels, width)
        # All networks read the same input: their first layers are one product.
        self.first = nn.Linear(d_in, n_kernels * width)
        self.others = nn.ModuleList(
            GroupedLinear(n_kernels, d_hidden, d_hidden if i < n_layers - 2 else d_out)
            for i in range(n_layers - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of all networks."""
        x = self.first(x).unflatten(-1, self.shape)
        for layer in self.others:
            x = layer(x.relu())
        return x


class QplexMixer(Mixer):
    """Transforms the agents' values, and weights their advantages by state and joint action.

    Wang et al. 2021, https://arxiv.org/abs/2008.01062. The defaults are those of the authors' code for
    matrix games and StarCraft: ten kernels of three layers for the importance lambda, hidden width 64.

        lambda_i = sum_k |key_k(s)| sigmoid(agent_{k,i}(s)) sigmoid(action_{k,i}(s, u))

    Args:
        n_agents: agents in the team, at least 1.
        n_actions: actions of each agent, at least 1.
        d_state: width of the global state, at least 1 (2 with ``state_norm="layer"``).
        n_kernels: networks that lambda is summed over, at least 1.
        kernel_layers: their linear layers, at least 1.
        d_hidden: width of all hidden layers, at least 1.
        stop_gradient: as in :func:`marl_td.losses.functional.factorisation.mix_duplex`.
        state_norm: ``"none"`` or ``"layer"``, see :class:`marl_td.models.mixers.StateInput`.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        best_key: largest value of each agent's available actions, ``[*B, n_agents, 1]``.
        state_key: the global state, ``[*B, d_state]``.
        action_key: one-hot joint action, ``[*B, n_agents, n_actions]``.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if a size is below its minimum or ``state_norm`` is unknown; on a call, if a shape does
            not fit.
    """

    def __init__(
        self,
        n_agents: int,
        n_actions: int,
        d_state: int,
        *,
        n_kernels: int = 10,
        kernel_layers: int = 3,
        d_hidden: int = 64,
        stop_gradient: bool = True,
        state_norm: str = "none",
        local_key: NestedKey = ("agents", "chosen_action_value"),
        best_key: NestedKey = ("agents", "greedy_action_value"),
        state_key: NestedKey = "state",
        action_key: NestedKey = ("agents", "joint_action"),
        out_key: NestedKey = "global_value",
    ) -> None:
        values, inputs = [local_key, best_key], [state_key, action_key]
        super().__init__(n_agents, value_keys=values, input_keys=inputs, out_key=out_key)
        self.scaled = StateInput(d_state, state_norm)
        sizes = {"n_kernels": n_kernels, "kernel_layers": kernel_layers, "d_hidden": d_hidden}
        check_sizes(n_actions=n_actions, **sizes)
        self.n_actions = n_actions
        self.stop_gradient = stop_gradient
        self.weight = two_layers(d_state, d_hidden, n_agents)
        self.bias = two_layers(d_state, d_hidden, n_agents)
        d_joint = d_state + n_agents * n_actions
        self.key = Kernels(n_kernels, d_state, d_hidden, 1, kernel_layers)
        self.agents = Kernels(n_kernels, d_state, d_hidden, n_agents, kernel_layers)
        self.actions = Kernels(n_kernels, d_joint, d_hidden, n_agents, kernel_layers)

    def mix(self, local_value: Tensor, *inputs: Tensor) -> Tensor:
        """Team value ``[*B]`` from the values of the actions and the best ones, the state and the actions."""
        best_value, state, joint_action = inputs
        scaled = self.scaled(state)
        return mix_duplex(
            local_value,
            best_value,
            self.weight(scaled).abs() + TINY,
            self.bias(scaled),
            self.importance(scaled, joint_action),
            stop_gradient=self.stop_gradient,
        )

    def importance(self, state: Tensor, joint_action: Tensor) -> Tensor:
        """Importance ``[*B, n_agents]`` from the scaled state and the one-hot joint action."""
        size = (self.n_agents, self.n_actions)
        check_shape("joint_action", joint_action, size, "[*B, n_agents, n_actions]")
        joint = torch.cat([state, joint_action.flatten(-2)], dim=-1)
        key = self.key(state).abs() + TINY  # [*B, n_kernels, 1]
        return (key * self.agents(state).sigmoid() * self.actions(joint).sigmoid()).sum(-2)
