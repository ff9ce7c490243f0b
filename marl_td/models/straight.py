"""TorchRL's multi-agent MLPs with a forward pass that compiles.

``MultiAgentMLP`` swaps its parameters into an empty network at every call. Traced by Dynamo the swap leaves
entries behind in that network, and so in ``state_dict``; the next graph no longer fits. Here the same layers
are applied to the same parameters one after the other, without a swap (and faster so, compiled or not).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torchrl.modules import MultiAgentMLP
from torchrl.modules.models.multiagent import MultiAgentNetBase

from marl_td.models.compiling import NotCompilable
from marl_td.models.fast_tanh import fast_tanh

NARROW = 16
"""Fewer outputs than this do not fill a vector register."""

Layer = tuple[Tensor, Tensor | None] | Callable[[Tensor], Tensor]


class _LayerNorm:
    """A layer normalisation with the parameters ``[d]`` of all agents, or ``[n_agents, d]`` of each."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` ``[rows, d]`` or ``[n_agents, rows, d]``, normalised over its last dimension."""
        out = layer_norm(x, x.shape[-1:], eps=self.eps)
        return out * self.weight.unsqueeze(-2) + self.bias.unsqueeze(-2)


class StraightMultiAgentMLP(MultiAgentMLP):
    """A ``MultiAgentMLP`` after :func:`straighten`: same parameters, outputs and state dict."""

    _layers: list[Layer]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Outputs ``[*B, n_agents, d_out]`` of inputs ``[*B, n_agents, d]`` that are concatenated."""
        x = self._pre_forward_check(torch.cat(inputs, -1) if len(inputs) > 1 else inputs[0])
        batch = x.shape[:-1] if self.centralized else x.shape[:-2]
        n_inputs = 1 if self.centralized else self.n_agents
        # Matrices [rows, d] or [n_agents, rows, d]; other layouts would be multiplied row by row.
        if self.share_params:
            out = self._shared(x.reshape(-1, x.shape[-1]))
            out = out.reshape(*batch, n_inputs, out.shape[-1])
        else:
            x = x.reshape(-1, n_inputs, x.shape[-1]).transpose(0, 1)
            out = self._own(x.expand(self.n_agents, -1, -1)).transpose(0, 1)
            out = out.reshape(*batch, self.n_agents, out.shape[-1])
        return out.expand(*batch, self.n_agents, out.shape[-1])

    def _shared(self, x: Tensor) -> Tensor:
        """Outputs ``[rows, d_out]`` of one network for all agents."""
        for layer in self._layers:
            x = _linear(x, *layer) if isinstance(layer, tuple) else layer(x)
        return x

    def _own(self, x: Tensor) -> Tensor:
        """Outputs ``[n_agents, rows, d_out]`` of one network per agent."""
        for layer in self._layers:
            # Weights [n_agents, d_out, d_in], biases [n_agents, d_out].
            x = _linear(x, *layer) if isinstance(layer, tuple) else layer(x)
        return x


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer ``[.., rows, d_in]`` to ``[.., rows, d_out]``, or a stack of them.

    In a graph the bias is left to the kernel that follows: subtracted, because a sum of a product and a bias
    would be made a call that first copies the bias to every row. A few outputs (of some actions) are kept
    one behind the other, each with all its rows: what follows then runs over rows in vector instructions.
    """
    if not torch.compiler.is_compiling():
        product = x @ weight.transpose(-2, -1)
        return product if bias is None else product + bias.unsqueeze(-2)
    narrow = 1 < weight.shape[-2] < NARROW
    product = (
        (weight @ x.transpose(-2, -1)).transpose(-2, -1) if narrow else x @ weight.transpose(-2, -1)
    )
    return product if bias is None else product - (-bias).unsqueeze(-2)


def straighten(root: nn.Module) -> list[str]:
    """Give every ``MultiAgentMLP`` in ``root`` the straight forward pass, in place.

    Call it again after something has replaced the parameters (``.to(device)``).

    Returns:
        names of TorchRL's multi-agent networks that have none and cannot be compiled.
    """
    left = []
    for name, module in root.named_modules():
        if not isinstance(module, MultiAgentNetBase):
            continue
        layers = _layers(module) if isinstance(module, MultiAgentMLP) else None
        if layers is None:
            left.append(f"{name} ({type(module).__name__})")
            continue
        module.__class__ = StraightMultiAgentMLP
        module.__dict__["_layers"] = layers
    return left


def require_straight(root: nn.Module) -> None:
    """Straighten ``root``.

    Raises:
        NotCompilable: naming a network that cannot be.
    """
    left = straighten(root)
    if left:
        raise NotCompilable(f"the network {left[0]} swaps its parameters")


def _layers(module: Any) -> list[Layer] | None:
    """The network's layers; None if one is neither linear, nor a layer norm, nor free of parameters."""
    if module.agent_dim not in (-2, None):
        return None
    layers: list[Layer] = []
    for name, layer in module._empty_net.named_children():
        if isinstance(layer, nn.Linear):
            params = module.params[name]
            layers.append((params["weight"], params.get("bias", None)))
        elif isinstance(layer, nn.LayerNorm) and _is_whole(layer):
            params = module.params[name]
            layers.append(_LayerNorm(params["weight"], params["bias"], layer.eps))
        elif name in module.params.keys() or isinstance(layer, nn.Dropout):
            return None
        else:
            layers.append(fast_tanh if type(layer) is nn.Tanh else layer)
    return layers


def _is_whole(layer: nn.LayerNorm) -> bool:
    """Whether it normalises over the last dimension, and scales and shifts it."""
    return len(layer.normalized_shape) == 1 and layer.weight is not None and layer.bias is not None
