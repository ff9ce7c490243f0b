"""Parts that bring observations, states and actions into the shape a critic takes, without parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marl_td.losses.functional.action_values import one_hot_action


class JointInput(nn.Module):
    """Flattens and concatenates entries behind the batch dimensions: ``[*B, n_agents, d]`` to ``[*B, D]``.

    Args:
        n_dims: number of trailing dimensions of each entry that are flattened.
    """

    def __init__(self, n_dims: list[int]) -> None:
        super().__init__()
        self.n_dims = n_dims

    def forward(self, *entries: Tensor) -> Tensor:
        """Concatenation ``[*B, D]``."""
        flat = [e.flatten(-n) for e, n in zip(entries, self.n_dims, strict=True)]
        return torch.cat([entry.float() for entry in flat], dim=-1)


class AgentInput(nn.Module):
    """Gives each agent the joint input, its own observation and a one-hot index.

    ``[*B, D]`` and ``[*B, n_agents, d_obs]`` become ``[*B, n_agents, D + d_obs + n_agents]``.

    Args:
        n_agents: agents in the group.
        own_observation: append the agent's own observation.
        agent_id: append the one-hot index.
        mortal: the last entry is the alive mask ``[*B, n_agents]``; of a dead agent's input only the index is
            left, all else is zero (death masking of MAPPO, https://arxiv.org/abs/2103.01955, section 5).
    """

    identity: Tensor

    def __init__(
        self, n_agents: int, own_observation: bool, agent_id: bool, mortal: bool = False
    ) -> None:
        super().__init__()
        self.own_observation = own_observation
        self.agent_id = agent_id
        self.mortal = mortal
        self.register_buffer("identity", torch.eye(n_agents), persistent=False)

    def forward(self, joint: Tensor, *entries: Tensor) -> Tensor:
        """Per-agent input."""
        n_agents = self.identity.shape[0]
        batch = joint.shape[:-1]
        own = entries[:-1] if self.mortal else entries
        parts = [joint.unsqueeze(-2).expand(*batch, n_agents, joint.shape[-1])]
        if self.own_observation:
            parts += [entry.flatten(len(batch) + 1).float() for entry in own]
        if self.mortal:
            alive = entries[-1].unsqueeze(-1)
            parts = [torch.where(alive, part, 0.0) for part in parts]
        if self.agent_id:
            parts.append(self.identity.expand(*batch, -1, -1))
        return torch.cat(parts, dim=-1)


class AgentContext(nn.Module):
    """What an agent is told besides its observation: its last action and its index, as one-hot rows.

    Args:
        n_agents: agents in the group.
        n_actions: actions of each agent, to tell the last one; 0 not to.
        agent_id: tell the index.
        n_dims: dimensions of the entry from the agents' on: 1 for a last action.
    """

    identity: Tensor

    def __init__(self, n_agents: int, n_actions: int, agent_id: bool, n_dims: int = 1) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.agent_id = agent_id
        self.n_dims = n_dims
        self.register_buffer("identity", torch.eye(n_agents), persistent=False)

    @property
    def width(self) -> int:
        """Width of a row."""
        return self.n_actions + (self.identity.shape[0] if self.agent_id else 0)

    def forward(self, entry: Tensor) -> Tensor:
        """Rows ``[*B, n_agents, width]``.

        ``entry`` is the last action, int64 ``[*B, n_agents]`` and -1 for none; where it is not told any
        ``[*B, n_agents, ...]`` will do.
        """
        batch = entry.shape[: entry.ndim - self.n_dims]
        parts = [one_hot_action(entry, self.n_actions)] if self.n_actions else []
        if self.agent_id:
            parts.append(self.identity.expand(*batch, -1, -1))
        return torch.cat(parts, dim=-1)


class FirstRow(nn.Module):
    """Appends what is the same for every agent: ``[*B, D]`` and ``[*B, n_agents, d]`` to ``[*B, D + d]``."""

    def forward(self, joint: Tensor, rows: Tensor) -> Tensor:
        """Concatenation of ``joint`` and the first of ``rows``."""
        return torch.cat([joint, rows[..., 0, :]], dim=-1)


class ExpandToAgents(nn.Module):
    """Copies a team value ``[*B, 1]`` to every agent, ``[*B, n_agents, 1]``."""

    def __init__(self, n_agents: int) -> None:
        super().__init__()
        self.n_agents = n_agents

    def forward(self, value: Tensor) -> Tensor:
        """Expanded value."""
        return value.unsqueeze(-2).expand(*value.shape[:-1], self.n_agents, value.shape[-1])


class RepeatAgents(nn.Module):
    """Repeats the agents of each entry as a whole: ``[*B, n_agents, ...]`` to ``[*B, n * n_agents, ...]``.

    Args:
        n: how often, at least 1.
        n_dims: dimensions of each entry from the agents' on.
    """

    def __init__(self, n: int, n_dims: Sequence[int]) -> None:
        super().__init__()
        self.n = n
        self.n_dims = list(n_dims)

    def forward(self, *entries: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The entries, or the one."""
        out = []
        for entry, n_dims in zip(entries, self.n_dims, strict=True):
            at = entry.ndim - n_dims
            shape = (*entry.shape[:at], self.n, *entry.shape[at:])
            out.append(entry.unsqueeze(at).expand(shape).flatten(at, at + 1))
        return out[0] if len(out) == 1 else tuple(out)
