"""A PettingZoo environment of which agents see small pictures and a vector, or pictures alone."""

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Pictures(ParallelEnv):
    """Two agents; what they do does not matter."""

    metadata = {"name": "pictures"}  # noqa: RUF012

    def __init__(self):
        self.possible_agents = ["left", "right"]
        self.agents = []
        self.space = spaces.Box(0, 255, (9, 8, 3), dtype=np.uint8)

    def observation_space(self, agent):
        return self.space

    def action_space(self, agent):
        return spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents = self.possible_agents[:]
        return {agent: self.space.sample() for agent in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        seen = {agent: self.space.sample() for agent in actions}
        late, zero = dict.fromkeys(actions, True), dict.fromkeys(actions, 0.0)
        self.agents = []
        return seen, zero, dict.fromkeys(actions, False), late, {a: {} for a in actions}
