"""The multi-agent transformer: an encoder over the agents, and a decoder that goes from agent to agent.

Wen et al. 2022, "Multi-Agent Reinforcement Learning is a Sequence Modeling Problem",
https://arxiv.org/abs/2205.14953. Blocks add, then normalise; agents are the tokens, ``[*B, n_agents, d]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from marl_td.models.grouped import GroupedLinear
from marl_td.models.mixers.base import check_sizes

KeysValues = tuple[Tensor, Tensor]
Past = tuple[KeysValues, KeysValues]
"""What earlier agents left in a block of the decoder: for the actions' attention, and the agents'."""
BEFORE_ACTIVATION = math.sqrt(2.0)
SMALL = 0.01


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """``layer`` with orthogonal weights times ``gain`` and no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def two_layers(width: int, d_out: int) -> nn.Sequential:
    """A hidden layer as wide as the input, its activation, and a linear layer."""
    hidden = orthogonal(nn.Linear(width, width), BEFORE_ACTIVATION)
    return nn.Sequential(hidden, nn.GELU(), orthogonal(nn.Linear(width, d_out), SMALL))


class Attention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    Args:
        width: of a token, a multiple of ``n_heads``.
        n_heads: number of heads, >= 1.

    Raises:
        ValueError: if a size does not fit.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        check_sizes(width=width, n_heads=n_heads)
        if width % n_heads:
            raise ValueError(
                f"the width of a token must be a multiple of n_heads; got {width} and {n_heads}."
            )
        self.n_heads = n_heads
        self.query, self.key, self.value, self.out = (
            orthogonal(nn.Linear(width, width), SMALL) for _ in range(4)
        )

    def keys_values(self, x: Tensor) -> KeysValues:
        """Keys and values ``[*B, n_heads, n, width / n_heads]`` of tokens ``[*B, n, width]``."""
        return self._heads(self.key(x)), self._heads(self.value(x))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """What tokens ``[*B, n, width]`` get from keys and values of m tokens.

        ``mask`` ``[n, m]`` is true where a token may look; None for everywhere.
        """
        query = self._heads(self.query(x))
        score = query @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if mask is not None:
            score = torch.where(mask, score, -torch.inf)
        found = score.softmax(-1) @ values
        return self.out(found.transpose(-3, -2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)


class EncoderBlock(nn.Module):
    """Every agent looks at every agent; then two layers for each by itself."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, n_heads)
        self.layers = two_layers(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[*B, n_agents, width]``."""
        x = self.norms[0](x + self.attention(x, *self.attention.keys_values(x)))
        return self.norms[1](x + self.layers(x))


class Encoder(nn.Module):
    """From what is known of each agent to a representation of each among all.

    It does not depend on the order of the agents: permuted inputs give permuted outputs. A dead agent's input
    counts as zeros.

    Args:
        width: of input and output tokens, >= 1.
        n_blocks: number of blocks, >= 1.
        n_heads: heads of each attention, >= 1.

    Raises:
        ValueError: if a size does not fit.
    """

    def __init__(self, width: int, n_blocks: int = 1, n_heads: int = 1) -> None:
        super().__init__()
        check_sizes(n_blocks=n_blocks)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*[EncoderBlock(width, n_heads) for _ in range(n_blocks)])

    def forward(self, features: Tensor, alive: Tensor | None = None) -> Tensor:
        """Representations of features ``[*B, n_agents, width]``; ``alive`` is ``[*B, n_agents]``."""
        x = nn.functional.gelu(features)
        if alive is not None:
            x = torch.where(alive.unsqueeze(-1), x, 0.0)
        return self.blocks(self.norm(x))


class ValueHead(nn.Module):
    """A value of each agent from its representation.

    Args:
        width: of a representation.
        n_groups: 1 for one last layer for all agents, or the number of agents for one each.
    """

    def __init__(self, width: int, n_groups: int = 1) -> None:
        super().__init__()
        hidden = orthogonal(nn.Linear(width, width), BEFORE_ACTIVATION)
        self.hidden = nn.Sequential(hidden, nn.GELU(), nn.LayerNorm(width))
        self.out = GroupedLinear(n_groups, width, 1)
        with torch.no_grad():
            for weight in self.out.weight:
                nn.init.orthogonal_(weight, SMALL)
            self.out.bias.zero_()

    def forward(self, encoding: Tensor) -> Tensor:
        """Values ``[*B, n_agents, 1]``."""
        return self.out(self.hidden(encoding))


