"""Good agents keep near a goal that an adversary would like to find, and hide from it which one it is.

Description:
    ``simple_adversary`` of the multi-particle environments (Lowe et al. 2017,
    https://arxiv.org/abs/1706.02275), equal step by step to ``mpe2.simple_adversary_v3``: one of ``n_good``
    landmarks is the goal. Good agents know it and are rewarded if one of them is near it and the adversary is
    far; the adversary, who sees where everybody is, is rewarded for being near. Nothing collides.

Groups: ``adversary`` (one) and ``agent`` (``n_good``).

Action space: continuous, ``Box(5)`` in [0, 1]: nothing, left, right, down, up; or discrete: one of these.

Observation space (per agent, float32, in this order; nobody sees velocities or its own position):

    =================================  =====================  ================
    entry                              width                  unit
    =================================  =====================  ================
    goal, as seen from here            2, good agents only    length, x and y
    landmarks, as seen from here       2 ``n_good``           length, x and y
    other agents, adversary first      2 ``n_good``           length, x and y
    =================================  =====================  ================

Global state: positions and velocities (adversary first), landmarks, marks of the goal (1 there, else 0),
    ``[4 + 7 n_good]``.
Reward: a good agent gets the adversary's distance from the goal minus that of the nearest good agent; the
    adversary minus its distance.
Start: agents and landmarks uniform in ``[-1, 1]^2``, at rest; each landmark is the goal equally often.
End: never terminates; ``max_steps`` truncates.
Score: return of a good agent.
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
from marl_td.tasks.particle import goals, physics
from marl_td.tasks.particle.views import columns, without_itself

ADVERSARY, GOOD = "adversary", "agent"
RADIUS = 0.15
"""Radius of an agent, for pictures."""


@dataclass
class AdversaryParams(TaskParams):
    """Parameters of ``simple_adversary``."""

    n_good: int = 2
    """Number of good agents, and of landmarks (N), at least 1."""
    max_steps: int = 25
    """Time limit in steps of 0.1 s; reaching it truncates the episode, it never terminates it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n_good >= 1, f"n_good must be at least 1; got {self.n_good}.")


class AdversaryState(NamedTuple):
    """Agents, the adversary first, landmarks and goal; in memory environments come last."""

    position: Tensor
    """``[n_envs, 1 + n_good, 2]``."""
    velocity: Tensor
    """Likewise."""
    landmark: Tensor
    """``[n_envs, n_good, 2]``."""
    goal: Tensor
    """1 at the goal, else 0, ``[n_envs, n_good]``."""


class SimpleAdversary(Task[AdversaryParams, AdversaryState]):
    """See the module's docstring."""

    name = "simple_adversary"
    Params: ClassVar[type[TaskParams]] = AdversaryParams
    terminates = False
    unit = "return of a good agent"
    info_keys: ClassVar[tuple[str, ...]] = ("agent_distance", "adversary_distance")

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        n = self.params.n_good
        move = physics.push_action(self.continuous)
        return {ADVERSARY: GroupSpec(1, 4 * n, move), GOOD: GroupSpec(n, 2 + 4 * n, move)}

    @property
    def d_state(self) -> int:
        return 4 + 7 * self.params.n_good

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``position`` and ``landmark``, shaped as in the state, in [0, 1); ``goal`` ``[n_envs]``."""
        n = self.params.n_good
        places = physics.draw_uniform(n_envs, generator, position=1 + n, landmark=n)
        return {**places, "goal": goals.draw_goal(n_envs, n, generator)}

    def reset(self, n_envs: int, noise: Noise) -> AdversaryState:
        position, landmark = (2.0 * noise[name] - 1.0 for name in ("position", "landmark"))
        goal = goals.marked(noise["goal"], landmark)
        return AdversaryState(position, torch.zeros_like(position), landmark, goal)

    def step(self, state: AdversaryState, action: Groups, noise: Noise) -> Step[AdversaryState]:
        position, velocity = physics.inside(state.position), physics.inside(state.velocity)
        force = torch.cat(
            [physics.control(action[g], self.continuous) for g in (ADVERSARY, GOOD)], 1
        )
        position, velocity = physics.move(position, velocity, force)

        far = self._goal_distance(position, state)
        theirs, ours = far[0], far[1:].amin(0)
        reward = {
            ADVERSARY: -theirs.unsqueeze(-1),
            GOOD: (theirs - ours).unsqueeze(-1).expand(-1, self.params.n_good),
        }
        info = {"agent_distance": ours, "adversary_distance": theirs}
        state = state._replace(
            position=physics.outside(position), velocity=physics.outside(velocity)
        )
        never = torch.zeros(ours.shape[0], dtype=torch.bool, device=ours.device)
        return Step(state, reward, never, info)

    def _goal_distance(self, position: Tensor, state: AdversaryState) -> Tensor:
        """Of every agent ``[1 + n_good, n_envs]``, for ``position`` ``[2, 1 + n_good, n_envs]``."""
        way = position - goals.place_of(state.goal, state.landmark)
        return way.square().sum(0).sqrt()

    # ------------------------------------------------------------ observation
    def observe(self, state: AdversaryState) -> Groups:
        position = physics.inside(state.position)
        landmark = columns(physics.offsets(position, physics.inside(state.landmark)))
        other = columns(without_itself(physics.offsets(position, position)))
        goal = goals.place_of(state.goal, state.landmark) - position
        of_adversary = torch.cat([part[:, :1] for part in (landmark, other)], 0)
        of_good = torch.cat([part[:, 1:] for part in (goal, landmark, other)], 0)
        return {ADVERSARY: physics.outside(of_adversary), GOOD: physics.outside(of_good)}

    def team_state(self, state: AdversaryState) -> Tensor:
        return torch.cat([part.flatten(1) for part in state], -1)

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["adversary_distance"] - totals["agent_distance"]

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.particle.decoys import DecoysAndGuess

        return {"decoys_and_guess": DecoysAndGuess(self.params, self.continuous)}

    def episode_series(self, state: AdversaryState) -> dict[str, Tensor]:
        """Distance from the goal."""
        far = self._goal_distance(physics.inside(state.position), state)
        ours = torch.stack([far[0], far[1:].amin(0)], -1)
        return {"adversary and nearest good agent to goal [length]": ours}

    def render(self, state: AdversaryState, index: int = 0) -> Any:
        from marl_td.tasks.particle.render import BLUE, GREEN, GREY, RED, Discs, Marks, draw

        adversary, good = state.position[index].split([1, self.params.n_good])
        is_goal = state.goal[index] > 0.5
        marks = [
            Marks(state.landmark[index][~is_goal], GREY),
            Marks(state.landmark[index][is_goal], GREEN),
        ]
        return draw([Discs(adversary, RADIUS, RED), Discs(good, RADIUS, BLUE)], marks)
