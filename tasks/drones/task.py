"""Drones watch an area: keep every place freshly seen, targets in sight, or much in view at once.

Description:
    Point drones with acceleration, drag and a highest speed fly over a square. A cell that a drone sees has
    age 0; otherwise it gets older by the second. Modes: ``monitoring`` keeps the mean age low (persistent
    monitoring, patrolling), ``observation`` keeps moving targets in sight (Parker 2002), ``coverage`` keeps
    as many cells as possible in sight at once (Cortes et al. 2004, "Coverage control for mobile sensing
    networks"), and ``patrol`` adds the first two.

Action space: continuous, acceleration along x and y over ``max_acceleration``, each in [-1, 1] (clipped, and
    its length cut to 1); or discrete: 0 none, 1 to 8 full acceleration at 0, 45, ... 315 degrees. Masked only
    where agents can be dead: those can only take 0.

Observation space (per drone, float32; zeros for dead ones):

    ===========  ===============  ==============================================================
    columns      width            content
    ===========  ===============  ==============================================================
    velocity     2                over ``max_speed``
    position     2                -1 to 1 along each axis
    ages         64               mean age of 8 x 8 blocks of ``pool ** 2`` cells around it over
                                  ``sweep_time``, rows from below; 0 outside the area
    drones       5 ``n_seen``     nearest others within ``comm_radius``: offset over it (2),
                                  velocity less one's own over ``max_speed`` (2), 1; zeros where
                                  there is none or the message is lost
    targets      3 ``n_seen``     nearest targets in sight: offset over ``sensing_radius`` (2), 1;
                                  only if there are targets
    ===========  ===============  ==============================================================

Global state: 10 x 10 blocks, rows from below, of mean ages over ``sweep_time``, of drones alive and, if there
    are any, of targets: ``[200]`` or ``[300]``.
Reward (the team's, per step): monitoring: -mean age / ``sweep_time``; observation and coverage: share of
    targets or cells in sight; less ``collision_penalty`` x share of drones that collide. With ``own_reward``
    every drone gets, instead of the mean age, the age that it clears, over that of a drone which flies
    straight at full speed over cells of age ``sweep_time``; and pays for its own collisions.
Step: drones move, then cells age and are seen, then targets move.
Start: drones at rest and targets anywhere, uniformly; all cells have age 0.
End: never terminates; truncated after ``max_steps``.
Info, per step: ``age`` (mean age in s), ``covered`` and ``observed`` (share of cells and targets in sight),
    ``collisions`` (drones that collide); of every drone its ``position`` in m.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
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
)
from marl_td.tasks.drones import motion, sensing, space
from marl_td.tasks.drones.params import BLOCKS, MODES, VIEW, DronesParams
from marl_td.tasks.failures import alive_agents, dead_count
from marl_td.tasks.layout import written

GROUP = "agents"
N_DIRECTIONS = 8


class DronesState(NamedTuple):
    """Metres and seconds, float32 but for the last two."""

    position: Tensor
    """``[n_envs, n_agents, 2]``."""
    velocity: Tensor
    """``[n_envs, n_agents, 2]``."""
    age: Tensor
    """Since each cell was seen, ``[n_envs, n_cells, n_cells]``, rows from below."""
    target: Tensor
    """``[n_envs, n_targets, 2]``."""
    goal: Tensor
    """Where targets go, ``[n_envs, n_targets, 2]``."""
    alive: Tensor
    """``[n_envs, n_agents]`` bool."""
    heard: Tensor
    """Messages that arrive, from the nearest drone on, ``[n_envs, n_agents, n_seen]`` bool."""


class Drones(Task[DronesParams, DronesState]):
    """See the module's docstring."""

    name = "drones"
    Params: ClassVar[type[TaskParams]] = DronesParams
    terminates = False
    info_keys = ("age", "covered", "observed", "collisions")
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 4, "side": 50.0, "n_cells": 30},
        "medium": {},
        "hard": {"mode": "patrol", "n_agents": 50, "n_targets": 25, "side": 200.0, "n_cells": 100},
    }

    def __init__(
        self, params: DronesParams, continuous: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        p = params
        self.aim = MODES[p.mode]
        self.unit = self.aim.unit  # type: ignore[misc]
        self.higher_is_better = self.aim.score != "age"  # type: ignore[misc]
        self.n_dead = dead_count(p.dead_agents, p.n_agents)
        self.window = space.cell_window(p.sensing_radius, p.cell, self.device)
        angle = torch.arange(N_DIRECTIONS, device=self.device) * (2.0 * math.pi / N_DIRECTIONS)
        still = torch.zeros((1, 2), device=self.device)
        self.thrust = torch.cat([still, torch.stack([angle.cos(), angle.sin()], -1)])
        """Acceleration of each discrete action over ``max_acceleration``, ``[9, 2]``."""
        self.swept = 2.0 * p.sensing_radius * p.max_speed * p.step_time / p.cell**2 * p.sweep_time
        """Age cleared in a step by a drone that flies straight over cells of age ``sweep_time``."""

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        sides = ("acceleration x [max_acceleration]", "acceleration y [max_acceleration]")
        ways = ("none", *(f"{360 * i // N_DIRECTIONS} degrees" for i in range(N_DIRECTIONS)))
        box, thrust = Box((-1.0, -1.0), (1.0, 1.0), sides), Discrete(N_DIRECTIONS + 1, ways)
        action = box if self.continuous else thrust
        d_obs = 4 + VIEW**2 + 5 * p.n_seen + 3 * p.n_seen * (p.n_targets > 0)
        mortal = p.dead_agents > 0.0
        masked = mortal and not self.continuous
        info = {"position": 2}
        return {
            GROUP: GroupSpec(p.n_agents, d_obs, action, masked=masked, mortal=mortal, info=info)
        }

    @property
    def d_state(self) -> int:
        return BLOCKS**2 * (2 + (self.params.n_targets > 0))

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``position`` and ``target``, ``alive``, and those of a step."""
        p = self.params
        n, m = p.n_agents, p.n_targets
        drawn = self._uniform(n_envs, 3 * n + 2 * m, generator).split([2 * n, n, 2 * m], 1)
        position, alive, target = (
            drawn[0].unflatten(1, (n, 2)),
            drawn[1],
            drawn[2].view(n_envs, m, 2),
        )
        noise = {"position": position, "alive": alive, "target": target}
        return {**noise, **self.draw_step(n_envs, generator)}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``goal`` ``[n_envs, n_targets, 2]``, and for ``lost`` messages."""
        p = self.params
        noise = {
            "goal": self._uniform(n_envs, 2 * p.n_targets, generator).view(n_envs, p.n_targets, 2)
        }
        if p.message_dropout > 0.0:
            lost = self._uniform(n_envs, p.n_agents * p.n_seen, generator)
            noise["lost"] = lost.view(n_envs, p.n_agents, p.n_seen)
        return noise

    def _uniform(self, n_envs: int, width: int, generator: torch.Generator) -> Tensor:
        return torch.empty((n_envs, width), device=self.device).uniform_(generator=generator)

    def _heard(self, n_envs: int, noise: Noise) -> Tensor:
        p = self.params
        if p.message_dropout > 0.0:
            return noise["lost"] >= p.message_dropout
        shape = (n_envs, p.n_agents, p.n_seen)
        return torch.ones(shape, dtype=torch.bool, device=self.device)

    def reset(self, n_envs: int, noise: Noise) -> DronesState:
        p = self.params
        position = p.side * noise["position"]
        return DronesState(
            position=position,
            velocity=torch.zeros_like(position),
            age=torch.zeros((n_envs, p.n_cells, p.n_cells), device=self.device),
            target=p.side * noise["target"],
            goal=p.side * noise["goal"],
            alive=alive_agents(noise["alive"], self.n_dead),
            heard=self._heard(n_envs, noise),
        )

    def step(self, state: DronesState, action: Groups, noise: Noise) -> Step[DronesState]:
        p, aim = self.params, self.aim
        push = action[GROUP].clamp(-1.0, 1.0) if self.continuous else self.thrust[action[GROUP]]
        position, velocity = motion.fly(p, state.position, state.velocity, push, state.alive)
        number = space.seen_cells(
            position, state.alive, self.window, p.sensing_radius, p.cell, p.n_cells
        )
        aged, n_cells = state.age.flatten(1) + p.step_time, p.n_cells**2
        seen = torch.zeros((len(aged), n_cells + 1), dtype=torch.uint8, device=self.device)
        seen = seen.scatter(1, number.flatten(1), 1)[:, :-1]  # the last one stands for no cell
        found = aged.gather(1, number.clamp_max(n_cells - 1).flatten(1)).view(number.shape)
        cleared = torch.where(number < n_cells, found, 0.0).sum(-1)
        flat = written(aged * (1.0 - seen.float()))
        target, goal = motion.wander(p, state.target, state.goal, p.side * noise["goal"])
        age, heard = flat.view_as(state.age), self._heard(position.shape[0], noise)
        new = DronesState(position, velocity, age, target, goal, state.alive, heard)
        crashed = motion.crashed(p, position, state.alive).float()
        info = {
            "age": flat.mean(-1),
            "covered": (flat == 0.0).float().mean(-1),
            "observed": sensing.in_sight(p, age, target).float().sum(-1) / max(p.n_targets, 1),
            "collisions": crashed.sum(-1),
        }
        shared = aim.observed * info["observed"] + aim.covered * info["covered"]
        if p.own_reward:
            own = aim.age * cleared / self.swept - p.collision_penalty * crashed
        else:
            crashes = info["collisions"] / p.n_agents
            own = -aim.age * info["age"] / p.sweep_time - p.collision_penalty * crashes
            own = own.unsqueeze(-1).expand(-1, p.n_agents)
        never = torch.zeros_like(shared, dtype=torch.bool)
        return Step(new, {GROUP: own + shared.unsqueeze(-1)}, never, info)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: DronesState) -> Groups:
        p = self.params
        parts = [
            state.velocity / p.max_speed,
            2.0 * state.position / p.side - 1.0,
            sensing.ages(p, state.age, state.position) / p.sweep_time,
            sensing.others(p, state.position, state.velocity, state.alive, state.heard),
        ]
        if p.n_targets > 0:
            parts.append(sensing.targets(p, state.position, state.target))
        return {GROUP: torch.where(state.alive.unsqueeze(-1), torch.cat(parts, -1), 0.0)}

    def team_state(self, state: DronesState) -> Tensor:
        p = self.params
        maps = [
            sensing.age_map(p, state.age),
            sensing.density(p, state.position, state.alive.float()),
        ]
        if p.n_targets > 0:
            maps.append(sensing.density(p, state.target, torch.ones_like(state.target[..., 0])))
        return torch.cat(maps, -1)

    def action_mask(self, state: DronesState) -> Groups:
        if self.continuous or self.params.dead_agents == 0.0:
            return {}
        still = torch.ones_like(state.alive).unsqueeze(-1)
        return {
            GROUP: torch.cat([still, state.alive.unsqueeze(-1).expand(-1, -1, N_DIRECTIONS)], -1)
        }

    def alive(self, state: DronesState) -> Groups:
        return {GROUP: state.alive} if self.params.dead_agents > 0.0 else {}

    def agent_info(self, state: DronesState) -> dict[str, Groups]:
        """Where every drone is, in m."""
        return {"position": {GROUP: state.position}}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """Mean age in s, or the share of targets or cells in sight in %, over all steps."""
        scale = 1.0 if self.aim.score == "age" else 100.0
        return scale * totals[self.aim.score] / totals["steps"]

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.drones.policies import baselines

        return baselines(self.params, self.continuous)

    def optimum(self) -> Optimum:
        from marl_td.tasks.drones.bounds import bound

        return bound(self.params)

    def episode_series(self, state: DronesState) -> dict[str, Tensor]:
        age = state.age.flatten(1)
        return {
            "mean and largest age (s)": torch.stack([age.mean(-1), age.amax(-1)], -1),
            "cells in sight (%)": 100.0 * (age == 0.0).float().mean(-1, keepdim=True),
        }

    def render(self, state: DronesState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.drones.render import draw

        return draw(self.params, state, index)
