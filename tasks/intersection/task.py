"""Vehicles cross a junction of four roads without signals, each controlling its speed.

Description:
    ``n_agents`` vehicles arrive at random on four approaches with one lane each and follow fixed paths
    (right, straight or left): 12 movements, of which 28 pairs cross or merge. Each agent is one vehicle and
    chooses its acceleration. All share the cost of all delays. With the ``shield`` (default) an action after
    which a collision could follow is replaced by full braking, so that collisions are impossible and only the
    order and the timing are left to learn.

Action space: discrete: 0 brake (``-braking``), 1 keep the speed, 2 accelerate; or continuous, one
    acceleration in m/s2 in [``-braking``, ``acceleration``]. Mask: with the shield, what it lets pass unless
    another vehicle commits at the same time; braking always; only braking for vehicles not on the road.
    With ``messages`` a second part says "request" or, if not, "yield": discrete 3 to 5 are 0 to 2 with a
    request; continuous, a second entry in [0, 1], above 0.5 a request. It changes nothing but what others
    see in the next step.

Observation space (per agent, float32), zeros for vehicles that are not on the road:

    ============  ================  ==================================================================
    columns       width             content
    ============  ================  ==================================================================
    own           5                 distance to the line / ``approach``, speed / ``max_speed``, last
                                    acceleration / ``braking``, committed, 1
    turn          3                 right, straight, left, one-hot
    ahead         3                 vehicle ahead in the lane: there, gap / ``approach``, speed
    held          1                 a committed vehicle is in the way
    others        n_seen x 11       conflicting vehicles, those nearest to the end of the conflict first:
                                    there, distance to the line, speed, committed, nearer to the line
                                    than oneself, approach (from the left, opposite, from the right),
                                    turn one-hot
    request       1 + n_seen        with ``messages``, at the end of own columns and of each other's: said
                                    "request" in the last step
    ============  ================  ==================================================================

Global state: time / time limit, and per vehicle: position / ``approach``, speed / ``max_speed``,
    acceleration / ``braking``, committed, on the road, has left, works, waits before the road, movement
    one-hot (zeros until it arrives); with ``messages`` its request.
Reward (the team's, the same for every agent), mean over the vehicles: ``-dt`` for each that has arrived and
    not left, ``-jerk_weight`` per m/s2 of change of its acceleration. A collision costs ``collision_penalty``
    and, for every vehicle, the time that it will wait until the time limit: the junction stays blocked.
Step: vehicles whose time has come appear (:func:`~marl_td.tasks.intersection.dynamics.appear`); accelerations
    act for ``dt``; whoever is past the end of its path has left; collisions are judged.
End: terminated when all have left, or by a collision; truncated after ``max_steps``.
Dead agents: their vehicles accelerate whatever comes, as far as the shield lets them. Lost messages: another
    vehicle is missing in what an agent sees, with its request (the shield does not depend on it). Dead
    agents request nothing.
Info, per step: ``delay`` (vehicle-seconds lost against driving at ``max_speed``, with the blocked time),
    ``collisions`` (vehicles), ``left`` (vehicles), ``overridden`` (actions replaced by the shield); of every
    agent its ``position``: x, y (m) and heading (rad), and ``motion``: s, v, a.
"""

from __future__ import annotations

from typing import Any, ClassVar

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
from marl_td.tasks.failures import alive_agents, dead_count
from marl_td.tasks.intersection import dynamics, sensing
from marl_td.tasks.intersection.dynamics import IntersectionState
from marl_td.tasks.intersection.params import GROUP, TURNS, IntersectionParams
from marl_td.tasks.intersection.paths import SPACING, paths


