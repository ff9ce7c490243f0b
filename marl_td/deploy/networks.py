"""One agent's own network of those that groups of agents have, over tensors ``[B, 1, ...]``."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torchrl.modules import GRUCell

from marl_td.deploy.parts import NotExportable, fixed_parameter, own_copy
from marl_td.models.grouped import GroupedGRU

PLAIN_LAYERS = (nn.Linear, nn.LayerNorm, nn.Conv2d)
"""Layers whose parameters are all that they have."""


def own_layers(network: Any, agent: int) -> nn.Sequential:
    """One agent's layers of a multi-agent network of TorchRL's.

    Raises:
        NotExportable: if one of them keeps more than weight and bias.
    """
    layers = []
    for name, template in network._empty_net.named_children():
        layer = deepcopy(template)
        if name in network.params.keys():
            if not isinstance(template, PLAIN_LAYERS):
                raise NotExportable(
                    f"the network has a layer {type(template).__name__}, of which it is not known how an "
                    f"agent's own part looks; known are {', '.join(k.__name__ for k in PLAIN_LAYERS)}."
                )
            for key, value in network.params[name].items():
                setattr(
                    layer, key, fixed_parameter(value if network.share_params else value[agent])
                )
        layers.append(layer)
    return nn.Sequential(*layers).eval()


class OwnMlp(nn.Module):
    """One agent's layers of a ``MultiAgentMLP``, over the concatenation of its entries.

    Args:
        network: the ``MultiAgentMLP``.
        agent: index of the agent.
        n_dims: dimensions of each entry that are features.
    """

    def __init__(self, network: Any, agent: int, n_dims: int) -> None:
        super().__init__()
        self.n_dims = n_dims
        self.layers = own_layers(network, agent)

    def forward(self, *entries: Tensor) -> Tensor:
        """Output ``[B, 1, d_out]``."""
        flat = [entry.flatten(-self.n_dims) if self.n_dims > 1 else entry for entry in entries]
        return self.layers(torch.cat(flat, -1) if len(flat) > 1 else flat[0])


class OwnCnn(nn.Module):
    """One agent's convolutions over its pictures ``[B, 1, x, y, channels]``, and its layers after them.

    Args:
        network: BenchMARL's ``Cnn``.
        agent: index of the agent.
    """

    def __init__(self, network: Any, agent: int) -> None:
        super().__init__()
        self.n_pictures = len(network.image_in_keys)
        self.convolutions = own_layers(network.cnn, agent)
        self.layers = OwnMlp(network.mlp, agent, 1)

    def forward(self, *entries: Tensor) -> Tensor:
        """Output ``[B, 1, d_out]`` from pictures, then vectors."""
        pictures = torch.cat(entries[: self.n_pictures], -1).squeeze(1).float()
        found = self.convolutions(pictures.permute(0, 3, 1, 2)).unsqueeze(1)
        return self.layers(found, *entries[self.n_pictures :])


class OwnGru(nn.Module):
    """One step of one agent's :class:`marl_td.models.gru.StatefulGru`.

    Args:
        network: the network.
        agent: index of the agent.
    """

    def __init__(self, network: Any, agent: int) -> None:
        super().__init__()
        self.encoder = own_copy(network.encoder, agent)
        self.gru: GroupedGRU = own_copy(network.gru, agent)  # type: ignore[assignment]
        self.head = own_copy(network.head, agent)

    def forward(self, *entries: Tensor) -> tuple[Tensor, Tensor]:
        """Output ``[B, 1, d_out]`` and next state, from observations and the state, the last entry."""
        *observed, state = entries
        x = self.encoder(torch.cat(observed, -1) if len(observed) > 1 else observed[0])
        never = torch.zeros((1, 1), dtype=torch.bool)
        out, after = self.gru(x.unsqueeze(1), state, never)
        return self.head(out.squeeze(1)), after.squeeze(1)


class OwnCells(nn.Module):
    """One step of one agent's BenchMARL ``Gru``: cells one behind the other, then its layers.

    Args:
        network: the model.
        agent: index of the agent.
    """

    def __init__(self, network: Any, agent: int) -> None:
        super().__init__()
        width, cells = network.input_features, []
        for layer in range(network.n_layers):
            cell = GRUCell(width, network.hidden_size, bias=network.bias)
            for name, value in network.gru.params["grus", str(layer)].items():
                own = value if network.share_params else value[agent]
                setattr(cell, name, fixed_parameter(own))
            cells.append(cell)
            width = network.hidden_size
        self.cells = nn.ModuleList(cells).eval()
        self.layers = OwnMlp(network.mlp, agent, 1)

    def forward(self, *entries: Tensor) -> tuple[Tensor, Tensor]:
        """Output ``[B, 1, d_out]`` and next state, from observations and the state, the last entry."""
        *observed, state = entries
        x = torch.cat(observed, -1).squeeze(1)
        after = []
        for cell, before in zip(self.cells, state.squeeze(1).unbind(-2), strict=True):
            x = cell(x, before)
            after.append(x)
        return self.layers(x.unsqueeze(1)), torch.stack(after, -2).unsqueeze(1)
