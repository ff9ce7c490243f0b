"""Cooperative navigation: as many agents as landmarks, and every landmark wants an agent close by.

Description:
    ``simple_spread`` of the multi-particle environments (Lowe et al. 2017,
    https://arxiv.org/abs/1706.02275), equal step by step to ``mpe2.simple_spread_v3``: discs of
    radius 0.15 that are pushed about in the plane, push each other apart where they touch, and do
    not know which landmark is theirs.

Action space: continuous, ``Box(5)`` in [0, 1]: nothing, left, right, down, up (the force along an
    axis is 5 times the difference of its two); or discrete: one of these five.

Observation space (per agent, float32, in this order):

    =============================  ==================  ============================
    entry                          width               unit
    =============================  ==================  ============================
    own velocity                   2                   length per s
    own position                   2                   length
    landmarks, as seen from here   2 ``n_agents``      length, x and y
    other agents, seen from here   2 (``n_agents``-1)  length, x and y
    messages (always 0)            2 (``n_agents``-1)  -
    =============================  ==================  ============================

Global state: positions, velocities and landmarks, ``[6 n_agents]``.
Reward (per agent): ``(1 - local_ratio)`` times minus the sum over landmarks of the distance to the
    nearest agent, plus ``local_ratio`` times minus the number of agents that it overlaps.
Start: agents and landmarks uniform in ``[-1, 1]^2``, at rest.
End: never terminates; ``max_steps`` truncates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.base import (
    Groups,
    GroupSpec,
    Noise,
    Policy,
    Step,
    Task,
    TaskParams,
    require,
)
from marl_td.tasks.particle import physics
from marl_td.tasks.particle.views import columns, without_itself

RADIUS = 0.15
"""Radius of an agent."""
COVERED = 0.1
"""A landmark is covered if an agent's centre is closer than this."""


@dataclass
class SpreadParams(TaskParams):
    """Parameters of ``simple_spread``."""

    n_agents: int = 3
    """Number of agents, and of landmarks (N), at least 1."""
    local_ratio: float = 0.5
    """Weight of the own collisions in the reward, in [0, 1]; the team's distances have the rest."""
    max_steps: int = 25
    """Time limit in steps of 0.1 s; reaching it truncates the episode, it never terminates it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n_agents >= 1, f"n_agents must be at least 1; got {self.n_agents}.")
        require(
            0.0 <= self.local_ratio <= 1.0,
            f"local_ratio is a weight and must be in [0, 1]; got {self.local_ratio}.",
        )


class SpreadState(NamedTuple):
    """Agents and landmarks, each ``[n_envs, n_agents, 2]``; in memory environments come last."""

    position: Tensor
    velocity: Tensor
    landmark: Tensor


class SimpleSpread(Task[SpreadParams, SpreadState]):
    """See the module's docstring."""

    name = "simple_spread"
    Params: ClassVar[type[TaskParams]] = SpreadParams
    terminates = False
    info_keys: ClassVar[tuple[str, ...]] = ("distance", "collisions", "covered")

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        n = self.params.n_agents
        action = physics.push_action(self.continuous)
        return {"agents": GroupSpec(n, 4 + 2 * n + 4 * (n - 1), action)}

    @property
    def d_state(self) -> int:
        return 6 * self.params.n_agents

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``position`` and ``landmark``, ``[n_envs, n_agents, 2]``."""
        n = self.params.n_agents
        return physics.draw_uniform(n_envs, generator, position=n, landmark=n)

    def reset(self, n_envs: int, noise: Noise) -> SpreadState:
        position, landmark = (2.0 * noise[name] - 1.0 for name in ("position", "landmark"))
        return SpreadState(position, torch.zeros_like(position), landmark)

    def step(self, state: SpreadState, action: Groups, noise: Noise) -> Step[SpreadState]:
        position, velocity = physics.inside(state.position), physics.inside(state.velocity)
        force = physics.control(action["agents"], self.continuous)
        offset = physics.offsets(position, position)
        apart = physics.apart_from_itself(physics.distances(offset))
        force = force + physics.contact_force(offset, apart, 2 * RADIUS)
        position, velocity = physics.move(position, velocity, force)

        near = physics.distances(physics.offsets(physics.inside(state.landmark), position)).amin(1)
        apart = physics.apart_from_itself(physics.distances(physics.offsets(position, position)))
        hits = (apart < 2 * RADIUS).to(position.dtype).sum(1)
        distance = near.sum(0)
        w = self.params.local_ratio
        reward = -((1.0 - w) * distance + w * hits).transpose(0, 1)
        covered = (near < COVERED).to(position.dtype).sum(0)
        info = {"distance": distance, "collisions": hits.sum(0) / 2, "covered": covered}
        state = SpreadState(physics.outside(position), physics.outside(velocity), state.landmark)
        never = torch.zeros(distance.shape[0], dtype=torch.bool, device=distance.device)
        return Step(state, {"agents": reward}, never, info)

    # ------------------------------------------------------------ observation
    def observe(self, state: SpreadState) -> Groups:
        n = self.params.n_agents
        position, velocity = physics.inside(state.position), physics.inside(state.velocity)
        landmark = physics.offsets(position, physics.inside(state.landmark))
        other = without_itself(physics.offsets(position, position))
        silence = torch.zeros_like(position[:1]).expand(2 * (n - 1), -1, -1)
        parts = [velocity, position, columns(landmark), columns(other), silence]
        return {"agents": physics.outside(torch.cat(parts, 0))}

    def team_state(self, state: SpreadState) -> Tensor:
        return torch.cat([part.flatten(1) for part in state], -1)

    # ---------------------------------------------------------------- judging
    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.particle.assignment import Assignment

        return {"assignment": Assignment(self.params.n_agents, self.continuous)}

    def episode_series(self, state: SpreadState) -> dict[str, Tensor]:
        """Distance of every landmark to the nearest agent."""
        offset = physics.offsets(physics.inside(state.landmark), physics.inside(state.position))
        near = physics.distances(offset).amin(1)
        return {"landmark to nearest agent [length]": near.transpose(0, 1)}

    def render(self, state: SpreadState, index: int = 0) -> Any:
        from marl_td.tasks.particle.render import Discs, Marks, draw

        return draw([Discs(state.position[index], RADIUS)], [Marks(state.landmark[index])])
