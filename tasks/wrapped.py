"""A task made of another task: what every such wrapper would otherwise repeat."""

from __future__ import annotations

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

FACTS = (
    "name",
    "Params",
    "has_continuous_actions",
    "has_discrete_actions",
    "terminates",
    "agents_return",
    "unit",
    "higher_is_better",
    "info_keys",
    "levels",
    "slow_baselines",
    "draws_starts_slowly",
)
"""What a task's class says, taken over as it is."""


class WrappedTask(Task[TaskParams, Any]):
    """``task``; a subclass says what is different.

    A subclass whose states hold more than the task's says in :meth:`inner` which part is the task's.

    Args:
        task: what is wrapped.
        params: parameters to have instead of the task's own.
    """

    def __init__(self, task: Task[Any, Any], params: TaskParams | None = None) -> None:
        vars(self).update({fact: getattr(task, fact) for fact in FACTS})
        super().__init__(params or task.params, task.continuous, task.device)
        self.task = task

    def inner(self, state: Any) -> Any:
        """The wrapped task's state."""
        return state

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        return self.task.groups

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
        return self.task.step(state, action, noise)

    def observe(self, state: Any) -> Groups:
        return self.task.observe(self.inner(state))

    def team_state(self, state: Any) -> Tensor:
        return self.task.team_state(self.inner(state))

    def action_mask(self, state: Any) -> Groups:
        return self.task.action_mask(self.inner(state))

    def alive(self, state: Any) -> Groups:
        return self.task.alive(self.inner(state))

    def agent_info(self, state: Any) -> dict[str, Groups]:
        return self.task.agent_info(self.inner(state))

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return self.task.score(totals)

    def baselines(self) -> dict[str, Policy]:
        return self.task.baselines()

    def optimum(self) -> Optimum | None:
        return self.task.optimum()

    def episode_series(self, state: Any) -> dict[str, Tensor]:
        return self.task.episode_series(self.inner(state))

    def render(self, state: Any, index: int = 0) -> np.ndarray[Any, Any]:
        return self.task.render(self.inner(state), index)
