"""Any batched task behind a shield: itself a batched task, so that rollouts compile and reports work."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.base import (
    Groups,
    GroupSpec,
    Noise,
    Optimum,
    Policy,
    Step,
    Task,
    TaskParams,
)
from marl_td.tasks.shield.corrector import CHANGED, SIZE, Corrector, summary
from marl_td.tasks.shield.settings import Shield

FACTS = (
    "name",
    "Params",
    "has_continuous_actions",
    "has_discrete_actions",
    "terminates",
    "agents_return",
    "unit",
    "higher_is_better",
    "levels",
)
"""What a task's class says, taken over as it is."""


class ShieldedTask(Task[TaskParams, Any]):
    """``task`` with its actions corrected by ``shield`` before each step.

    Everything else is the task's own. Two raw quantities come in: ``shield_changed``, the number of agents
    corrected in a step, and ``shield_size``, the sum of their corrections (Euclidean length of the change
    of a continuous action, 1 for a discrete one).

    Args:
        task: the task.
        shield: what to keep.

    Raises:
        ValueError: if the shield does not fit the task's groups, or cannot be kept by any action.
    """

    def __init__(self, task: Task[Any, Any], shield: Shield) -> None:
        vars(self).update({fact: getattr(task, fact) for fact in FACTS})
        super().__init__(task.params, task.continuous, task.device)
        self.info_keys = (*task.info_keys, CHANGED, SIZE)  # type: ignore[misc]
        self.task = task
        self.corrector = Corrector(shield, task.groups, task.device)

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        masked = self.corrector.masked
        return {
            name: dataclasses.replace(spec, masked=spec.masked or name in masked)
            for name, spec in self.task.groups.items()
        }

    @property
    def d_state(self) -> int | None:
        return self.task.d_state

    @property
    def usual_episode(self) -> int:
        return self.task.usual_episode

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        return self.task.draw_reset(n_envs, generator)

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        return self.task.draw_step(n_envs, generator)

    def reset(self, n_envs: int, noise: Noise) -> Any:
        return self.task.reset(n_envs, noise)

    def step(self, state: Any, action: Groups, noise: Noise) -> Step[Any]:
        seen = self._seen(state)
        taken, sizes = self.corrector.correct(seen, action, self._mask(state, seen))
        step = self.task.step(state, taken, noise)
        info = step.info | summary(sizes)
        penalty = self.corrector.shield.penalty
        if penalty == 0:
            return step._replace(info=info)
        reward = {name: value - penalty * sizes[name] for name, value in step.reward.items()}
        return step._replace(info=info, reward=reward)

    def observe(self, state: Any) -> Groups:
        return self.task.observe(state)

    def team_state(self, state: Any) -> Tensor:
        return self.task.team_state(state)

    def action_mask(self, state: Any) -> Groups:
        return self._mask(state, self._seen(state))

    def alive(self, state: Any) -> Groups:
        return self.task.alive(state)

    def agent_info(self, state: Any) -> dict[str, Groups]:
        return self.task.agent_info(state)

    def _seen(self, state: Any) -> Groups:
        return self.task.observe(state) if self.corrector.reads_observations else {}

    def _mask(self, state: Any, seen: Groups) -> Groups:
        return self.corrector.mask(seen, self.task.action_mask(state), state[0].shape[:1])

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return self.task.score(totals)

    def baselines(self) -> dict[str, Policy]:
        return self.task.baselines()

    def optimum(self) -> Optimum | None:
        """The task's own as a bound, which no shield moves; None where it was one from the other side."""
        known = self.task.optimum()
        side: Any = "upper" if self.task.higher_is_better else "lower"
        if known is None or known.kind not in ("exact", side):
            return None
        return dataclasses.replace(known, kind=side, how=f"{known.how}, without the shield")

    def episode_series(self, state: Any) -> dict[str, Tensor]:
        return self.task.episode_series(state)

    def render(self, state: Any, index: int = 0) -> np.ndarray[Any, Any]:
        return self.task.render(state, index)


def shielded(task: Task[Any, Any]) -> Task[Any, Any]:
    """``task`` behind the shield that its parameters ask for; itself if they ask for none, or it is already.

    Raises:
        ValueError: if the shield cannot be read, or does not fit the task.
    """
    if task.params.safety is None or isinstance(task, ShieldedTask):
        return task
    return ShieldedTask(task, Shield.of(task.params.safety))
