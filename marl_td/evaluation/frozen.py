"""A task in which one group learns and every other group's player is a part of the dynamics.

Itself a batched task: a learner's rollout against frozen players is one compiled graph like any other.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchrl.envs.utils import set_exploration_type

from marl_td.collect.bookkeeping import Bookkeeping
from marl_td.collect.episodes import exploration
from marl_td.collect.nested import Path, Shapes, entries_of, nest
from marl_td.evaluation.cross_play import Player, Teams, teams_env
from marl_td.models.straight import straighten
from marl_td.tasks.base import Groups, GroupSpec, Noise, Step, Task
from marl_td.tasks.vector_env import Entries, VectorEnv, observed
from marl_td.tasks.wrapped import WrappedTask


class FrozenTask(WrappedTask):
    """``task`` in which only ``group`` acts; every other group is a part of the environment.

    A state is the task's and what everybody sees in it, hidden states of the frozen players among it. Players
    draw their actions from torch's global stream, as learners do: a step's noise is the task's alone.

    Args:
        task: one of our tasks.
        group: who acts.
        teams: the frozen player of every other group.
        deterministic: frozen players take their most likely actions instead of drawing them.

    Raises:
        ValueError: if ``group`` is none of the task's, or another group has no player.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        group: str,
        teams: Mapping[str, Player],
        deterministic: bool = False,
    ) -> None:
        if group not in task.groups:
            raise ValueError(f"task '{task.name}' has no group '{group}'; it has {[*task.groups]}.")
        others = {name: teams[name] for name in task.groups if name in teams and name != group}
        env = teams_env(task, 1, {**others, group: Player("learner")})
        self.bookkeeping = Bookkeeping(env)
        # The environment's own task stands behind the shield, if there is one; here is no second.
        super().__init__(self.bookkeeping.env.task, dataclasses.replace(task.params, safety=None))
        self.group = group
        self.mode = exploration(deterministic)
        self.teams = Teams(self.task, others)
        networks = (act for act in self.teams.act.values() if isinstance(act, nn.Module))
        for left in map(straighten, networks):
            if left:
                self.uncompilable = f"the frozen network {left[0]} swaps its parameters"
        self.shapes: Shapes = {(name,): (spec.n_agents,) for name, spec in self.task.groups.items()}
        start = self.task.reset(1, self.task.draw_reset(1, torch.Generator(self.device)))
        self.n_inner = len(start)
        self.Inner: Any = type(start)
        self.paths: list[Path] = [*self._shown(start), *self.bookkeeping.at_reset(1, self.device)]
        fields = [*start._fields, *(f"entry_{i}" for i in range(len(self.paths)))]
        self.State = _state_type(fields)

    # ------------------------------------------------------------------ states
    def inner(self, state: Any) -> Any:
        """The task's own state."""
        return self.Inner(*state[: self.n_inner])

    def _entries(self, state: Any) -> Entries:
        """What the players see and remember."""
        return dict(zip(self.paths, state[self.n_inner :], strict=True))

    def _joined(self, inner: Any, entries: Entries) -> Any:
        return self.State(*inner, *(entries[path] for path in self.paths))

    def _shown(self, inner: Any) -> Entries:
        """What an environment shows of a state, without raw quantities, which no player may read."""
        zero = dict.fromkeys(self.task.info_keys, inner[0].new_zeros(len(inner[0])))
        entries = observed(self.task, inner, zero)
        return {path: value for path, value in entries.items() if "info" not in path}

    # ---------------------------------------------------------------- the task
    @property
    def groups(self) -> dict[str, GroupSpec]:
        return {self.group: self.task.groups[self.group]}

    def reset(self, n_envs: int, noise: Noise) -> Any:
        inner = self.task.reset(n_envs, noise)
        remembered = self.bookkeeping.at_reset(n_envs, self.device)
        return self._joined(inner, self._shown(inner) | remembered)

    def step(self, state: Any, action: Groups, noise: Noise) -> Step[Any]:
        entries = self._entries(state)
        n_envs = len(state[0])
        with torch.no_grad(), set_exploration_type(self.mode):
            written = entries_of(self.teams(nest(entries, self.shapes, (n_envs,), self.device)))
        joint = {name: written[name, "action"] for name in self.teams.act} | action
        step = self.task.step(self.inner(state), joint, noise)
        following = {path[1:]: value for path, value in written.items() if path[0] == "next"}
        following |= self._shown(step.state)
        following |= self.bookkeeping.after_step(entries, following, joint)
        own = {self.group: step.reward[self.group]}
        return step._replace(state=self._joined(step.state, following), reward=own)

    def observe(self, state: Any) -> Groups:
        return self._own("observation", state)

    def team_state(self, state: Any) -> Tensor:
        return self._entries(state)["state",]

    def action_mask(self, state: Any) -> Groups:
        return self._own("action_mask", state)

    def alive(self, state: Any) -> Groups:
        return self._own("mask", state)

    def agent_info(self, state: Any) -> dict[str, Groups]:
        found = super().agent_info(state)
        return {
            name: {self.group: values[self.group]}
            for name, values in found.items()
            if self.group in values
        }

    def _own(self, name: str, state: Any) -> Groups:
        """The learning group's entry of that name, if it has one."""
        entries = self._entries(state)
        key = (self.group, name)
        return {self.group: entries[key]} if key in entries else {}

    def baselines(self) -> dict[str, Any]:
        """None: the task's write the actions of all groups."""
        return {}

    def optimum(self) -> None:
        """Not known: the task's is that of all groups together."""
        return None


def _state_type(fields: list[str]) -> Any:
    """The type of states with fields that are known only now."""
    return namedtuple("State", fields)


def against_frozen(
    task: Task[Any, Any],
    n_envs: int,
    group: str,
    teams: Mapping[str, Player],
    seed: int | None = 0,
    deterministic: bool = False,
) -> VectorEnv:
    """``n_envs`` copies of a :class:`FrozenTask`, whose arguments these are, with random stream ``seed``."""
    return VectorEnv(FrozenTask(task, group, teams, deterministic), n_envs, seed)
