"""Qatten's attention over agents."""

from __future__ import annotations

import torch
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.functional.checks import check_shape
from marl_td.losses.functional.factorisation import attention_weight, mix_attention
from marl_td.models.mixers.base import Mixer, StateInput, check_sizes, two_layers


class QattenMixer(Mixer):
    """Weights the agents' values by attention: the state asks, what is seen of each agent answers.

    Yang et al. 2020, https://arxiv.org/abs/2002.03939. The defaults are those of the authors' code: four
    heads, queries by a hidden layer of 64, keys linear, both of width 32, head weights by a hidden layer
    of 64, the constant by one of 32. Linear in the agents' values for a given state; cost grows linearly
    with the agents.

    Args:
        n_agents: agents in the team, at least 1.
        d_state: width of the global state, at least 1 (2 with ``state_norm="layer"``).
        d_agent: width of what is seen of each agent, at least 1.
        n_heads: attention heads, at least 1.
        d_attention: width of queries and keys, at least 1.
        d_hidden: width of the hidden layers, at least 1.
        state_norm: ``"none"`` or ``"layer"``, see :class:`marl_td.models.mixers.StateInput`.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        state_key: the global state, ``[*B, d_state]``.
        agent_key: what is seen of each agent, ``[*B, n_agents, d_agent]``.
        alive_key: who is alive, ``[*B, n_agents]`` bool; None where nobody dies.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if a size is below its minimum or ``state_norm`` is unknown; on a call, if a shape does
            not fit.
    """

    def __init__(
        self,
        n_agents: int,
        d_state: int,
        d_agent: int,
        *,
        n_heads: int = 4,
        d_attention: int = 32,
        d_hidden: int = 64,
        state_norm: str = "none",
        local_key: NestedKey = ("agents", "chosen_action_value"),
        state_key: NestedKey = "state",
        agent_key: NestedKey = ("agents", "agent_input"),
        alive_key: NestedKey | None = None,
        out_key: NestedKey = "global_value",
    ) -> None:
        keys = {"value_keys": [local_key], "input_keys": [state_key, agent_key]}
        super().__init__(n_agents, alive_key=alive_key, out_key=out_key, **keys)
        self.scaled = StateInput(d_state, state_norm)
        check_sizes(d_agent=d_agent, n_heads=n_heads, d_attention=d_attention, d_hidden=d_hidden)
        self.d_agent = d_agent
        self.heads = (n_heads, d_attention)
        self.query = nn.ModuleList(
            two_layers(d_state, d_hidden, d_attention) for _ in range(n_heads)
        )
        self.key = nn.Linear(d_agent, n_heads * d_attention, bias=False)
        self.head_weight = two_layers(d_state, d_hidden, n_heads)
        self.bias = two_layers(d_state, d_attention, 1)

    def mix(self, local_value: Tensor, *inputs: Tensor) -> Tensor:
        """Team value ``[*B]`` from ``[*B, n_agents]``, the state, the agents and (optionally) the living."""
        state, agents, *alive = inputs
        scaled = self.scaled(state)
        bias = self.bias(scaled).squeeze(-1)
        attention = self.attention(scaled, agents, *alive)
        return mix_attention(local_value, attention, self.head_weight(scaled), bias)

    def attention(self, state: Tensor, agents: Tensor, alive: Tensor | None = None) -> Tensor:
        """Weights ``[*B, n_heads, n_agents]`` from the scaled state ``[*B, d_state]`` and the agents."""
        check_shape("agents", agents, (self.n_agents, self.d_agent), "[*B, n_agents, d_agent]")
        key = self.key(agents).unflatten(-1, self.heads).transpose(-3, -2)
        query = torch.stack([network(state) for network in self.query], dim=-2)
        return attention_weight(query, key, alive)
