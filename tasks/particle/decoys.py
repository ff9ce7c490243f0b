"""``simple_adversary`` by rule: good agents stand on all landmarks, the adversary goes where they crowd."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.particle.assignment import match
from marl_td.tasks.particle.simple_adversary import ADVERSARY, GOOD, AdversaryParams
from marl_td.tasks.particle.steering import arrive, chosen, push_to_action


@dataclass
class DecoysAndGuess:
    """Both teams.

    Every good agent gets a landmark of its own, by the shortest total distance, so that their places say
    nothing about the goal. The adversary goes to the landmark that has a good agent nearest to it. Agents
    do not observe their velocity; the rule that steers them reads it from the global state.
    """

    params: AdversaryParams
    continuous: bool

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write both groups' actions."""
        n = self.params.n_good
        sizes = [1, n]
        state = tensordict.get("state")[..., 2 * (1 + n) : 4 * (1 + n)]
        velocity = state.unflatten(-1, (1 + n, 2)).split(sizes, -2)
        goals = (self.guess(tensordict), self.cover(tensordict))
        for group, way, speed in zip((ADVERSARY, GOOD), goals, velocity, strict=True):
            action = push_to_action(arrive(way, speed), self.continuous)
            tensordict.set((group, "action"), action)
        return tensordict

    def cover(self, tensordict: TensorDictBase) -> Tensor:
        """Way of every good agent to its landmark, ``[n_envs, n_good, 2]``."""
        n = self.params.n_good
        seen = tensordict.get((GOOD, "observation"))[..., 2 : 2 + 2 * n].unflatten(-1, (n, 2))
        return chosen(seen, match(seen.square().sum(-1).sqrt()))

    def guess(self, tensordict: TensorDictBase) -> Tensor:
        """Way of the adversary, ``[n_envs, 1, 2]``."""
        seen = tensordict.get((ADVERSARY, "observation")).unflatten(-1, (2, -1, 2))
        landmark, agent = seen.unbind(-3)  # each [n_envs, 1, n_good, 2]
        apart = (landmark.unsqueeze(-2) - agent.unsqueeze(-3)).square().sum(-1)
        return chosen(landmark, apart.amin(-1).argmin(-1))
