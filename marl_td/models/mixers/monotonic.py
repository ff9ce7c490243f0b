"""QMIX's monotone mixing network."""

from __future__ import annotations

from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.functional.mixing import mix_monotonic
from marl_td.models.mixers.base import Mixer, StateInput, check_sizes, two_layers


class QMixer(Mixer):
    """QMIX's monotone mixing network; hypernetworks make its weights from the state.

    Rashid et al. 2018, https://arxiv.org/abs/1803.11485. The defaults are those of the authors'
    PyMARL: two-layer hypernetworks of width 64 for the weights, a linear one for the first bias, a
    two-layer one for the second, 32 mixing units.

    Args:
        n_agents: agents in the team, at least 1.
        d_state: width of the global state, at least 1 (2 with ``state_norm="layer"``).
        d_embed: mixing units, at least 1: E.
        hypernet_layers: 1 or 2 layers in the hypernetworks of the weights.
        d_hypernet: width of their hidden layer (with 2 layers), at least 1.
        state_norm: ``"none"`` or ``"layer"``, see :class:`marl_td.models.mixers.StateInput`.
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
        keys = {"value_keys": [local_key], "input_keys": [state_key]}
        super().__init__(n_agents, out_key=out_key, **keys)
        self.scaled = StateInput(d_state, state_norm)
        check_sizes(d_embed=d_embed, d_hypernet=d_hypernet)
        if hypernet_layers not in (1, 2):
            raise ValueError(f"hypernet_layers must be 1 or 2; got {hypernet_layers}.")
        self.d_state = d_state
        self.d_embed = d_embed
        d_hidden = d_hypernet if hypernet_layers == 2 else None
        self.weight_1 = two_layers(d_state, d_hidden, n_agents * d_embed)
        self.bias_1 = two_layers(d_state, None, d_embed)
        self.weight_2 = two_layers(d_state, d_hidden, d_embed)
        self.bias_2 = two_layers(d_state, d_embed, 1)

    def mix(self, local_value: Tensor, *inputs: Tensor) -> Tensor:
        """Team value ``[*B]`` from ``[*B, n_agents]`` and the state ``[*B, d_state]``."""
        (state,) = inputs
        return mix_monotonic(local_value, *self.weights(self.scaled(state)))

    def weights(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What :func:`mix_monotonic` takes, from the scaled state ``[*B, d_state]``."""
        return (
            self.weight_1(state).unflatten(-1, (self.n_agents, self.d_embed)),
            self.bias_1(state),
            self.weight_2(state),
            self.bias_2(state).squeeze(-1),
        )
