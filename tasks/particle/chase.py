"""``simple_tag`` by rule: chase the nearest good agent, flee to where there is most room."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.particle.simple_tag import ADVERSARY, GOOD, TagParams, outside_penalty
from marl_td.tasks.particle.steering import full_push, nearest, push_to_action

LOOK_AHEAD = 0.3
"""Seconds for which a chaser reckons with what it chases going on as it does."""
REACH, COAST = 0.6, 0.3
"""Where a good agent sees itself for each of its moves: so far along it, after so many seconds as now."""
PRICE = 0.3
"""Room that a good agent gives up per unit of what being outside costs."""


@dataclass
class ChaseAndFlee:
    """Both teams, every agent by what it observes itself."""

    params: TagParams
    continuous: bool

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write both groups' actions."""
        for group, act in ((ADVERSARY, self.chase), (GOOD, self.flee)):
            push = act(tensordict.get((group, "observation")))
            tensordict.set((group, "action"), push_to_action(push, self.continuous))
        return tensordict

    def chase(self, observation: Tensor) -> Tensor:
        """Push ``[n_envs, n_adversaries, 2]`` towards where the nearest good agent will be."""
        velocity, n_good = observation[..., :2], self.params.n_good
        others = self._others(observation)[..., self.params.n_adversaries - 1 :, :]
        theirs = observation[..., -2 * n_good :].unflatten(-1, (n_good, 2))
        way = others + LOOK_AHEAD * (theirs - velocity.unsqueeze(-2))
        return full_push(nearest(way))

    def flee(self, observation: Tensor) -> Tensor:
        """Push ``[n_envs, n_good, 2]``, of nine the one that ends farthest from the nearest adversary.

        What it costs to be outside there counts against it.
        """
        velocity, place = observation[..., None, :2], observation[..., None, 2:4]
        others = self._others(observation)[..., : self.params.n_adversaries, :]
        moves = _moves(observation)
        way = REACH * moves + COAST * velocity  # [*B, 9, 2]
        room = (others.unsqueeze(-3) - way.unsqueeze(-2)).square().sum(-1).amin(-1).sqrt()
        cost = outside_penalty(place + way).sum(-1)
        return moves[(room - PRICE * cost).argmax(-1)]

    def _others(self, observation: Tensor) -> Tensor:
        """All other agents as seen by each, ``[*B, n - 1, 2]``, adversaries first."""
        first = 4 + 2 * self.params.n_obstacles
        n_others = self.params.n_adversaries + self.params.n_good - 1
        return observation[..., first : first + 2 * n_others].unflatten(-1, (n_others, 2))


def _moves(like: Tensor) -> Tensor:
    """Eight directions and staying, ``[9, 2]``."""
    axis = torch.tensor([-1.0, 0.0, 1.0], device=like.device, dtype=like.dtype)
    moves = torch.cartesian_prod(axis, axis)
    return moves / moves.norm(dim=-1, keepdim=True).clamp_min(1.0)