class Intersection(Task[IntersectionParams, IntersectionState]):
    """See the module's docstring."""

    name = "intersection"
    Params: ClassVar[type[TaskParams]] = IntersectionParams
    unit = "s delay per vehicle"
    higher_is_better = False
    agents_return = True
    info_keys = ("delay", "collisions", "left", "overridden")
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 6, "arrival_rate": 0.4},
        "medium": {},
        "hard": {"n_agents": 20, "arrival_rate": 0.8},
    }

    def __init__(
        self,
        params: IntersectionParams,
        continuous: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(params, continuous, device)
        self.paths = paths(params.approach, self.device)
        choices = [-params.braking, 0.0, params.acceleration]
        self.choices = torch.tensor(choices, device=self.device)
        """Accelerations of the discrete actions, ``[3]``, m/s2."""
        shares = torch.tensor(params.turn_shares, device=self.device)
        self.turn_bounds = shares.cumsum(0)[:-1]

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        action = self._box() if self.continuous else self._choices()
        info = {"position": 3, "motion": 3}
        d_obs, masked = sensing.width(p), not self.continuous
        return {GROUP: GroupSpec(p.n_agents, d_obs, action, masked=masked, mortal=True, info=info)}

    def _box(self) -> Box:
        p, names = self.params, ("acceleration [m/s2]", "request")
        n = 2 if p.messages else 1
        return Box((-p.braking, 0.0)[:n], (p.acceleration, 1.0)[:n], names[:n])

    def _choices(self) -> Discrete:
        moves = ("brake", "keep", "accelerate")
        both = tuple(f"{move}, {word}" for word in ("yield", "request") for move in moves)
        return Discrete(6, both) if self.params.messages else Discrete(3, moves)

    @property
    def d_state(self) -> int:
        return sensing.state_width(self.params)

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1), ``[n_envs, n_agents]``: ``gap``, ``approach``, ``turn``, ``dead``."""
        names = ("gap", "approach", "turn", "dead")
        shape = (n_envs, len(names), self.params.n_agents)
        draw = torch.empty(shape, device=self.device).uniform_(generator=generator)
        return dict(zip(names, draw.unbind(1), strict=True))

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``lost`` ``[n_envs, n_agents, n_agents]``, or without columns."""
        shape = (n_envs, self.params.n_agents, self._n_heard)
        return {"lost": torch.empty(shape, device=self.device).uniform_(generator=generator)}

    @property
    def _n_heard(self) -> int:
        return self.params.n_agents if self.params.message_dropout > 0 else 0

    def reset(self, n_envs: int, noise: Noise) -> IntersectionState:
        p = self.params
        time = (-torch.log1p(-noise["gap"]) / p.arrival_rate).cumsum(-1)
        turn = (noise["turn"].unsqueeze(-1) >= self.turn_bounds).sum(-1)
        approach = (4.0 * noise["approach"]).long().clamp(max=3)
        zero = torch.zeros_like(time)
        no = torch.zeros_like(time, dtype=torch.bool)
        state = IntersectionState(
            s=zero,
            v=zero.clone(),
            a=zero.clone(),
            movement=approach * len(TURNS) + turn,
            comes=(time / p.dt).ceil().long(),
            active=no,
            done=no.clone(),
            committed=no.clone(),
            works=alive_agents(noise["dead"], dead_count(p.dead_agents, p.n_agents)),
            unheard=no.unsqueeze(-1).expand(-1, -1, self._n_heard).clone(),
            request=no.clone(),
            step=torch.zeros(n_envs, dtype=torch.long, device=self.device),
        )
        return dynamics.appear(p, self.paths, state, state.step)

    def wanted(self, state: IntersectionState, action: Groups) -> Tensor:
        """The accelerations that the agents ask for, ``[n_envs, n_agents]``, m/s2."""
        p, asked = self.params, action[GROUP]
        if self.continuous:
            asked = asked[..., 0].clamp(-p.braking, p.acceleration)
        else:
            asked = self.choices[asked % 3]
        return torch.where(state.works, asked, p.acceleration)

    def requested(self, state: IntersectionState, action: Groups) -> Tensor:
        """Who says "request", bool ``[n_envs, n_agents]``: working vehicles on the road only."""
        if not self.params.messages:
            return torch.zeros_like(state.active)
        said = action[GROUP][..., 1] > 0.5 if self.continuous else action[GROUP] >= 3
        return said & state.active & state.works

    def step(
        self, state: IntersectionState, action: Groups, noise: Noise
    ) -> Step[IntersectionState]:
        p = self.params
        asked = self.wanted(state, action)
        passes, committed = dynamics.guard(p, state, asked, dynamics.pairs(self.paths, state))
        a = torch.where(passes, asked, -p.braking) if p.shield else asked
        s, v = dynamics.move(p, state.s, state.v, a)
        s, v = (torch.where(state.active, new, old) for new, old in ((s, state.s), (v, state.v)))
        a = torch.where(state.active, (v - state.v) / p.dt, 0.0)
        if not p.shield:
            committed = s + dynamics.stop_distance(p, v) > p.approach - dynamics.SLACK
        out = state.active & (s >= self.paths.end[state.movement])
        new = state._replace(
            s=s,
            v=v,
            a=a,
            committed=committed & state.active,
            active=state.active & ~out,
            done=state.done | out,
            unheard=noise["lost"] < p.message_dropout,
            request=self.requested(state, action) & ~out,
            step=state.step + 1,
        )
        crashed = dynamics.collided(self.paths, new)
        return self._judged(state, new, crashed, (~passes & state.active) if p.shield else None)

    def _judged(
        self, old: IntersectionState, new: IntersectionState, crashed: Tensor, braked: Tensor | None
    ) -> Step[IntersectionState]:
        """Rewards and ends of a step; ``crashed`` vehicles overlap, ``braked`` ones were overridden."""
        p = self.params
        crash = crashed.any(-1)
        here = ~old.done & (old.comes <= old.step.unsqueeze(-1))
        left = torch.maximum(new.comes, new.step.unsqueeze(-1))
        blocked = p.dt * (p.max_steps - left).clamp(min=0) * ~new.done * crash.unsqueeze(-1)
        lost = p.dt * here + blocked
        delay = lost - (new.s - old.s) / p.max_speed
        jerk = (new.a - old.a).abs() * old.active
        reward = -(lost + p.jerk_weight * jerk).mean(-1) - p.collision_penalty * crash
        none = torch.zeros_like(reward)
        info = {
            "delay": delay.sum(-1),
            "collisions": crashed.sum(-1).float(),
            "left": (new.done & ~old.done).sum(-1).float(),
            "overridden": none if braked is None else braked.sum(-1).float(),
        }
        team = {GROUP: reward.unsqueeze(-1).expand(-1, p.n_agents)}
        over = crash | new.done.all(-1)
        return Step(dynamics.appear(p, self.paths, new, new.step), team, over, info)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: IntersectionState) -> Groups:
        return {GROUP: sensing.observe(self.params, self.paths, state)}

    def team_state(self, state: IntersectionState) -> Tensor:
        return sensing.team_state(self.params, state)

    def action_mask(self, state: IntersectionState) -> Groups:
        if self.continuous:
            return {}
        found = dynamics.pairs(self.paths, state)
        passes = []
        for a in (0.0, self.params.acceleration):
            wanted = torch.full_like(state.v, a)
            fine = dynamics.allowed(self.params, state, wanted, found)
            passes.append((fine | (not self.params.shield)) & state.active)
        mask = torch.stack([torch.ones_like(state.active), *passes], -1)
        if self.params.messages:
            mask = torch.cat([mask, mask & state.active.unsqueeze(-1)], -1)
        return {GROUP: mask}

    def alive(self, state: IntersectionState) -> Groups:
        """Vehicles on the road that follow their agent."""
        return {GROUP: state.active & state.works}

    def agent_info(self, state: IntersectionState) -> dict[str, Groups]:
        index = (state.s / SPACING).round().long().clamp(max=self.paths.points.shape[1] - 1)
        place = self.paths.points[state.movement, index]
        motion = torch.stack([state.s, state.v, state.a], -1)
        on = state.active.unsqueeze(-1)
        found = {"position": place, "motion": motion}
        return {name: {GROUP: torch.where(on, value, 0.0)} for name, value in found.items()}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """Mean delay per vehicle in s."""
        return totals["delay"] / self.params.n_agents

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.intersection.policies import baselines

        return baselines(self)

    def optimum(self) -> Optimum:
        from marl_td.tasks.intersection.optimum import optimum

        return optimum(self)

    def episode_series(self, state: IntersectionState) -> dict[str, Tensor]:
        late = ~state.active & ~state.done & (state.comes <= state.step.unsqueeze(-1))
        numbers = [state.active.sum(-1), (state.committed & state.active).sum(-1), late.sum(-1)]
        return {
            "vehicles on the road, committed, before it": torch.stack(numbers, -1).float(),
            "speed (m/s)": torch.where(state.active, state.v, 0.0),
        }

    def render(self, state: IntersectionState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.intersection.render import draw

        return draw(self, state, index)