class DecoderBlock(nn.Module):
    """Actions look at earlier actions; representations then look at those; then two layers."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.own = Attention(width, n_heads)
        self.cross = Attention(width, n_heads)
        self.layers = two_layers(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, x: Tensor, encoding: Tensor, past: Past | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Past]:
        """Tokens after the block, and what later agents need of them.

        Args:
            x: tokens ``[*B, n, width]`` of the agents' predecessors' actions.
            encoding: representations of the agents, like ``x``.
            past: of the agents before the n given ones.
            mask: bool ``[n, n]``, who may look at whom of the given ones.
        """
        own = _extended(past and past[0], self.own.keys_values(x))
        x = self.norms[0](x + self.own(x, *own, mask))
        cross = _extended(past and past[1], self.cross.keys_values(x))
        x = self.norms[1](encoding + self.cross(encoding, *cross, mask))
        return self.norms[2](x + self.layers(x)), (own, cross)


def _extended(past: KeysValues | None, new: KeysValues) -> KeysValues:
    if past is None:
        return new
    return torch.cat([past[0], new[0]], -2), torch.cat([past[1], new[1]], -2)


class Decoder(nn.Module):
    """From representations and the actions of earlier agents to the parameters of each agent's distribution.

    Agent i sees all representations and u_1 .. u_(i-1). With all actions known, :meth:`forward` does all
    agents at once; :meth:`step` does one agent after the other, and gives the same.

    Args:
        d_action: width of an action as a row (one-hot, or continuous).
        d_out: number of parameters of an agent's distribution.
        width: of a token, >= 1.
        n_blocks: number of blocks, >= 1.
        n_heads: heads of each attention, >= 1.

    Raises:
        ValueError: if a size does not fit.
    """

    def __init__(
        self, d_action: int, d_out: int, width: int, n_blocks: int = 1, n_heads: int = 1
    ) -> None:
        super().__init__()
        check_sizes(d_action=d_action, d_out=d_out, n_blocks=n_blocks)
        # The last input says that there is no earlier agent.
        self.embedding = orthogonal(nn.Linear(d_action + 1, width, bias=False), BEFORE_ACTIVATION)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(DecoderBlock(width, n_heads) for _ in range(n_blocks))
        hidden = orthogonal(nn.Linear(width, width), BEFORE_ACTIVATION)
        out = orthogonal(nn.Linear(width, d_out), 1.0)
        self.head = nn.Sequential(hidden, nn.GELU(), nn.LayerNorm(width), out)

    def forward(self, encoding: Tensor, action: Tensor) -> Tensor:
        """Parameters ``[*B, n_agents, d_out]`` of all agents.

        Args:
            encoding: ``[*B, n_agents, width]``.
            action: rows ``[*B, n_agents, d_action]``; zeros for the dead. The last agent's is not looked at.
        """
        n_agents = encoding.shape[-2]
        earlier = torch.cat([torch.zeros_like(action[..., :1, :]), action[..., :-1, :]], -2)
        first = torch.arange(n_agents, device=action.device) == 0
        first = first.to(action.dtype).unsqueeze(-1).expand(*action.shape[:-1], 1)
        mask = torch.ones((n_agents, n_agents), dtype=torch.bool, device=action.device).tril()
        x = self._tokens(earlier, first)
        for block in self.blocks:
            x, _ = block(x, encoding, mask=mask)
        return self.head(x)

    def step(
        self, encoding: Tensor, earlier: Tensor | None, past: list[Past | None]
    ) -> tuple[Tensor, list[Past | None]]:
        """Parameters ``[*B, 1, d_out]`` of the next agent, and the past of the one after it.

        Args:
            encoding: of this agent, ``[*B, 1, width]``.
            earlier: the row ``[*B, 1, d_action]`` of the agent before it; None for the first agent.
            past: what the last call gave; ``[None] * n_blocks`` for the first agent.
        """
        flag = encoding.new_full((*encoding.shape[:-1], 1), float(earlier is None))
        if earlier is None:
            d_action = self.embedding.in_features - 1
            earlier = encoding.new_zeros((*encoding.shape[:-1], d_action))
        x, after = self._tokens(earlier, flag), []
        for block, before in zip(self.blocks, past, strict=True):
            x, kept = block(x, encoding, before)
            after.append(kept)
        return self.head(x), after

    def _tokens(self, earlier: Tensor, first: Tensor) -> Tensor:
        embedded = self.embedding(torch.cat([earlier, first], -1))
        return self.norm(nn.functional.gelu(embedded))
