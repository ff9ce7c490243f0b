"""Beliefs about the policies of others: from what an agent saw them do to a latent of each, and back.

Entries of a group that they read and write:

* ``past_observation`` ``[*B, n_agents, H, d_obs]``, ``past_seen`` ``[*B, n_agents, H, n_all]`` and the root's
  ``joint_history`` ``[*B, H, n_all, ...]``: see :mod:`marl_td.collect.history`;
* ``belief_mean``, ``belief_std`` ``[*B, n_agents, n_all, d_belief]``: what each agent believes of each;
* ``context`` ``[*B, n_agents, 2 d_belief]``: what the agent's policy is told of it.

``n_all`` are the agents of all groups.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from marl_td.losses.functional.action_values import one_hot_action
from marl_td.models.grouped import GroupedLinear
from marl_td.models.mixers.base import check_sizes

STD_FLOOR = 0.05
ONE = math.log(math.expm1(1.0 - STD_FLOOR))
"""What softplus makes 1 - STD_FLOOR of."""
activation = nn.functional.leaky_relu


class ActionsSeen(nn.Module):
    """Actions of others as rows of numbers: one-hot, or continuous as they are.

    Args:
        n_actions: largest number of discrete actions; 0 for continuous ones.
    """

    def __init__(self, n_actions: int) -> None:
        super().__init__()
        self.n_actions = n_actions

    def forward(self, action: Tensor) -> Tensor:
        """Rows ``[*B, d]`` of actions ``[*B]``, or ``[*B, d]``."""
        return one_hot_action(action, self.n_actions) if self.n_actions else action


class BeliefEncoder(nn.Module):
    """q(z_j | the last H pairs of own observation and j's action), independent normal distributions.

    A pair is embedded by itself, with its age; embeddings of the pairs that were seen are added up, as
    evidence is. Where nothing was seen the belief is the prior, a standard normal distribution.

    Args:
        n_groups: 1 for one network for all agents, or the number of agents for one each.
        d_obs: width of an observation.
        d_action: width of an action as a row.
        d_belief: width of a latent.
        length: H.
        d_hidden: width of the hidden layers.
        n_actions: as for :class:`ActionsSeen`.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self,
        n_groups: int,
        d_obs: int,
        d_action: int,
        d_belief: int,
        length: int,
        *,
        d_hidden: int = 32,
        n_actions: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(d_obs=d_obs, d_action=d_action, d_belief=d_belief)
        check_sizes(length=length, d_hidden=d_hidden)
        self.rows = ActionsSeen(n_actions)
        # The layer over a pair is a sum of what it makes of either part.
        self.of_observation = GroupedLinear(n_groups, d_obs, d_hidden)
        self.of_action = GroupedLinear(n_groups, d_action, d_hidden)
        self.of_age = nn.Parameter(torch.zeros(length, 1, 1, d_hidden))
        self.hidden = GroupedLinear(n_groups, d_hidden, d_hidden)
        self.out = GroupedLinear(n_groups, d_hidden, 2 * d_belief)

    def forward(
        self, joint_history: Tensor, past_observation: Tensor, past_seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means and standard deviations ``[*B, n_agents, n_all, d_belief]``."""
        # Everything is [*B, H, n_all, n_agents, d] here: the rows of grouped layers are the agents.
        n_agents, length = past_observation.shape[-3:-1]
        observed = self.of_observation(past_observation.transpose(-3, -2)).unsqueeze(-3)
        rows = self.rows(joint_history).unsqueeze(-2)
        if self.of_action.weight.shape[0] > 1:
            rows = rows.expand(*rows.shape[:-2], n_agents, -1)
        pair = activation(observed + self.of_action(rows) + self.of_age)
        seen = past_seen.movedim(-3, -1).unsqueeze(-1)
        evidence = torch.where(seen, pair, 0.0).sum(-4) / length**0.5
        mean, raw = self.out(activation(self.hidden(evidence))).chunk(2, dim=-1)
        std = STD_FLOOR + nn.functional.softplus(raw + ONE)
        known = seen.any(-4)
        mean, std = torch.where(known, mean, 0.0), torch.where(known, std, 1.0)
        return mean.transpose(-3, -2), std.transpose(-3, -2)


class BeliefDecoder(nn.Module):
    """p(u_j | o_i, z_j): parameters of what agent i expects j to do, from its observation and a latent of j.

    Args:
        n_groups: as for :class:`BeliefEncoder`.
        d_obs: width of an observation.
        d_belief: width of a latent.
        d_out: number of parameters of a distribution.
        d_hidden: width of the hidden layers.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self, n_groups: int, d_obs: int, d_belief: int, d_out: int, *, d_hidden: int = 32
    ) -> None:
        super().__init__()
        check_sizes(d_obs=d_obs, d_belief=d_belief, d_out=d_out, d_hidden=d_hidden)
        self.of_observation = GroupedLinear(n_groups, d_obs, d_hidden)
        self.of_belief = GroupedLinear(n_groups, d_belief, d_hidden)
        self.hidden = GroupedLinear(n_groups, d_hidden, d_hidden)
        self.out = GroupedLinear(n_groups, d_hidden, d_out)

    def forward(self, observation: Tensor, belief: Tensor) -> Tensor:
        """Parameters ``[*B, n_agents, n_all, d_out]``.

        Args:
            observation: ``[*B, n_agents, d_obs]``.
            belief: a latent of each, ``[*B, n_agents, n_all, d_belief]``.
        """
        observed = self.of_observation(observation).unsqueeze(-3)
        believed = self.of_belief(belief.transpose(-3, -2))
        hidden = activation(self.hidden(activation(observed + believed)))
        return self.out(hidden).transpose(-3, -2)


class BeliefContext(nn.Module):
    """One row of what an agent believes of all others: their mean, or weighted by attention.

    No gradient flows into the beliefs.

    Args:
        n_groups: as for :class:`BeliefEncoder`.
        d_obs: width of an observation.
        d_belief: width of a latent.
        others: who is another agent, bool ``[n_agents, n_all]``.
        attention: weigh the others; otherwise all count the same.
        d_key: width of queries and keys.
    """

    others: Tensor

    def __init__(
        self,
        n_groups: int,
        d_obs: int,
        d_belief: int,
        others: Tensor,
        *,
        attention: bool = True,
        d_key: int = 16,
    ) -> None:
        super().__init__()
        self.width = 2 * d_belief
        self.query = GroupedLinear(n_groups, d_obs, d_key) if attention else None
        self.key = GroupedLinear(n_groups, self.width, d_key) if attention else None
        self.register_buffer("others", others.clone(), persistent=False)

    def forward(self, observation: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Context ``[*B, n_agents, 2 d_belief]``: of means and standard deviations minus 1; 0 if alone."""
        belief = torch.cat([mean, std - 1.0], -1).detach()
        if self.query is None or self.key is None:
            score = torch.zeros_like(belief[..., 0])
        else:
            query = self.query(observation).unsqueeze(-3)
            key = self.key(belief.transpose(-3, -2))
            score = (query * key).sum(-1).transpose(-2, -1) / key.shape[-1] ** 0.5
        lowest = torch.finfo(score.dtype).min
        weight = torch.where(self.others, score, lowest).softmax(-1)
        weight = torch.where(self.others, weight, 0.0)
        return (weight.unsqueeze(-1) * belief).sum(-2)
