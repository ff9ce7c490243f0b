"""Small tasks for tests of the shell and the adapters: several groups, masks, deaths, both ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, Noise, Step, Task, TaskParams


@dataclass
class HuntParams(TaskParams):
    """Parameters of the hunt."""

    max_steps: int = 6
    """Time limit in steps."""
    n_hunters: int = 3
    """Number of hunters."""
    prey_life: float = 4.0
    """Damage that kills the prey and so ends the episode."""


class HuntState(NamedTuple):
    """Where everybody is (`[n_envs, n]`), what life is left, how long ago each hunter rested."""

    position: Tensor
    life: Tensor
    prey: Tensor
    prey_life: Tensor
    tired: Tensor


class Hunt(Task[HuntParams, HuntState]):
    """Hunters rest (0), walk (1) or strike (2); the prey drifts by a continuous action.

    A hunter that struck must not strike again at once (mask); it loses random life each step and
    can die; the episode terminates when the prey is dead. Every step uses its noise.
    """

    name = "hunt"
    Params: ClassVar[type[TaskParams]] = HuntParams
    info_keys = ("damage",)

    @property
    def groups(self) -> dict[str, GroupSpec]:
        return {
            "hunter": GroupSpec(self.params.n_hunters, 4, Discrete(3), masked=True, mortal=True),
            "prey": GroupSpec(1, 2, Box((-1.0, -2.0), (1.0, 2.0))),
        }

    @property
    def d_state(self) -> int:
        return self.params.n_hunters + 1

    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        shape = (n_envs, self.params.n_hunters + 1)
        return {"start": torch.randn(shape, generator=generator, device=self.device)}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        shape = (n_envs, self.params.n_hunters)
        return {"loss": torch.rand(shape, generator=generator, device=self.device)}

    def reset(self, n_envs: int, noise: Noise) -> HuntState:
        n = self.params.n_hunters
        return HuntState(
            noise["start"][:, :n],
            torch.ones((n_envs, n), device=self.device),
            noise["start"][:, n:],
            torch.full((n_envs,), self.params.prey_life, device=self.device),
            torch.zeros((n_envs, n), dtype=torch.bool, device=self.device),
        )

    def step(self, state: HuntState, action: Groups, noise: Noise) -> Step[HuntState]:
        alive = state.life > 0
        hit = ((action["hunter"] == 2) & alive).to(torch.float32)
        walk = ((action["hunter"] == 1) & alive).to(torch.float32)
        prey_life = state.prey_life - hit.sum(-1)
        position = state.position + walk * (state.prey - state.position).sign() * 0.1
        after = HuntState(
            position,
            state.life - 0.3 * noise["loss"],
            state.prey + action["prey"].sum(-1),
            prey_life,
            hit > 0,
        )
        reward = {"hunter": hit, "prey": -hit.sum(-1, keepdim=True)}
        return Step(after, reward, prey_life <= 0, {"damage": hit.sum(-1)})

    def observe(self, state: HuntState) -> Groups:
        prey = state.prey.expand_as(state.position)
        life = state.prey_life.unsqueeze(-1).expand_as(state.position)
        hunter = torch.stack([state.position, state.life, prey, life], -1)
        return {
            "hunter": hunter,
            "prey": torch.stack([state.prey, state.prey_life.unsqueeze(-1)], -1),
        }

    def team_state(self, state: HuntState) -> Tensor:
        return torch.cat([state.position, state.prey], -1)

    def action_mask(self, state: HuntState) -> Groups:
        able = ~state.tired & (state.life > 0)
        walk = state.life > 0
        return {"hunter": torch.stack([torch.ones_like(walk), walk, able], -1)}

    def alive(self, state: HuntState) -> Groups:
        return {"hunter": state.life > 0}

    def render(self, state: HuntState, index: int = 0) -> np.ndarray[Any, Any]:
        picture = np.zeros((4, 5, 3), dtype=np.uint8)
        picture[..., 0] = int(128 + 40 * float(state.position[index, 0].clamp(-3, 3)))
        return picture
