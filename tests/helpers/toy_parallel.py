"""A PettingZoo environment whose ends, masks and numbers are set by the test."""

import gymnasium.spaces as spaces
import numpy as np
import torch
from pettingzoo import ParallelEnv
from tensordict import TensorDict


class Toy(ParallelEnv):
    """Cats (discrete, 3 actions, observation [2]) and a mouse (continuous, observation [3]).

    Observations are drawn from the environment's own stream; an agent's reward is its action's sum
    plus ten times the number of steps.

    Args:
        ends: `{agent: (step, "terminated" | "truncated" | "both")}`; others are truncated at
            `limit`.
        mask: where the cats' action mask is, `"observation"`, `"info"` or None; action
            `step % 3` is unavailable.
        state: whether there is a global state.
        start: first number of the cats' Discrete space.
    """

    metadata = {"name": "toy", "is_parallelizable": True}  # noqa: RUF012

    def __init__(self, ends=None, limit=4, mask=None, state=False, start=0):
        self.possible_agents = ["cat_0", "cat_1", "mouse_0"]
        self.agents = []
        self.ends = dict.fromkeys(self.possible_agents, (limit, "truncated")) | (ends or {})
        self.mask = mask
        self.has_state = state
        self.render_mode = None
        self.generator = np.random.default_rng()
        self.seeds = []
        self.received = []
        cat = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)
        if mask == "observation":
            both = {"observation": cat, "action_mask": spaces.Box(0, 1, (3,), dtype=np.int8)}
            cat = spaces.Dict(both)
        mouse = spaces.Box(-np.inf, np.inf, (3,), dtype=np.float32)
        self.seen = {"cat_0": cat, "cat_1": cat, "mouse_0": mouse}
        box = spaces.Box(np.float32(-1), np.float32(2), (2,))
        cats = spaces.Discrete(3, start=start)
        self.acts = {"cat_0": cats, "cat_1": cats, "mouse_0": box}

    def observation_space(self, agent):
        return self.seen[agent]

    def action_space(self, agent):
        return self.acts[agent]

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.count = 0
        self.agents = self.possible_agents[:]
        return self.observe(self.agents), self.infos(self.agents)

    def step(self, actions):
        self.received.append(dict(actions))
        self.count += 1
        acted = self.agents
        over = {a: kind for a, (step, kind) in self.ends.items() if step <= self.count}
        rewards = {a: float(np.sum(actions[a])) + 10 * self.count for a in acted}
        terminations = {a: over.get(a) in ("terminated", "both") for a in acted}
        truncations = {a: over.get(a) in ("truncated", "both") for a in acted}
        self.agents = [a for a in acted if a not in over]
        return self.observe(acted), rewards, terminations, truncations, self.infos(acted)

    def observe(self, agents):
        out = {}
        for agent in self.possible_agents:
            space = self.seen[agent]
            shape = (2,) if agent.startswith("cat") else space.shape
            value = self.generator.normal(size=shape).astype(np.float32)
            if isinstance(space, spaces.Dict):
                value = {"observation": value, "action_mask": self.legal()}
            out[agent] = value
        return {agent: out[agent] for agent in agents}

    def infos(self, agents):
        infos = {agent: {"cost": float(i)} for i, agent in enumerate(agents)}
        if self.mask == "info":
            for agent in agents:
                if agent.startswith("cat"):
                    infos[agent]["action_mask"] = self.legal()
        return infos

    def legal(self):
        return (np.arange(3) != self.count % 3).astype(np.int8)

    def state(self):
        if not self.has_state:
            return super().state()
        return np.full((2, 2), self.count, dtype=np.float64)

    def render(self):
        return None if self.render_mode is None else np.full((4, 4, 3), 7, dtype=np.uint8)


def act(env, cat=1, mouse=0.5):
    """The same action for all cats, and for both elements of the mouse's."""
    n = env.n_envs
    cats = TensorDict({"action": torch.full((n, 2), cat)}, [n, 2])
    mice = TensorDict({"action": torch.full((n, 1, 2), mouse)}, [n, 1])
    return TensorDict({"cat": cats, "mouse": mice}, [n])


def play(env, steps):
    """The next tensordicts of so many steps from a reset, without automatic resets."""
    td, out = env.reset(), []
    for _ in range(steps):
        td = env.step(td.update(act(env)))["next"].clone()
        out.append(td)
    return out
