"""``simple_tag`` by rule: chase the nearest good agent, flee from the nearest adversary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.particle.simple_tag import ADVERSARY, GOOD, TagParams
from marl_td.tasks.particle.steering import full_push, nearest, push_to_action

LOOK_AHEAD = 0.3
"""Seconds for which a chaser reckons with what it chases going on as it does."""
BORDER = 0.8
"""Good agents turn back where they are farther out along an axis."""


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
        """Push ``[n_envs, n_good, 2]`` away from the nearest adversary, and back at the border."""
        place = observation[..., 2:4]
        others = self._others(observation)[..., : self.params.n_adversaries, :]
        away = -full_push(nearest(others))
        return torch.where(place.abs() > BORDER, -place.sign(), away)

    def _others(self, observation: Tensor) -> Tensor:
        """All other agents as seen by each, ``[*B, n - 1, 2]``, adversaries first."""
        first = 4 + 2 * self.params.n_obstacles
        n_others = self.params.n_adversaries + self.params.n_good - 1
        return observation[..., first : first + 2 * n_others].unflatten(-1, (n_others, 2))
