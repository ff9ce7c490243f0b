"""Linear and recurrent layers for agents that share parameters or have their own.

Every layer has parameters ``[n_groups, ...]``: one group for all agents, or one per agent. The agents are
rows of the input, ``[*B, n_agents, d]``: shared parameters are one matrix product over all rows,
separate ones a batched product. No parameters are swapped at run time, which would not compile.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from marl_td.models.fast_tanh import fast_tanh


class GroupedLinear(nn.Module):
    """Linear layer ``[*B, n_agents, d_in]`` to ``[*B, n_agents, d_out]``.

    Args:
        n_groups: 1 for shared parameters (any number of rows), or the number of agents for one layer each.
        d_in: width of the input.
        d_out: width of the output.
        device: where the parameters live.
    """

    def __init__(
        self, n_groups: int, d_in: int, d_out: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(d_in)
        weight = torch.empty((n_groups, d_out, d_in), device=device).uniform_(-bound, bound)
        bias = torch.empty((n_groups, d_out), device=device).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Output of each row's layer."""
        if self.weight.shape[0] == 1:
            return nn.functional.linear(x, self.weight[0], self.bias[0])
        return torch.einsum("...ni,noi->...no", x, self.weight) + self.bias


class GroupedLayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016, https://arxiv.org/abs/1607.06450) of rows ``[*B, n_agents, d]``.

    Args:
        n_groups: as in :class:`GroupedLinear`.
        d: width of the rows.
        device: where the parameters live.
    """

    def __init__(self, n_groups: int, d: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((n_groups, d), device=device))
        self.bias = nn.Parameter(torch.zeros((n_groups, d), device=device))

    def forward(self, x: Tensor) -> Tensor:
        """The rows with mean 0 and variance 1 over their entries, then scaled and shifted."""
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class GroupedGRU(nn.Module):
    """Stacked gated recurrent units (Cho et al. 2014, https://arxiv.org/abs/1406.1078) along a sequence.

        r = s(W_r x + U_r h)    z = s(W_z x + U_z h)    n = tanh(W_n x + r (U_n h))
        h' = (1 - z) n + z h

    Args:
        n_groups: as in :class:`GroupedLinear`.
        d_in: width of the input.
        hidden_size: width of the state.
        n_layers: number of layers.
        device: where the parameters live.
    """

    def __init__(
        self,
        n_groups: int,
        d_in: int,
        hidden_size: int,
        n_layers: int,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        widths = [d_in] + [hidden_size] * (n_layers - 1)
        self.inputs = nn.ModuleList(
            GroupedLinear(n_groups, width, 3 * hidden_size, device) for width in widths
        )
        self.states = nn.ModuleList(
            GroupedLinear(n_groups, hidden_size, 3 * hidden_size, device) for _ in widths
        )

    def forward(self, x: Tensor, state: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Run the sequence.

        Args:
            x: ``[B, T, n_agents, d_in]``.
            state: ``[B, n_agents, n_layers, hidden_size]`` before the first step.
            reset: bool ``[B, T]``; true where the state is zeroed before the step.

        Returns:
            output of the last layer ``[B, T, n_agents, hidden_size]`` and the states after each step
            ``[B, T, n_agents, n_layers, hidden_size]``.
        """
        reset = reset.unsqueeze(-1).unsqueeze(-1)  # [B, T, 1, 1]
        after = []
        for layer, (from_input, from_state) in enumerate(
            zip(self.inputs, self.states, strict=True)
        ):
            h, steps = state.select(-2, layer), []
            # The input's part of all steps is one product; only the state's part is sequential.
            for gates, starts in zip(from_input(x).unbind(1), reset.unbind(1), strict=True):
                h = torch.where(starts, torch.zeros_like(h), h)
                h = _gru_step(gates, from_state(h), h)
                steps.append(h)
            x = torch.stack(steps, dim=1)
            after.append(x)
        return x, torch.stack(after, dim=-2)


def _gru_step(from_input: Tensor, from_state: Tensor, h: Tensor) -> Tensor:
    input_r, input_z, input_n = from_input.chunk(3, dim=-1)
    state_r, state_z, state_n = from_state.chunk(3, dim=-1)
    z = torch.sigmoid(input_z + state_z)
    candidate = fast_tanh(input_n + torch.sigmoid(input_r + state_r) * state_n)
    return candidate + z * (h - candidate)
