"""Our batched tasks as PettingZoo ``ParallelEnv``s, one copy each, for other people's code.

Agents are named ``<group>_<index>``. An agent of a masked group sees a Dict of ``"observation"`` and
``"action_mask"`` (int8, 1 = available), PettingZoo's convention; others see a Box. An agent that
dies is terminated and leaves ``agents``, unless agents of the task may come back; the time limit truncates.
"""

from __future__ import annotations

from typing import Any

import gymnasium.spaces as gym_spaces
import numpy as np
import torch
from pettingzoo.utils.env import ParallelEnv

from marl_td.tasks.adapters.copies import Array
from marl_td.tasks.base import Box, Groups, GroupSpec, Task, require
from marl_td.tasks.registry import make_task


def to_pettingzoo(
    task: str | Task[Any, Any],
    *,
    continuous: bool | None = None,
    render_mode: str | None = None,
    **params: Any,
) -> TaskParallelEnv:
    """A PettingZoo ``ParallelEnv`` of one copy of a task.

    Args:
        task: registry name, such as ``"retail"``, or a task.
        continuous: continuous or discrete actions; None takes continuous ones where there are any.
        render_mode: ``"rgb_array"`` or None.
        params: fields of the task's parameter dataclass, if ``task`` is a name.

    Raises:
        ValueError: for an unknown name, parameter or render mode.
    """
    if isinstance(task, str):
        task = make_task(task, continuous=continuous, **params)
    else:
        require(
            continuous is None and not params,
            "continuous and parameters belong to a task given by name; this one is built already.",
        )
    return TaskParallelEnv(task, render_mode=render_mode)


