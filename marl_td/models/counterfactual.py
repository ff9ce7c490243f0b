"""What COMA's critic reads: everything but the agent's own action."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_td.losses.functional.action_values import one_hot_action


class CounterfactualInput(nn.Module):
    """One row per agent: the central input, own observation, own index, and what all *others* do.

    Args:
        n_agents: agents in the group.
        n_actions: actions of each agent.
        other_actions: number of actions of the agents of each other group.
        last_action: append what everybody in the group did in the step before.
        mortal: the alive mask is given; what a dead agent does counts as nothing.
        other_mortal: whether that of each other group is given; None for none of them.
        n_observations: number of entries of the agents' own observation.
    """

    identity: Tensor

    def __init__(
        self,
        n_agents: int,
        n_actions: int,
        *,
        other_actions: list[int],
        last_action: bool = False,
        mortal: bool = False,
        other_mortal: list[bool] | None = None,
        n_observations: int = 1,
    ) -> None:
        super().__init__()
        self.other_mortal = other_mortal or [False] * len(other_actions)
        self.n_actions = n_actions
        self.other_actions = other_actions
        self.last_action = last_action
        self.mortal = mortal
        self.n_observations = n_observations
        self.register_buffer("identity", torch.eye(n_agents), persistent=False)

    def forward(self, joint: Tensor, action: Tensor, *entries: Tensor) -> Tensor:
        """Rows ``[*B, n_agents, d]``.

        Args:
            joint: central input ``[*B, D]``.
            action: int64 ``[*B, n_agents]``.
            entries: own observations ``[*B, n_agents, ...]``; of each other group the actions ``[*B, m]``,
                each followed by the alive mask ``[*B, m]``; last actions ``[*B, n_agents]``; alive mask
                ``[*B, n_agents]``.
        """
        n_agents, batch = self.identity.shape[0], joint.shape[:-1]
        given = list(entries)
        alive = given.pop() if self.mortal else None
        last = given.pop() if self.last_action else None
        own, others = given[: self.n_observations], iter(given[self.n_observations :])
        taken = action_of_living(action, self.n_actions, alive)
        # Row i: the actions of all but agent i.
        rest = taken.unsqueeze(-3) * (1.0 - self.identity).unsqueeze(-1)
        shared = [joint]
        for width, mortal in zip(self.other_actions, self.other_mortal, strict=True):
            rivals, living = next(others), next(others) if mortal else None
            shared.append(action_of_living(rivals, width, living).flatten(-2))
        if last is not None:
            shared.append(one_hot_action(last, self.n_actions).flatten(-2))
        return torch.cat(
            [
                torch.cat(shared, -1).unsqueeze(-2).expand(*batch, n_agents, -1),
                *(entry.flatten(len(batch) + 1).float() for entry in own),
                rest.flatten(-2),
                self.identity.expand(*batch, -1, -1),
            ],
            dim=-1,
        )


def action_of_living(action: Tensor, n_actions: int, alive: Tensor | None) -> Tensor:
    """Actions ``[*B, m]`` one-hot, ``[*B, m, n_actions]``; zeros for those who are not ``alive``."""
    taken = one_hot_action(action, n_actions)
    return taken if alive is None else torch.where(alive.unsqueeze(-1), taken, 0.0)
