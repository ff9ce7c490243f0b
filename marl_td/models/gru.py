"""Recurrent networks whose hidden state is kept with the data: ``model=layers/marl_td/gru``.

BenchMARL's GRU starts every training sequence from a zero state, whatever state the policy really had there.
This one writes its state under a key that collectors keep, so that a training sequence starts where
collection started, and a cut trajectory's next value is one step from the true state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from benchmarl.models.common import Model, ModelConfig
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Composite, Unbounded

from marl_td.field_types import check_fields
from marl_td.models.fast_tanh import FastTanh
from marl_td.models.grouped import GroupedGRU, GroupedLayerNorm, GroupedLinear

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": FastTanh, "relu": nn.ReLU}


class StatefulGru(Model):
    """Encoder, gated recurrent units and a linear output, over the rows of a group's agents.

    A TensorDict of at most one batch dimension is one step: the state at :attr:`state_key` is read, and the
    state after the step is written under ``"next"``. With two or more batch dimensions the last one is time:
    the state is read at the first step only, and ``"is_init"`` ``[*B, T, 1]`` zeroes it inside. Without a
    state in the TensorDict it starts at zero.

    Args:
        encoder_cells: hidden sizes of the layers before the recurrence.
        hidden_size: width of the state.
        n_layers: number of recurrent layers.
        activation: ``"tanh"`` or ``"relu"``, after each layer of the encoder.
        layer_norm: normalise each layer of the encoder before its activation, and the output of the
            recurrence before the last layer.
        interface: BenchMARL's description of inputs and outputs.
    """

    def __init__(
        self,
        *,
        encoder_cells: list[int],
        hidden_size: int,
        n_layers: int,
        activation: str,
        layer_norm: bool = False,
        **interface: Any,
    ) -> None:
        super().__init__(**interface)
        self.input_keys = list(self.in_keys)
        self.state_key = self._state_key()
        self.in_keys += ["is_init", self.state_key]
        n_groups = 1 if self.share_params else self.n_agents
        has_rows = self.input_has_agent_dim and not self.centralised
        self.n_rows = self.n_agents if has_rows else n_groups
        self.state_shape = (self.n_rows, n_layers, hidden_size)

        layers: list[nn.Module] = []
        width = self._input_width()
        for cells in encoder_cells:
            layers.append(GroupedLinear(n_groups, width, cells, self.device))
            if layer_norm:
                layers.append(GroupedLayerNorm(n_groups, cells, self.device))
            layers.append(ACTIVATIONS[activation]())
            width = cells
        self.encoder = nn.Sequential(*layers)
        self.gru = GroupedGRU(n_groups, width, hidden_size, n_layers, self.device)
        d_out = self.output_leaf_spec.shape[-1]
        self.head: nn.Module = GroupedLinear(n_groups, hidden_size, d_out, self.device)
        if layer_norm:
            norm = GroupedLayerNorm(n_groups, hidden_size, self.device)
            self.head = nn.Sequential(norm, self.head)

    def _state_key(self) -> NestedKey:
        """A policy's state stands with its group; a critic's at the root, since it may have no agents."""
        if self.is_critic:
            return f"{self.agent_group}_critic_gru_{self.model_index}"
        return (self.agent_group, f"hidden_gru_{self.model_index}")

    def _input_width(self) -> int:
        width = sum(spec.shape[-1] for spec in self.input_spec.values(True, True))
        joint = self.input_has_agent_dim and self.centralised
        return width * self.n_agents if joint else width

    def _perform_checks(self) -> None:
        super()._perform_checks()
        n_dims = 2 if self.input_has_agent_dim else 1
        for key, spec in self.input_spec.items(True, True):
            if len(spec.shape) != n_dims:
                raise ValueError(
                    f"the GRU reads vectors; the entry {key!r} of group '{self.agent_group}' has shape "
                    f"{list(spec.shape)}. Flatten it in the environment, or put a CNN before the GRU."
                )

    def _rows(self, tensordict: TensorDictBase) -> Tensor:
        """Input ``[*B, n_rows, d]``."""
        x = torch.cat([tensordict.get(key) for key in self.input_keys], dim=-1)
        if not self.input_has_agent_dim:
            x = x.unsqueeze(-2)
        elif self.centralised:
            x = x.flatten(-2).unsqueeze(-2)
        return x.expand(*x.shape[:-2], self.n_rows, x.shape[-1])

    def _forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        x = self._rows(tensordict)
        batch = x.shape[:-2]
        n_steps = batch[-1] if len(batch) > 1 else 1
        x = x.reshape(-1, n_steps, *x.shape[-2:])
        reset = tensordict.get("is_init", None)
        if reset is None:
            reset = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        state = tensordict.get(self.state_key, None)
        if state is None:
            start = x.new_zeros((x.shape[0], *self.state_shape))
        else:
            start = state.reshape(-1, n_steps, *self.state_shape)[:, 0]
        out, after = self.gru(self.encoder(x), start, reset.reshape(x.shape[:2]))
        out = self.head(out).reshape(*batch, self.n_rows, -1)
        tensordict.set(self.out_key, out if self.output_has_agent_dim else out.squeeze(-2))
        next_key = (
            "next",
            *((self.state_key,) if isinstance(self.state_key, str) else self.state_key),
        )
        tensordict.set(next_key, after.reshape(*batch, *self.state_shape))
        return tensordict


@dataclass
class StatefulGruConfig(ModelConfig):
    """Settings of :class:`StatefulGru`."""

    hidden_size: int = 64
    """Width of the recurrent state, at least 1."""
    n_layers: int = 1
    """Number of recurrent layers, at least 1."""
    encoder_cells: list[int] = field(default_factory=lambda: [64])
    """Hidden sizes of the layers before the recurrence; an empty list for none."""
    activation: str = "tanh"
    """Activation of the encoder: tanh or relu."""
    layer_norm: bool = False
    """Normalise the layers of the encoder before their activation, and the output of the recurrence."""

    def __post_init__(self) -> None:
        """Check types and ranges."""
        check_fields(self)
        sizes = [self.hidden_size, self.n_layers, *self.encoder_cells]
        if min(sizes) < 1:
            raise ValueError(
                "hidden_size, n_layers and encoder_cells must be at least 1; got "
                f"{self.hidden_size}, {self.n_layers} and {list(self.encoder_cells)}."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}; got '{self.activation}'."
            )

    @staticmethod
    def associated_class() -> type[StatefulGru]:
        """The model's class."""
        return StatefulGru

    @classmethod
    def get_from_yaml(cls, path: str | None = None) -> StatefulGruConfig:
        """The defaults, or the settings in the YAML file at ``path``."""
        if path is None:
            return cls()
        from benchmarl.utils import _read_yaml_config

        settings = _read_yaml_config(path)
        settings.pop("name", None)
        return cls(**settings)

    @property
    def is_rnn(self) -> bool:
        """It is recurrent."""
        return True

    def get_model_state_spec(self, model_index: int = 0) -> Composite:
        """The policy's state, per agent."""
        shape = (self.n_layers, self.hidden_size)
        return Composite({f"hidden_gru_{model_index}": Unbounded(shape=shape)})