class TaskParallelEnv(ParallelEnv):
    """One copy of a batched task behind PettingZoo's interface; see :func:`to_pettingzoo`."""

    def __init__(self, task: Task[Any, Any], render_mode: str | None = None) -> None:
        modes = ["rgb_array"] if type(task).render is not Task.render else []
        require(
            render_mode is None or render_mode in modes,
            f"task '{task.name}' has the render modes {modes}; got '{render_mode}'.",
        )
        self.task = task
        self.render_mode = render_mode
        self.metadata = {
            "name": f"marl_td_{task.name}",
            "render_modes": modes,
            "is_parallelizable": True,
        }
        self._generator = torch.Generator(device=task.device)
        self._generator.seed()
        self._seats = {
            f"{group}_{i}": (group, i)
            for group, spec in task.groups.items()
            for i in range(spec.n_agents)
        }
        self.possible_agents = list(self._seats)
        self.agents: list[str] = []
        self._observation_spaces = {
            agent: _observation_space(task.groups[group])
            for agent, (group, _) in self._seats.items()
        }
        self._action_spaces = {
            agent: _action_space(task.groups[group]) for agent, (group, _) in self._seats.items()
        }
        if task.d_state is not None:
            self.state_space = _vector(task.d_state)

    def observation_space(self, agent: str) -> Any:
        """The agent's observation space, always the same object."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        """The agent's action space, always the same object."""
        return self._action_spaces[agent]

    # --------------------------------------------------------------- episodes
    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        """Start an episode, from ``seed`` or going on with the own random stream."""
        if seed is not None:
            self._generator.manual_seed(seed)
        self._state = self.task.reset(1, self.task.draw_reset(1, self._generator))
        self._steps = 0
        self.agents = self._living()
        return self._observations(self.agents), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Advance by the actions of the agents that are still there.

        Raises:
            ValueError: if one of them has no action, or one of a wrong shape.
        """
        acted, joint = self.agents, self._joint(actions)
        noise = self.task.draw_step(1, self._generator)
        step = self.task.step(self._state, joint, noise)
        self._state = step.state
        self._steps += 1
        ended = bool(step.terminated)
        cut = self._steps >= self.task.params.max_steps
        alive = set(self._living())
        terminations = {agent: ended or agent not in alive for agent in acted}
        truncations = {agent: cut and not terminations[agent] for agent in acted}
        self.agents = [] if ended or cut else [agent for agent in acted if agent in alive]
        rewards = {}
        for agent in acted:
            group, i = self._seats[agent]
            rewards[agent] = float(step.reward[group][0, i])
        told = {key: float(value) for key, value in step.info.items()}
        infos = {agent: dict(told) for agent in acted}
        return self._observations(acted), rewards, terminations, truncations, infos

    def state(self) -> Array:
        """The global state ``[d_state]``."""
        return _numpy(self.task.team_state(self._state)[0])

    def render(self) -> Array | None:
        """Picture ``uint8 [height, width, 3]``, or None without a render mode."""
        return self.task.render(self._state) if self.render_mode else None

    def close(self) -> None:
        """Nothing to free."""

    # ---------------------------------------------------------------- helpers
    def _living(self) -> list[str]:
        # PettingZoo knows no agent that comes later or again: where a task has such, all stay until the end.
        alive = {} if self.task.agents_return else self.task.alive(self._state)
        return [
            agent
            for agent, (group, i) in self._seats.items()
            if group not in alive or bool(alive[group][0, i])
        ]

    def _observations(self, agents: list[str]) -> dict[str, Any]:
        seen, masks = self.task.observe(self._state), self.task.action_mask(self._state)
        out: dict[str, Any] = {}
        for agent in agents:
            group, i = self._seats[agent]
            out[agent] = _numpy(seen[group][0, i])
            if self.task.groups[group].masked:
                mask = _numpy(masks[group][0, i]).astype(np.int8)
                out[agent] = {"observation": out[agent], "action_mask": mask}
        return out

    def _joint(self, actions: dict[str, Any]) -> Groups:
        """The actions as the task takes them; an agent that left gets one that its mask allows."""
        masks = self.task.action_mask(self._state)
        rows: dict[str, list[Any]] = {group: [] for group in self.task.groups}
        for agent, (group, i) in self._seats.items():
            space = self._action_spaces[agent]
            if agent in self.agents:
                require(agent in actions, f"no action for agent '{agent}', which is still there.")
                action = np.asarray(actions[agent])
                require(
                    action.shape == space.shape,
                    f"the action of agent '{agent}' must have shape {space.shape}; got "
                    f"{action.shape}.",
                )
            elif isinstance(space, gym_spaces.Discrete):
                action = np.asarray(int(masks[group][0, i].int().argmax()) if group in masks else 0)
            else:
                action = np.clip(0.0, space.low, space.high)
            rows[group].append(action)
        joint = {}
        for group, spec in self.task.groups.items():
            dtype = torch.float32 if isinstance(spec.action, Box) else torch.long
            values = np.stack(rows[group])[None]
            joint[group] = torch.as_tensor(values, dtype=dtype, device=self.task.device)
        return joint


def _numpy(tensor: torch.Tensor) -> Array:
    """A NumPy copy that no later step changes."""
    array: Array = tensor.detach().cpu().numpy().copy()
    return array


def _vector(width: int) -> Any:
    return gym_spaces.Box(-np.inf, np.inf, (width,), dtype=np.float32)


def _observation_space(spec: GroupSpec) -> Any:
    seen = _vector(spec.d_obs)
    if not spec.masked or isinstance(spec.action, Box):
        return seen
    mask = gym_spaces.Box(0, 1, (spec.action.n,), dtype=np.int8)
    return gym_spaces.Dict({"observation": seen, "action_mask": mask})


def _action_space(spec: GroupSpec) -> Any:
    if isinstance(spec.action, Box):
        low, high = (
            np.asarray(end, dtype=np.float32) for end in (spec.action.low, spec.action.high)
        )
        return gym_spaces.Box(low, high, dtype=np.float32)
    return gym_spaces.Discrete(spec.action.n)
