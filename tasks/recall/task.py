"""A game of memory: a cue is shown once, and after a while it must be named.

Description:
    Every agent is shown its own cue in the first step, then nothing for ``delay`` steps, then a signal
    to answer. While it waits, what it sees is the same whatever the cue was, and no action has any
    effect before the answer. So the answer of an agent without memory does not depend on its cue:
    *every* policy without memory has the same expected return, :meth:`Recall.memoryless_return`.

Action space: discrete, the number of the cue; or continuous, ``Box(1)`` in [-1, 1], on which the cues
    lie at equal distances, the first at -1 and the last at 1. Actions before the answer do nothing.

Observation space (per agent, float32): own cue one-hot ``[n_cues]`` in the first step, zeros after it; 1
    when it is time to answer, else 0, ``[1]``.
Global state: all cues one-hot ``[n_agents * n_cues]``; the steps until the answer as a share of the longest
    wait ``[1]``. It does hold the cues: central critics and mixers see them, agents do not.
Reward: when the answer is given, ``(1 - bonus)`` times how right the own answer is plus ``bonus`` times the
    product of that over all agents; 0 before. Discrete answers are right (1) or wrong (0). A continuous
    one is right where the cue lies and less so towards the next cue, where it is 0 (linearly).
Start: cues uniform and independent; with ``extra_delay`` the waiting time is drawn, too.
End: terminates with the answer, in step ``delay`` + 2 (+ up to ``extra_delay``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import (
    Box,
    Discrete,
    Groups,
    GroupSpec,
    Noise,
    Optimum,
    Policy,
    Step,
    Task,
    TaskParams,
    require,
)
from marl_td.tasks.order import one_hot

GROUP = "agents"


@dataclass
class RecallParams(TaskParams):
    """Parameters of the memory game."""

    n_agents: int = 3
    """Number of agents (N), at least 1."""
    n_cues: int = 2
    """Number of cues, and of answers (K), at least 2."""
    delay: int = 2
    """Steps between the cue and the signal to answer, in which nothing is seen, at least 0."""
    extra_delay: int = 0
    """Up to so many more, drawn for every episode, at least 0: episodes then end at different times."""
    bonus: float = 0.5
    """Share of the reward that is paid only as far as everybody is right, in [0, 1]."""
    max_steps: int = 4
    """Time limit in steps; at least the longest episode, ``delay`` + ``extra_delay`` + 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("n_agents", 1), ("n_cues", 2), ("delay", 0), ("extra_delay", 0)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be at least {least}; got {value}.")
        require(0.0 <= self.bonus <= 1.0, f"bonus must be in [0, 1]; got {self.bonus}.")
        self.max_steps = max(self.max_steps, self.longest_wait + 1)

    @property
    def longest_wait(self) -> int:
        """Steps from the cue to the answer, at most."""
        return self.delay + self.extra_delay + 1


class RecallState(NamedTuple):
    """What the episode is about, and how far it is.

    ``cue`` ``[n_envs, n_agents]`` int64; ``answer_at`` ``[n_envs]`` int64, the step of the answer (0 is that
    of the cue); ``step`` ``[n_envs]`` int64; ``right`` ``[n_envs, n_agents]``, how right each answer was.
    """

    cue: Tensor
    answer_at: Tensor
    step: Tensor
    right: Tensor


