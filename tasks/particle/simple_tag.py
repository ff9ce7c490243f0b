"""Adversaries chase faster agents between obstacles.

Description:
    ``simple_tag`` of the multi-particle environments (Lowe et al. 2017, https://arxiv.org/abs/1706.02275),
    equal step by step to ``mpe2.simple_tag_v3``: ``n_adversaries`` slow adversaries are rewarded for every
    touch of a good agent, which is faster, smaller, punished for touches and for leaving the area. Agents
    and obstacles push each other apart where they touch.

Groups: ``adversary`` (radius 0.075, force 3, speed at most 1.0) and ``agent`` (0.05, 4, 1.3).

Action space: continuous, ``Box(5)`` in [0, 1]: nothing, left, right, down, up; or discrete: one of these.

Observation space (per agent, float32, in this order):

    =================================  =======================  ============================
    entry                              width                    unit
    =================================  =======================  ============================
    own velocity, own position         4                        length per s, length
    obstacles, as seen from here       2 ``n_obstacles``        length, x and y
    other adversaries, then others     2 (all agents - 1)       length, x and y
    velocity of the (other) good       2 ``n_good``, one less   length per s
                                       for a good agent
    =================================  =======================  ============================

Global state: positions and velocities of adversaries and good agents, obstacles, ``[4 n + 2 n_obstacles]``.
Reward: an adversary gets 10 for every pair of an adversary and a good agent that touch, whoever they are; a
    good agent -10 for every adversary that it touches, and minus :func:`outside_penalty`.
Start: agents uniform in ``[-1, 1]^2``, obstacles in ``[-0.9, 0.9]^2``, at rest.
End: never terminates; ``max_steps`` truncates.
Score: touches per episode, higher is better for the adversaries.
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

ADVERSARY, GOOD = "adversary", "agent"


class Kind(NamedTuple):
    """What tells the two kinds of agents apart."""

    radius: float
    force: float
    max_speed: float


KINDS = {ADVERSARY: Kind(0.075, 3.0, 1.0), GOOD: Kind(0.05, 4.0, 1.3)}
OBSTACLE_RADIUS = 0.2
TOUCH = KINDS[ADVERSARY].radius + KINDS[GOOD].radius
"""Distance below which an adversary touches a good agent."""
TOUCH_REWARD = 10.0


@dataclass
class TagParams(TaskParams):
    """Parameters of ``simple_tag``."""

    n_adversaries: int = 3
    """Number of adversaries, at least 1."""
    n_good: int = 1
    """Number of good agents, at least 1."""
    n_obstacles: int = 2
    """Number of obstacles, at least 0."""
    max_steps: int = 25
    """Time limit in steps of 0.1 s; reaching it truncates the episode, it never terminates it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("n_adversaries", 1), ("n_good", 1), ("n_obstacles", 0)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be at least {least}; got {value}.")


class TagState(NamedTuple):
    """Agents, adversaries first, and obstacles (``landmark``); in memory environments come last."""

    position: Tensor
    """``[n_envs, n_adversaries + n_good, 2]``."""
    velocity: Tensor
    """Likewise."""
    landmark: Tensor
    """``[n_envs, n_obstacles, 2]``."""


