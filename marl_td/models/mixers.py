"""Mixers: from the agents' values to the value of the team.

Each works alone. With a TensorDict it reads the value of every agent's action ``[*B, n_agents, 1]``
(and the global state ``[*B, d_state]``) and writes the team's ``[*B, 1]``; with plain tensors
``mixer.mix(local_value [*B, n_agents], state [*B, d_state])`` returns ``[*B]``.
"""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.functional.checks import check_shape
from marl_td.losses.functional.mixing import mix_monotonic, mix_sum

STATE_NORMS = ("none", "layer")


class Mixer(TensorDictModuleBase):
    """Base of the mixers: what they read and write. A subclass implements :meth:`mix`.

    Args:
        n_agents: agents in the team, at least 1.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        state_key: the global state ``[*B, d_state]``; None if the mixer needs none.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if ``n_agents`` is below 1.
    """

    def __init__(
        self,
        n_agents: int,
        *,
        local_key: NestedKey = ("agents", "chosen_action_value"),
        state_key: NestedKey | None = "state",
        out_key: NestedKey = "global_value",
    ) -> None:
        super().__init__()
        if n_agents < 1:
            raise ValueError(f"a mixer needs at least 1 agent; got n_agents={n_agents}.")
        self.n_agents = n_agents
        self.in_keys = [local_key] if state_key is None else [local_key, state_key]
        self.out_keys = [out_key]

    def mix(self, local_value: Tensor, *state: Tensor) -> Tensor:
        """Team value ``[*B]`` from ``[*B, n_agents]`` and, where needed, ``[*B, d_state]``."""
        raise NotImplementedError

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the team's value into ``tensordict``."""
        local_value, *state = (tensordict.get(key) for key in self.in_keys)
        check_shape("local_value", local_value, (self.n_agents, 1), "[*B, n_agents, 1]")
        value = self.mix(local_value.squeeze(-1), *state)
        return tensordict.set(self.out_keys[0], value.unsqueeze(-1))


class SumMixer(Mixer):
    """VDN's sum of the agents' values (Sunehag et al. 2017, https://arxiv.org/abs/1706.05296).

    Args:
        n_agents: agents in the team, at least 1.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if ``n_agents`` is below 1.
    """

    def __init__(
        self,
        n_agents: int,
        *,
        local_key: NestedKey = ("agents", "chosen_action_value"),
        out_key: NestedKey = "global_value",
    ) -> None:
        super().__init__(n_agents, local_key=local_key, state_key=None, out_key=out_key)

    def mix(self, local_value: Tensor, *state: Tensor) -> Tensor:
        """Sum over the agents, ``[*B]``."""
        return mix_sum(local_value)


class QMixer(Mixer):
    """QMIX's monotone mixing network; hypernetworks make its weights from the state.

    Rashid et al. 2018, https://arxiv.org/abs/1803.11485. The defaults are those of the authors'
    PyMARL: two-layer hypernetworks of width 64 for the weights, a linear one for the first bias, a
    two-layer one for the second, 32 mixing units.

    The hypernetworks multiply the state: a raw state in the thousands makes weights and values in
    the thousands. Scale the state in the environment, or set ``state_norm="layer"``, which
    standardises each state over its entries (and so loses their common offset and scale).

    Args:
        n_agents: agents in the team, at least 1.
        d_state: width of the global state, at least 1 (2 with ``state_norm="layer"``).
        d_embed: mixing units, at least 1: E.
        hypernet_layers: 1 or 2 layers in the hypernetworks of the weights.
        d_hypernet: width of their hidden layer (with 2 layers), at least 1.
        state_norm: ``"none"`` or ``"layer"``.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        state_key: the global state, ``[*B, d_state]``.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if a size is below its minimum or ``state_norm`` is unknown; on a call, if the
            state does not end in ``d_state``.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> mixer = QMixer(n_agents=3, d_state=5)
        >>> agents = TensorDict({"chosen_action_value": torch.randn(8, 3, 1)}, [8, 3])
        >>> batch = TensorDict({"agents": agents, "state": torch.randn(8, 5)}, [8])
        >>> mixer(batch)["global_value"].shape
        torch.Size([8, 1])
        >>> mixer.mix(torch.randn(2, 7, 3), torch.randn(2, 7, 5)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        n_agents: int,
        d_state: int,
        *,
        d_embed: int = 32,
        hypernet_layers: int = 2,
        d_hypernet: int = 64,
        state_norm: str = "none",
        local_key: NestedKey = ("agents", "chosen_action_value"),
        state_key: NestedKey = "state",
        out_key: NestedKey = "global_value",
    ) -> None:
        super().__init__(n_agents, local_key=local_key, state_key=state_key, out_key=out_key)
        _check_sizes(d_state, d_embed, hypernet_layers, d_hypernet, state_norm)
        self.d_state = d_state
        self.d_embed = d_embed
        d_hidden = d_hypernet if hypernet_layers == 2 else None
        self.weight_1 = _hypernet(d_state, d_hidden, n_agents * d_embed)
        self.bias_1 = _hypernet(d_state, None, d_embed)
        self.weight_2 = _hypernet(d_state, d_hidden, d_embed)
        self.bias_2 = _hypernet(d_state, d_embed, 1)
        self.normalise: nn.Module = nn.Identity()
        if state_norm == "layer":
            self.normalise = nn.LayerNorm(d_state, elementwise_affine=False)

    def mix(self, local_value: Tensor, *state: Tensor) -> Tensor:
        """Team value ``[*B]`` from ``[*B, n_agents]`` and the state ``[*B, d_state]``."""
        (raw,) = state
        check_shape("state", raw, (self.d_state,), "[*B, d_state]")
        scaled = self.normalise(raw)
        return mix_monotonic(
            local_value,
            self.weight_1(scaled).unflatten(-1, (self.n_agents, self.d_embed)),
            self.bias_1(scaled),
            self.weight_2(scaled),
            self.bias_2(scaled).squeeze(-1),
        )


def _hypernet(d_in: int, d_hidden: int | None, d_out: int) -> nn.Module:
    """A linear layer, or two with a ReLU between."""
    if d_hidden is None:
        return nn.Linear(d_in, d_out)
    return nn.Sequential(nn.Linear(d_in, d_hidden), nn.ReLU(), nn.Linear(d_hidden, d_out))


def _check_sizes(
    d_state: int, d_embed: int, hypernet_layers: int, d_hypernet: int, state_norm: str
) -> None:
    for name, size in (("d_state", d_state), ("d_embed", d_embed), ("d_hypernet", d_hypernet)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}.")
    if hypernet_layers not in (1, 2):
        raise ValueError(f"hypernet_layers must be 1 or 2; got {hypernet_layers}.")
    if state_norm not in STATE_NORMS:
        known = ", ".join(STATE_NORMS)
        raise ValueError(f"state_norm must be one of {known}; got '{state_norm}'.")
    if state_norm == "layer" and d_state < 2:
        raise ValueError(
            "state_norm='layer' turns a state of width 1 into 0; use state_norm='none' and scale "
            "the state in the environment."
        )
