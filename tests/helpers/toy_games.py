"""Games of a few steps whose random and best returns are known in closed form, as BenchMARL tasks."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from marl_td.benchmarl_tasks import FunctionTask
from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, Noise, Step, Task, TaskParams
from marl_td.tasks.recall import Recall, RecallParams, RecallState
from marl_td.tasks.vector_env import VectorEnv


class GameState(NamedTuple):
    """What the episode is about, ``[n_envs, ...]``, and the number of steps taken."""

    cue: Tensor
    step: Tensor


class Rounds(Task[TaskParams, GameState]):
    """Two agents that see nothing: agent i is to begin with action i, and then to go one action on.

    Reward 1 for each right one of the 4 steps. Without memory and exploration an agent that is told nothing
    always does the same, and both do: at most 1 for one of them, so 0.5; told its index, at most 1; told
    its last action only, at most 3.5; told both, 4.
    """

    name = "rounds"
    Params: ClassVar[type[TaskParams]] = TaskParams
    has_continuous_actions = False

    @property
    def groups(self) -> dict[str, GroupSpec]:
        return {"agents": GroupSpec(2, 1, Discrete(3))}

    def reset(self, n_envs: int, noise: Noise) -> GameState:
        wanted = torch.arange(2, device=self.device).expand(n_envs, 2)
        return GameState(wanted, torch.zeros(n_envs, dtype=torch.long, device=self.device))

    def step(self, state: GameState, action: Groups, noise: Noise) -> Step[GameState]:
        right = (action["agents"] == state.cue).float()
        following = GameState((action["agents"] + 1) % 3, state.step + 1)
        return Step(following, {"agents": right}, following.step == self.params.max_steps, {})

    def observe(self, state: GameState) -> Groups:
        return {"agents": torch.zeros_like(state.cue, dtype=torch.float32).unsqueeze(-1)}


class Meet(Task[TaskParams, GameState]):
    """Two agents see a number c_i in [-1, 1] each and choose u_i in [-1, 1].

    Reward ``-(u_1 + u_2 - c_1 - c_2)^2 / 2``: best 0; choosing 0 gives ``-E(c_1 + c_2)^2 / 2 = -1/3``;
    uniformly random choices twice that, -2/3.
    """

    name = "meet"
    Params: ClassVar[type[TaskParams]] = TaskParams
    has_discrete_actions = False

    @property
    def groups(self) -> dict[str, GroupSpec]:
        return {"agents": GroupSpec(2, 1, Box((-1.0,), (1.0,)))}

    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        return {"cue": torch.rand((n_envs, 2), generator=generator, device=self.device)}

    def reset(self, n_envs: int, noise: Noise) -> GameState:
        step = torch.zeros(n_envs, dtype=torch.long, device=self.device)
        return GameState(2.0 * noise["cue"] - 1.0, step)

    def step(self, state: GameState, action: Groups, noise: Noise) -> Step[GameState]:
        miss = action["agents"].sum((-2, -1)) - state.cue.sum(-1)
        reward = (-0.5 * miss.square()).unsqueeze(-1).expand(-1, 2)
        done = torch.ones_like(state.step, dtype=torch.bool)
        return Step(GameState(state.cue, state.step + 1), {"agents": reward}, done, {})

    def observe(self, state: GameState) -> Groups:
        return {"agents": state.cue.unsqueeze(-1)}


class Broken(Meet):
    """The same game with a sensor that fails: agent 1 of environment 2 sees NaN."""

    name = "broken"

    def observe(self, state: GameState) -> Groups:
        seen = state.cue.clone()
        seen[2, 1] = float("nan")
        return {"agents": seen.unsqueeze(-1)}


class BrokenRecall(Recall):
    """The memory game with a sensor that fails: agent 1 of environment 2 sees NaN."""

    name = "broken_recall"

    def observe(self, state: RecallState) -> Groups:
        seen = super().observe(state)["agents"].clone()
        seen[2, 1, 0] = float("nan")
        return {"agents": seen}


PAIR = RecallParams(n_agents=2, delay=2, bonus=0.0)
"""The memory game of two agents that are paid for their own answers in step 4."""


def _recall(n_envs: int, continuous: bool, seed: int | None, device: object) -> VectorEnv:
    return VectorEnv(Recall(PAIR, continuous, device), n_envs, seed)  # type: ignore[arg-type]


def _rounds(n_envs: int, continuous: bool, seed: int | None, device: object) -> VectorEnv:
    return VectorEnv(Rounds(TaskParams(max_steps=4), continuous, device), n_envs, seed)  # type: ignore[arg-type]


def _meet(n_envs: int, continuous: bool, seed: int | None, device: object) -> VectorEnv:
    return VectorEnv(Meet(TaskParams(), continuous, device), n_envs, seed)  # type: ignore[arg-type]


def _broken(n_envs: int, continuous: bool, seed: int | None, device: object) -> VectorEnv:
    game = Broken(TaskParams(), True, device) if continuous else BrokenRecall(PAIR, False, device)  # type: ignore[arg-type]
    return VectorEnv(game, n_envs, seed)


RECALL_RUN = {
    "max_n_iters": 8,
    "lr": 1e-2,
    "gamma": 0.99,
    "exploration_eps_init": 1.0,
    "exploration_eps_end": 0.2,
    "polyak_tau": 0.1,
    "evaluation_episodes": 200,
    "off_policy_n_envs_per_worker": 64,
    "off_policy_collected_frames_per_batch": 4 * 64,
    "off_policy_n_optimizer_steps": 15,
    "off_policy_train_batch_size": 4 * 64,
    "off_policy_memory_size": 4 * 1000,
}
"""Settings with which value-based agents learn :func:`recall_task` in seconds."""


def recall_task() -> FunctionTask:
    """The memory game of two agents; 1 with memory, 0.5 without."""
    return FunctionTask("recall", _recall, max_steps=4, continuous=False, discrete=True)


def rounds_task() -> FunctionTask:
    """The game in which agents must know who they are and what they did."""
    return FunctionTask("rounds", _rounds, max_steps=4, continuous=False, discrete=True)


def meet_task() -> FunctionTask:
    """The meeting of two numbers."""
    return FunctionTask("meet", _meet, max_steps=1)


def broken_task() -> FunctionTask:
    """The games with the broken sensor."""
    return FunctionTask("broken", _broken, max_steps=4, discrete=True)