class SimpleTag(Task[TagParams, TagState]):
    """See the module's docstring."""

    name = "simple_tag"
    Params: ClassVar[type[TaskParams]] = TagParams
    terminates = False
    unit = "touches per episode"
    info_keys: ClassVar[tuple[str, ...]] = ("touches", "outside")

    def __init__(
        self, params: TagParams, continuous: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        self.n_agents = params.n_adversaries + params.n_good
        of_agents = [KINDS[ADVERSARY]] * params.n_adversaries + [KINDS[GOOD]] * params.n_good
        radius = [kind.radius for kind in of_agents]
        every = torch.tensor(radius + [OBSTACLE_RADIUS] * params.n_obstacles, dtype=torch.float64)
        reach = every[: self.n_agents].unsqueeze(-1) + every
        self.reach = reach.unsqueeze(-1).to(self.device)
        """Sum of both radii, ``[n_agents, n_agents + n_obstacles, 1]``."""
        speed = torch.tensor([kind.max_speed for kind in of_agents], dtype=torch.float64)
        self.max_speed = speed.unsqueeze(-1).to(self.device)
        """``[n_agents, 1]``."""

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        common = 4 + 2 * p.n_obstacles + 2 * (self.n_agents - 1)
        move = physics.push_action(self.continuous)
        return {
            ADVERSARY: GroupSpec(p.n_adversaries, common + 2 * p.n_good, move),
            GOOD: GroupSpec(p.n_good, common + 2 * (p.n_good - 1), move),
        }

    @property
    def d_state(self) -> int:
        return 4 * self.n_agents + 2 * self.params.n_obstacles

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1), ``position`` and ``landmark``, shaped as in the state."""
        n, m = self.n_agents, self.params.n_obstacles
        return physics.draw_uniform(n_envs, generator, position=n, landmark=m)

    def reset(self, n_envs: int, noise: Noise) -> TagState:
        position = 2.0 * noise["position"] - 1.0
        obstacle = 0.9 * (2.0 * noise["landmark"] - 1.0)
        return TagState(position, torch.zeros_like(position), obstacle)

    def step(self, state: TagState, action: Groups, noise: Noise) -> Step[TagState]:
        position, velocity = physics.inside(state.position), physics.inside(state.velocity)
        pushes = [physics.control(action[g], self.continuous, KINDS[g].force) for g in KINDS]
        force = torch.cat(pushes, 1)
        bodies = torch.cat([position, physics.inside(state.landmark)], 1)
        offset = physics.offsets(position, bodies)
        apart = physics.apart_from_itself(physics.distances(offset))
        force = force + physics.contact_force(offset, apart, self.reach.to(apart.dtype))
        max_speed = self.max_speed.to(apart.dtype)
        position, velocity = physics.move(position, velocity, force, max_speed)

        chaser, good = position.split([self.params.n_adversaries, self.params.n_good], 1)
        gap = physics.distances(physics.offsets(good, chaser))
        hits = (gap < TOUCH).to(gap.dtype).sum(1)  # [n_good, n_envs]
        touches = hits.sum(0)
        away = outside_penalty(good).sum(0)
        shared = (TOUCH_REWARD * touches).unsqueeze(-1).expand(-1, self.params.n_adversaries)
        reward = {ADVERSARY: shared, GOOD: -(TOUCH_REWARD * hits + away).transpose(0, 1)}
        info = {"touches": touches, "outside": away.sum(0)}
        state = TagState(physics.outside(position), physics.outside(velocity), state.landmark)
        never = torch.zeros(touches.shape[0], dtype=torch.bool, device=touches.device)
        return Step(state, reward, never, info)

    # ------------------------------------------------------------ observation
    def observe(self, state: TagState) -> Groups:
        n_adversaries, n_good = self.params.n_adversaries, self.params.n_good
        position, velocity = physics.inside(state.position), physics.inside(state.velocity)
        obstacle = columns(physics.offsets(position, physics.inside(state.landmark)))
        other = columns(without_itself(physics.offsets(position, position)))
        common = (velocity, position, obstacle, other)
        fast = velocity[:, n_adversaries:].unsqueeze(1)  # [2, 1, n_good, n_envs]
        of_good = columns(fast.expand(-1, n_adversaries, -1, -1))
        of_others = columns(without_itself(fast.expand(-1, n_good, -1, -1)))
        of_chaser = torch.cat([*(part[:, :n_adversaries] for part in common), of_good], 0)
        of_prey = torch.cat([*(part[:, n_adversaries:] for part in common), of_others], 0)
        return {ADVERSARY: physics.outside(of_chaser), GOOD: physics.outside(of_prey)}

    def team_state(self, state: TagState) -> Tensor:
        return torch.cat([part.flatten(1) for part in state], -1)

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["touches"]

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.particle.chase import ChaseAndFlee

        return {"chase_and_flee": ChaseAndFlee(self.params, self.continuous)}

    def episode_series(self, state: TagState) -> dict[str, Tensor]:
        """Distance of every good agent to the nearest adversary."""
        sizes = [self.params.n_adversaries, self.params.n_good]
        chaser, good = physics.inside(state.position).split(sizes, 1)
        gap = physics.distances(physics.offsets(good, chaser)).amin(1)
        return {"good agent to nearest adversary [length]": gap.transpose(0, 1)}

    def render(self, state: TagState, index: int = 0) -> Any:
        from marl_td.tasks.particle.render import GREEN, GREY, RED, Discs, draw

        chaser, good = state.position[index].split([self.params.n_adversaries, self.params.n_good])
        obstacles = Discs(state.landmark[index], OBSTACLE_RADIUS, GREY, numbered=False)
        teams = [
            Discs(chaser, KINDS[ADVERSARY].radius, RED),
            Discs(good, KINDS[GOOD].radius, GREEN),
        ]
        return draw([obstacles, *teams], [])


def outside_penalty(position: Tensor) -> Tensor:
    """What leaving the area costs along each axis, for ``position`` of any shape.

    0 up to 0.9 from the middle, 10 per length up to 1, then ``exp(2 x - 2)``, at most 10.
    """
    x = position.abs()
    beyond = (2.0 * x - 2.0).exp().clamp_max(10.0)
    return torch.where(x < 1.0, 10.0 * (x - 0.9).clamp_min(0.0), beyond)
