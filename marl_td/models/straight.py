"""TorchRL's multi-agent MLPs with a forward pass that compiles.

``MultiAgentMLP`` swaps its parameters into an empty network at every call. Traced by Dynamo the swap leaves
entries behind in that network, and so in ``state_dict``; the next graph no longer fits. Here the same layers
are applied to the same parameters one after the other, without a swap (and faster so, compiled or not).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torchrl.modules import MultiAgentMLP
from torchrl.modules.models.multiagent import MultiAgentNetBase

from marl_td.models.compiling import NotCompilable

Layer = tuple[Tensor, Tensor | None] | nn.Module


class StraightMultiAgentMLP(MultiAgentMLP):
    """A ``MultiAgentMLP`` after :func:`straighten`: same parameters, outputs and state dict."""

    _layers: list[Layer]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Outputs ``[*B, n_agents, d_out]`` of inputs ``[*B, n_agents, d]`` that are concatenated."""
        x = self._pre_forward_check(torch.cat(inputs, -1) if len(inputs) > 1 else inputs[0])
        if self.centralized:
            x = x.unsqueeze(-2)
            if not self.share_params:
                x = x.expand(*x.shape[:-2], self.n_agents, x.shape[-1])
        for layer in self._layers:
            if isinstance(layer, nn.Module):
                x = layer(x)
            elif self.share_params:
                x = linear(x, *layer)
            else:
                weight, bias = layer  # [n_agents, d_out, d_in]
                x = (weight @ x.unsqueeze(-1)).squeeze(-1)
                x = x if bias is None else x + bias
        return x.expand(*x.shape[:-2], self.n_agents, x.shape[-1])


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
    """The network's layers, or None if one is neither linear nor free of parameters."""
    if module.agent_dim not in (-2, None):
        return None
    layers: list[Layer] = []
    for name, layer in module._empty_net.named_children():
        if isinstance(layer, nn.Linear):
            params = module.params[name]
            layers.append((params["weight"], params.get("bias", None)))
        elif name in module.params.keys() or isinstance(layer, nn.Dropout):
            return None
        else:
            layers.append(layer)
    return layers