class Recall(Task[RecallParams, RecallState]):
    """See the module's docstring."""

    name = "recall"
    Params: ClassVar[type[TaskParams]] = RecallParams
    info_keys: ClassVar[tuple[str, ...]] = ("right", "all_right")

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        n_cues = self.params.n_cues
        cues = Discrete(n_cues, tuple(f"cue {i}" for i in range(n_cues)))
        action = Box((-1.0,), (1.0,), ("cue",)) if self.continuous else cues
        return {GROUP: GroupSpec(self.params.n_agents, n_cues + 1, action)}

    @property
    def d_state(self) -> int:
        return self.params.n_agents * self.params.n_cues + 1

    @property
    def usual_episode(self) -> int:
        return self.params.delay + 2

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``cue`` ``[n_envs, n_agents]`` and ``extra`` ``[n_envs]``."""
        cue = torch.rand(n_envs, self.params.n_agents, generator=generator, device=self.device)
        return {"cue": cue, "extra": torch.rand(n_envs, generator=generator, device=self.device)}

    def reset(self, n_envs: int, noise: Noise) -> RecallState:
        extra = _whole(noise["extra"], self.params.extra_delay + 1)
        answer_at = extra + (self.params.delay + 1)
        cue = _whole(noise["cue"], self.params.n_cues)
        return RecallState(
            cue, answer_at, torch.zeros_like(answer_at), torch.zeros_like(noise["cue"])
        )

    def step(self, state: RecallState, action: Groups, noise: Noise) -> Step[RecallState]:
        answers = state.step >= state.answer_at
        given = answers.unsqueeze(-1)
        right = torch.where(given, self._rightness(action[GROUP], state.cue), 0.0)
        everybody = right.prod(-1)
        bonus = self.params.bonus
        reward = (1.0 - bonus) * right + bonus * everybody.unsqueeze(-1)
        info = {"right": right.mean(-1), "all_right": everybody}
        state = RecallState(state.cue, state.answer_at, state.step + 1, right)
        return Step(state, {GROUP: reward}, answers, info)

    def _rightness(self, answer: Tensor, cue: Tensor) -> Tensor:
        """How right each answer is, ``[n_envs, n_agents]`` in [0, 1].

        Over the cues it adds up to 1 for any answer, continuous ones too: none is a better guess.
        """
        if not self.continuous:
            return (answer == cue).to(torch.float32)
        # In units of the distance between neighbouring cues, so that cue k lies at k.
        place = (answer.squeeze(-1).clamp(-1.0, 1.0) + 1.0) * (0.5 * (self.params.n_cues - 1))
        return (1.0 - (place - cue).abs()).clamp(min=0.0)

    def observe(self, state: RecallState) -> Groups:
        shown = (state.step == 0).unsqueeze(-1).unsqueeze(-1)
        cue = torch.where(shown, one_hot(state.cue, self.params.n_cues), 0.0)
        asked = (state.step == state.answer_at).to(torch.float32)
        return {GROUP: torch.cat([cue, asked.reshape(-1, 1, 1).expand_as(cue[..., :1])], -1)}

    def team_state(self, state: RecallState) -> Tensor:
        left = (state.answer_at - state.step).unsqueeze(-1).clamp(min=0)
        return torch.cat(
            [one_hot(state.cue, self.params.n_cues).flatten(1), left / self.params.longest_wait], -1
        )

    # ---------------------------------------------------------------- judging
    def memoryless_return(self) -> float:
        """Expected return of every policy whose actions depend on the current observations only.

            (1 - bonus) / K + bonus / K^N

        At the answer all observations are the same in every episode, and nothing done before matters: the
        joint answer u, which may be random in any way, is independent of the cues, and these are
        uniform on all K^N combinations. For any u the rightness of its parts averages to 1/K each, and
        their product to 1/K^N. This holds for policies that share their random numbers, or everything
        that they see at the time.
        """
        chance = 1.0 / self.params.n_cues
        bonus = self.params.bonus
        return (1.0 - bonus) * chance + bonus * chance**self.params.n_agents

    def baselines(self) -> dict[str, Policy]:
        """``guess``: always the first cue, as good as any policy without memory; ``perfect_memory``: the cue.

        The latter reads the cues off the global state, instead of remembering them.
        """
        return {"guess": self._guess, "perfect_memory": self._perfect_memory}

    def _guess(self, td: TensorDictBase) -> TensorDictBase:
        first = torch.zeros_like(td.get((GROUP, "observation"))[..., 0], dtype=torch.long)
        return td.set((GROUP, "action"), self._answer(first))

    def _perfect_memory(self, td: TensorDictBase) -> TensorDictBase:
        size = (self.params.n_agents, self.params.n_cues)
        cue = td.get("state")[..., :-1].unflatten(-1, size).argmax(-1)
        return td.set((GROUP, "action"), self._answer(cue))

    def _answer(self, cue: Tensor) -> Tensor:
        """The action that names ``cue`` ``[*B, n_agents]``."""
        if not self.continuous:
            return cue
        return (2.0 * cue / (self.params.n_cues - 1) - 1.0).unsqueeze(-1)

    def optimum(self) -> Optimum:
        """Everybody is right in every episode; agents with a memory of one cue do that."""
        return Optimum(1.0, "exact", "every agent remembers its cue and names it")

    def episode_series(self, state: RecallState) -> dict[str, Tensor]:
        """How right each agent's answer was, 0 before it."""
        return {"rightness of the answer": state.right}

    def render(self, state: RecallState, index: int = 0) -> np.ndarray[Any, Any]:
        """A row of agents: their cues, bright while they are shown, and whether the answers were right."""
        from marl_td.tasks.recall.render import draw

        return draw(self.params, state, index)


def _whole(uniform: Tensor, n: int) -> Tensor:
    """Whole numbers ``0 .. n - 1`` from uniform numbers in [0, 1)."""
    return (uniform * n).long().clamp(max=n - 1)
