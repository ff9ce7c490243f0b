"""``simple_speaker_listener`` by rule: name the goal, and go where one is told to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.order import one_hot
from marl_td.tasks.particle.simple_speaker_listener import N_LANDMARKS
from marl_td.tasks.particle.steering import arrive, push_to_action


@dataclass
class Guide:
    """The speaker says the goal's number, the listener goes to the landmark of the loudest word.

    Before the first word it goes to the middle of the landmarks, and if it is ``deaf`` it stays there: the
    place where the mean squared distance to a goal that one does not know is least.
    """

    continuous: bool
    deaf: bool = False

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write both groups' actions for what they observe."""
        goal = tensordict.get(("speaker", "observation")).argmax(-1)
        say = one_hot(goal, N_LANDMARKS) if self.continuous else goal
        tensordict.set(("speaker", "action"), say)
        return tensordict.set(("listener", "action"), self.follow(tensordict))

    def follow(self, tensordict: TensorDictBase) -> Tensor:
        """The listener's action."""
        seen = tensordict.get(("listener", "observation"))
        velocity, places, word = seen.split([2, 2 * N_LANDMARKS, N_LANDMARKS], -1)
        told = one_hot(word.argmax(-1), N_LANDMARKS)
        silent = (word == 0.0).all(-1, keepdim=True) | self.deaf
        weight = torch.where(silent, 1.0 / N_LANDMARKS, told).unsqueeze(-1)
        way = (places.unflatten(-1, (N_LANDMARKS, 2)) * weight).sum(-2)
        return push_to_action(arrive(way, velocity), self.continuous)
