"""The classical answer to ``simple_spread``: give every agent its own landmark and drive there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.particle.steering import arrive, chosen, push_to_action

MAX_EXACT = 4
"""Largest number of agents for which all assignments are compared (24 of them)."""
ELBOW_ROOM = 0.31
"""Distance that the goals of two agents keep: just more than what makes a collision."""


@dataclass
class Assignment:
    """Assign landmarks to agents by total distance, keep the goals apart, and drive there.

    It reads the observations of all agents, as one who directs the team. Up to 4 agents the
    assignment is the best one, beyond that the nearest free pair is matched again and again. Goals
    closer than a collision are moved apart. The controller brings an agent to its goal in two
    steps wherever the force suffices.
    """

    n_agents: int
    continuous: bool

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")`` for ``("agents", "observation")``."""
        action = self.act(tensordict.get(("agents", "observation")))
        return tensordict.set(("agents", "action"), action)

    def act(self, observation: Tensor) -> Tensor:
        """Action of every agent for ``observation`` ``[n_envs, n_agents, d_obs]``."""
        velocity, position = observation[..., :2], observation[..., 2:4]
        seen = observation[..., 4 : 4 + 2 * self.n_agents].unflatten(-1, (self.n_agents, 2))
        goal = position + chosen(seen, match(seen.square().sum(-1).sqrt()))
        push = arrive(keep_apart(goal) - position, velocity)
        return push_to_action(push, self.continuous)


def match(distance: Tensor) -> Tensor:
    """A landmark for every agent, ``[n_envs, n]``, no two the same, by ``distance`` ``[n_envs, n, n]``."""
    n = distance.shape[-1]
    if n > MAX_EXACT:
        return _match_nearest(distance)
    every = torch.tensor(list(itertools.permutations(range(n))), device=distance.device)
    total = distance[:, torch.arange(n, device=distance.device), every].sum(-1)
    return every[total.argmin(-1)]


def _match_nearest(distance: Tensor) -> Tensor:
    n_envs, n, _ = distance.shape
    column = torch.arange(n, device=distance.device)
    taken = torch.zeros((n_envs, n), dtype=torch.long, device=distance.device)
    left = distance
    for _ in range(n):  # one pair per round, in all environments at once
        best = left.flatten(1).argmin(-1, keepdim=True)
        agent, landmark = best // n, best % n
        taken = torch.where(column == agent, landmark, taken)
        gone = (column == agent).unsqueeze(-1) | (column == landmark).unsqueeze(-2)
        left = torch.where(gone, torch.inf, left)
    return taken


def keep_apart(goal: Tensor) -> Tensor:
    """``goal`` ``[n_envs, n, 2]``, each pair closer than a collision moved apart to its limit."""
    offset = goal.unsqueeze(2) - goal.unsqueeze(1)
    distance = offset.square().sum(-1, keepdim=True).sqrt()
    lacking = 0.5 * (ELBOW_ROOM - distance).clamp_min(0.0)
    return goal + (offset / distance.clamp_min(1e-6) * lacking).sum(2)
