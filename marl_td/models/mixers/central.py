"""A mixer without restrictions."""

from __future__ import annotations

import torch
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.models.mixers.base import Mixer, StateInput, check_sizes, two_layers


class CentralMixer(Mixer):
    """WQMIX's unrestricted mixer: a network of the state and the agents' values, plus one of the state.

        Q* = f(s, q_1, .., q_N) + V(s)

    Rashid et al. 2020, https://arxiv.org/abs/2006.10800; in their code f has three hidden layers of 256,
    V one. It does not see the actions themselves, only the agents' values of them.

    Args:
        n_agents: agents in the team, at least 1.
        d_state: width of the global state, at least 1 (2 with ``state_norm="layer"``).
        d_hidden: width of the hidden layers, at least 1.
        n_hidden: hidden layers of f, at least 1.
        state_norm: ``"none"`` or ``"layer"``, see :class:`marl_td.models.mixers.StateInput`.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        state_key: the global state, ``[*B, d_state]``.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if a size is below its minimum or ``state_norm`` is unknown; on a call, if the
            state does not end in ``d_state``.
    """

    def __init__(
        self,
        n_agents: int,
        d_state: int,
        *,
        d_hidden: int = 256,
        n_hidden: int = 3,
        state_norm: str = "none",
        local_key: NestedKey = ("agents", "chosen_action_value"),
        state_key: NestedKey = "state",
        out_key: NestedKey = "global_value",
    ) -> None:
        keys = {"value_keys": [local_key], "input_keys": [state_key]}
        super().__init__(n_agents, out_key=out_key, **keys)
        self.scaled = StateInput(d_state, state_norm)
        check_sizes(d_hidden=d_hidden, n_hidden=n_hidden)
        layers: list[nn.Module] = [nn.Linear(d_state + n_agents, d_hidden), nn.ReLU()]
        for _ in range(n_hidden - 1):
            layers += [nn.Linear(d_hidden, d_hidden), nn.ReLU()]
        self.joint = nn.Sequential(*layers, nn.Linear(d_hidden, 1))
        self.state_value = two_layers(d_state, d_hidden, 1)

    def mix(self, local_value: Tensor, *inputs: Tensor) -> Tensor:
        """Team value ``[*B]`` from ``[*B, n_agents]`` and the state ``[*B, d_state]``."""
        state = self.scaled(*inputs)
        joint = self.joint(torch.cat([state, local_value], dim=-1))
        return (joint + self.state_value(state)).squeeze(-1)
