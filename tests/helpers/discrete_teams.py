"""A small discrete task of two teams, masked or not, as a task of unchanged BenchMARL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from marl_td.benchmarl_tasks import MarlTdTaskClass
from marl_td.tasks.base import Discrete, Groups, GroupSpec, Noise, Step, Task, TaskParams
from marl_td.tasks.vector_env import VectorEnv


@dataclass
class TeamsParams(TaskParams):
    """Parameters of the two teams."""

    max_steps: int = 5
    """Time limit in steps."""
    n_actions: int = 3
    """Number of actions of each agent."""
    masked: bool = True
    """Whether an agent may not repeat the action it took last."""
    mortal: bool = False
    """Whether agents can die."""
    has_state: bool = True
    """Whether there is a global state."""
    red: int = 2
    """Agents in the first team."""
    blue: int = 3
    """Agents in the second team; 0 for one team only."""


class TeamsState(NamedTuple):
    """Last action of every agent, ``[n_envs, n_agents]``, the number of steps, and who lives."""

    last: Tensor
    step: Tensor
    alive: Tensor


class Teams(Task[TeamsParams, TeamsState]):
    """Each team is paid for the agents that take the action of the step (``step % n_actions``).

    Environment i ends with step ``2 + i % max_steps``, by termination, if that is before the time
    limit. With ``mortal``, agent 0 of each team dies in its second step.
    """

    name = "teams"
    Params: ClassVar[type[TaskParams]] = TeamsParams
    has_continuous_actions = False

    @property
    def sizes(self) -> dict[str, int]:
        """Agents per team."""
        sizes = {"red": self.params.red, "blue": self.params.blue}
        return {group: n for group, n in sizes.items() if n}

    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        flags = {"masked": p.masked, "mortal": p.mortal}
        return {g: GroupSpec(n, 4, Discrete(p.n_actions), **flags) for g, n in self.sizes.items()}

    @property
    def d_state(self) -> int | None:
        return 2 if self.params.has_state else None

    def reset(self, n_envs: int, noise: Noise) -> TeamsState:
        shape = (n_envs, sum(self.sizes.values()))
        zero = torch.zeros(shape, dtype=torch.long, device=self.device)
        return TeamsState(zero - 1, zero[:, 0], torch.ones_like(zero, dtype=torch.bool))

    def step(self, state: TeamsState, action: Groups, noise: Noise) -> Step[TeamsState]:
        taken = torch.cat([action[g] for g in self.sizes], dim=-1)
        if self.params.masked and bool((taken == state.last).any()):
            raise ValueError("an agent took an unavailable action")
        wanted = (state.step % self.params.n_actions).unsqueeze(-1)
        reward = ((taken == wanted) & state.alive).float()
        step = state.step + 1
        ends = 2 + torch.arange(len(step), device=self.device) % self.params.max_steps
        first = torch.cat([torch.arange(n, device=self.device) == 0 for n in self.sizes.values()])
        alive = ~(first & (step >= 2).unsqueeze(-1))
        return Step(TeamsState(taken, step, alive), self._split(reward), step >= ends, {})

    def observe(self, state: TeamsState) -> Groups:
        index = torch.arange(state.last.shape[1], device=self.device).expand_as(state.last)
        seen = [state.last, state.step.unsqueeze(-1).expand_as(state.last), index, state.alive]
        return self._split(torch.stack([s.float() for s in seen], -1))

    def team_state(self, state: TeamsState) -> Tensor:
        return torch.stack([state.step.float(), state.last.float().mean(-1)], -1)

    def action_mask(self, state: TeamsState) -> Groups:
        if not self.params.masked:
            return {}
        number = torch.arange(self.params.n_actions, device=self.device)
        return self._split(state.last.unsqueeze(-1) != number)

    def alive(self, state: TeamsState) -> Groups:
        return self._split(state.alive) if self.params.mortal else {}

    def _split(self, value: Tensor) -> Groups:
        parts = value.split(list(self.sizes.values()), dim=1)
        return dict(zip(self.sizes, parts, strict=True))


class TeamsTaskClass(MarlTdTaskClass):
    """The task inside BenchMARL, without a registry entry."""

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], VectorEnv]:
        task = Teams(TeamsParams(**self.config), continuous=continuous_actions, device=device)
        return lambda: VectorEnv(task, num_envs, seed=seed)

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True


def teams_task(**params: Any) -> TeamsTaskClass:
    """The task with these parameters, to be given to a BenchMARL experiment."""
    return TeamsTaskClass(name="TEAMS", config=asdict(TeamsParams(**params)))
