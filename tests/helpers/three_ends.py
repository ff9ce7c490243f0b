"""An environment whose agents end one by one, each in its own way, and losses whose values are known."""

import gymnasium.spaces as spaces
import numpy as np
import torch
from pettingzoo import ParallelEnv
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.envs import PettingZooWrapper

from marl_td.tasks.adapters import from_pettingzoo

GROUP = "agents"
AGENTS = ["a_0", "a_1", "a_2"]
LIVES = (2, 3, 5)
"""Steps in which each agent acts. Then the first is cut off, the second dies, the third reaches a limit."""


class ThreeEnds(ParallelEnv):
    """Three agents that see (1, steps so far, own number), choose between two actions and earn 1 a step."""

    metadata = {"name": "three_ends", "is_parallelizable": True}  # noqa: RUF012

    def __init__(self):
        self.possible_agents = list(AGENTS)
        self.agents = []

    def observation_space(self, agent):
        return self.spaces[agent]

    spaces = {agent: spaces.Box(-9, 9, (3,), np.float32) for agent in AGENTS}  # noqa: RUF012
    actions = {agent: spaces.Discrete(2) for agent in AGENTS}  # noqa: RUF012

    def action_space(self, agent):
        return self.actions[agent]

    def reset(self, seed=None, options=None):
        self.agents, self.steps = list(AGENTS), 0
        return self.observe(), {agent: {} for agent in self.agents}

    def observe(self):
        seen = {agent: (1, self.steps, AGENTS.index(agent)) for agent in self.agents}
        return {agent: np.array(value, np.float32) for agent, value in seen.items()}

    def step(self, actions):
        acted, self.steps = self.agents, self.steps + 1
        over = [agent for agent in acted if LIVES[AGENTS.index(agent)] == self.steps]
        seen = self.observe()
        self.agents = [agent for agent in acted if agent not in over]
        terminations = {agent: agent in over and agent == "a_1" for agent in acted}
        truncations = {agent: agent in over and agent != "a_1" for agent in acted}
        rewards = dict.fromkeys(acted, 1.0)
        return seen, rewards, terminations, truncations, {agent: {} for agent in acted}


def episode(source="ours"):
    """One episode ``[1, 5]``: who is in the game takes action 0, who has left action 1.

    Args:
        source: whose environment, ours or TorchRL's (``"theirs"``).
    """
    if source == "ours":
        env = from_pettingzoo(ThreeEnds(), groups="all")
    else:
        env = PettingZooWrapper(
            ThreeEnds(), group_map={GROUP: AGENTS}, use_mask=True, done_on_any=False
        )

    def act(td):
        td[GROUP, "action"] = (~td[GROUP, "mask"]).long()
        return td

    batch = env.rollout(9, act)
    batch = batch if source == "ours" else batch.unsqueeze(0)
    n_steps = max(LIVES)
    assert batch.shape == (1, n_steps)
    # What those that have left see differs; here nobody could take it for something in the game.
    gone = ~batch[GROUP, "mask"]
    batch[GROUP, "observation"][gone] = 0
    batch["next", GROUP, "observation"][:, :-1][gone[:, 1:] & gone[:, :-1]] = 0
    return batch


def of_lives(values):
    """``[1, 5, 3]`` or ``[1, 5, 3, 1]`` as a list of each agent's numbers while it acted."""
    values = values.reshape(max(LIVES), len(LIVES))
    return [values[:n, i].tolist() for i, n in enumerate(LIVES)]


class Fixed(nn.Module):
    """Given values of an agent in the game, 99 of one that sees nothing any more."""

    def __init__(self, *values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, observation, *others):
        here = observation[..., :1] > 0
        return torch.where(here, self.values, torch.full_like(self.values, 99.0))


def fixed(name, *values, reads=("observation",), root=()):
    """A network that writes :class:`Fixed` at ``name`` of the group."""
    keys = [*((GROUP, key) for key in reads), *root]
    return TensorDictModule(Fixed(*values), keys, [(GROUP, name)])


def log_probs(batch: TensorDict) -> TensorDict:
    """``batch`` with log-probabilities of a fair coin."""
    shape = batch[GROUP, "action"].shape
    batch[GROUP, "log_prob"] = torch.full(shape, 0.5).log()
    return batch
