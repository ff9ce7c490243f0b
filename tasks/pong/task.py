"""Pong of two sides, of one or two paddles each.

Description:
    A ball flies in a court of 1 x 1 between walls below and above and a goal line on the left and on the
    right, each defended by the paddles of a side. A paddle that meets the ball with its middle sends it
    back straight, one that meets it with its end at ``max_angle``; every hit makes it faster. At first a
    player who waits in the middle reaches every ball, later (``safe_hits``) not any more: rallies end, and a
    good player places paddles so that the other side cannot reach the ball.

Groups: ``left`` and ``right``, of ``n_agents / 2`` players each, all on their own goal line.
Action space: continuous, one number in [-1, 1] (clipped), the way in the step over ``paddle_speed``, upwards
    positive; or discrete, 0 stay, 1 up, 2 down. Masked only where agents can be dead: those can only stay.

Observation space (per agent, float32), mirrored so that every player sees itself on the left:

    ============  ==========================  =======================================================
    columns       width                       content
    ============  ==========================  =======================================================
    own height    1                           -1 (bottom) to 1 (top)
    ball          2                           x and y, -1 to 1; own goal line at x = -1
    velocity      2                           way in a step over ``serve_speed``; towards oneself x < 0
    team          ``n_side - 1``              heights of the team's other players, by index
    opponents     ``n_side``                  heights of the other side, by index
    points        2, only if ``points`` > 1   own and the other side's points over ``points``
    ============  ==========================  =======================================================

    A player that is dead, or whose message is lost (``message_dropout``), is seen in the middle (0).
Global state: the same seen by the left, ``[6 + 2 n_agents]``: ball (4), points of left and right (2),
    heights of left and right, and who is alive (1) or dead (0).
Reward: versus: 1 to every player of a side for a point, -1 to those of the other side (zero-sum). Coop: 1 to
    everybody for every hit, nothing for a miss.
Step: paddles move, then the ball flies; see :func:`~marl_td.tasks.pong.court.fly`.
Start: paddles spread evenly; the ball in the middle, to a random side, at a random angle up to ``max_angle``.
    After a point it is served anew and paddles stay where they are.
End: terminated when a side has ``points`` points; truncated after ``max_steps``.
Info: ``left_points``, ``right_points`` and ``hits``, per step.
"""

from __future__ import annotations

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
from marl_td.tasks.failures import alive_agents, dead_count
from marl_td.tasks.pong import court
from marl_td.tasks.pong.params import PongParams, most_hits

GROUPS = ("left", "right")
STAY, UP, DOWN = range(3)


class PongState(NamedTuple):
    """All float32 but ``alive`` and ``heard``."""

    position: Tensor
    """Ball, x and y, ``[n_envs, 2]``."""
    velocity: Tensor
    """Its way in a step, ``[n_envs, 2]``."""
    paddle: Tensor
    """Heights, ``[n_envs, 2, n_side]``, left and right."""
    points: Tensor
    """Of left and right, ``[n_envs, 2]``; in coop the misses of the other side."""
    hits: Tensor
    """Since the serve, ``[n_envs]``."""
    alive: Tensor
    """Players that are, ``[n_envs, 2, n_side]`` bool."""
    heard: Tensor
    """Messages that arrive, ``[n_envs, n_agents, n_agents]`` bool: receiver, sender."""


class Pong(Task[PongParams, PongState]):
    """See the module's docstring."""

    name = "pong"
    Params: ClassVar[type[TaskParams]] = PongParams
    unit = "points"
    info_keys = ("left_points", "right_points", "hits")
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"half_length": 0.15, "max_angle": 30.0},
        "medium": {},
        "hard": {"n_agents": 4, "paddle_speed": 0.01},
    }

    def __init__(
        self, params: PongParams, continuous: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        self.n_dead = dead_count(params.dead_agents, params.n_side)
        """Dead players of each side."""
        self.ways = torch.tensor([0.0, 1.0, -1.0], device=self.device)
        """Share of ``paddle_speed`` of each discrete action."""
        self.mirror = torch.tensor([[1.0], [-1.0]], device=self.device)
        """Sign of x as each side sees it, ``[2, 1]``."""
        others = [[j for j in range(params.n_side) if j != i] for i in range(params.n_side)]
        self.others = torch.tensor(others, dtype=torch.long, device=self.device)
        """The other players of a side, ``[n_side, n_side - 1]``."""

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        box = Box((-1.0,), (1.0,), ("way up [paddle_speed]",))
        action = box if self.continuous else Discrete(3, ("stay", "up", "down"))
        d_obs = 5 + (p.n_side - 1) + p.n_side + 2 * (p.points > 1)
        mortal = p.dead_agents > 0.0
        spec = GroupSpec(
            p.n_side, d_obs, action, masked=mortal and not self.continuous, mortal=mortal
        )
        return dict.fromkeys(GROUPS, spec)

    @property
    def d_state(self) -> int:
        return 6 + 2 * self.params.n_agents

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): a serve, who is dead ``[n_envs, 2, n_side]``, lost messages."""
        draws = self._uniform(n_envs, self.params.n_agents, generator)
        alive = draws.view(n_envs, 2, self.params.n_side)
        return {"alive": alive, **self.draw_step(n_envs, generator)}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``side`` and ``slope`` of a serve, ``[n_envs]``, and ``lost``."""
        n = self.params.n_agents
        serve = self._uniform(n_envs, 2, generator)
        noise = {"side": serve[:, 0], "slope": serve[:, 1]}
        if self.params.message_dropout > 0.0:
            noise["lost"] = self._uniform(n_envs, n * n, generator).view(n_envs, n, n)
        return noise

    def _uniform(self, n_envs: int, width: int, generator: torch.Generator) -> Tensor:
        return torch.empty((n_envs, width), device=self.device).uniform_(generator=generator)

    def _heard(self, n_envs: int, noise: Noise) -> Tensor:
        n = self.params.n_agents
        if self.params.message_dropout > 0.0:
            return noise["lost"] >= self.params.message_dropout
        return torch.ones((n_envs, n, n), dtype=torch.bool, device=self.device)

    def reset(self, n_envs: int, noise: Noise) -> PongState:
        p = self.params
        position, velocity = court.serve(p, noise["side"], noise["slope"])
        home = (torch.arange(p.n_side, device=self.device) + 0.5) / p.n_side
        return PongState(
            position=position,
            velocity=velocity,
            paddle=home.expand(n_envs, 2, p.n_side).clone(),
            points=torch.zeros((n_envs, 2), device=self.device),
            hits=torch.zeros(n_envs, device=self.device),
            alive=alive_agents(noise["alive"], self.n_dead),
            heard=self._heard(n_envs, noise),
        )

    def step(self, state: PongState, action: Groups, noise: Noise) -> Step[PongState]:
        p = self.params
        chosen = torch.stack([action[group] for group in GROUPS], 1)  # [n_envs, 2, n_side(, 1)]
        way = chosen.squeeze(-1).clamp(-1.0, 1.0) if self.continuous else self.ways[chosen]
        moved = (state.paddle + p.paddle_speed * way).clamp(p.half_length, 1.0 - p.half_length)
        paddle = torch.where(state.alive, moved, state.paddle)

        flight = court.fly(p, state.position, state.velocity, state.hits, paddle, state.alive)
        scored = flight.missed.flip(-1).float()  # the point is the other side's
        points = state.points + scored
        over = (points >= p.points).any(-1)
        anew = flight.missed.any(-1) & ~over
        served = court.serve(p, noise["side"], noise["slope"])
        position, velocity = (
            torch.where(anew.unsqueeze(-1), fresh, flown)
            for fresh, flown in zip(served, flight[:2], strict=True)
        )
        hit = flight.hit.float()
        hits = torch.where(anew, 0.0, state.hits + hit)
        heard = self._heard(position.shape[0], noise)
        new = PongState(position, velocity, paddle, points, hits, state.alive, heard)

        gain = scored - scored.flip(-1) if p.mode == "versus" else hit.unsqueeze(-1).expand(-1, 2)
        reward = {
            group: gain[:, side, None].expand(-1, p.n_side) for side, group in enumerate(GROUPS)
        }
        info = {"left_points": scored[:, 0], "right_points": scored[:, 1], "hits": hit}
        return Step(new, reward, over, info)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: PongState) -> Groups:
        p = self.params
        ball = (2.0 * state.position - 1.0).unsqueeze(1)  # [n_envs, 1, 2]
        speed = (state.velocity / p.serve_speed).unsqueeze(1)
        across = (ball[..., :1] * self.mirror, speed[..., :1] * self.mirror)
        up = (ball[..., 1:].expand(-1, 2, -1), speed[..., 1:].expand(-1, 2, -1))
        seen = torch.cat([across[0], up[0], across[1], up[1]], -1)  # [n_envs, 2, 4]
        height = 2.0 * state.paddle - 1.0
        told = (height * state.alive).flatten(1).unsqueeze(1) * state.heard
        told = told.unflatten(2, (2, p.n_side)).unflatten(1, (2, p.n_side))
        parts = []
        for side in (court.LEFT, court.RIGHT):
            own, opponents = told[:, side, :, side], told[:, side, :, 1 - side]
            team = own.gather(-1, self.others.expand(own.shape[0], -1, -1))
            columns = [height[:, side, :, None], _each(seen[:, side], p.n_side), team, opponents]
            if p.points > 1:
                score = state.points if side == court.LEFT else state.points.flip(-1)
                columns.append(_each(score / p.points, p.n_side))
            parts.append(torch.cat(columns, -1))
        return dict(zip(GROUPS, parts, strict=True))

    def team_state(self, state: PongState) -> Tensor:
        p = self.params
        parts = [
            2.0 * state.position - 1.0,
            state.velocity / p.serve_speed,
            state.points / p.points,
            (2.0 * state.paddle - 1.0).flatten(1),
            state.alive.flatten(1).float(),
        ]
        return torch.cat(parts, -1)

    def action_mask(self, state: PongState) -> Groups:
        if self.continuous or self.params.dead_agents == 0.0:
            return {}
        stay = torch.ones_like(state.alive)
        mask = torch.stack([stay, state.alive, state.alive], -1)
        return {group: mask[:, side] for side, group in enumerate(GROUPS)}

    def alive(self, state: PongState) -> Groups:
        if self.params.dead_agents == 0.0:
            return {}
        return {group: state.alive[:, side] for side, group in enumerate(GROUPS)}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """Versus: points of the left less those of the right. Coop: hits, which are points for both."""
        if self.params.mode == "coop":
            return totals["hits"]
        return totals["left_points"] - totals["right_points"]

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.pong.policies import baselines

        return baselines(self.params, self.continuous)

    def optimum(self) -> Optimum:
        """Versus: the value of the game. Coop: the hits of the fastest rally."""
        if self.params.mode == "coop":
            how = "a ball that flies straight from line to line and is never missed"
            return Optimum(float(most_hits(self.params)), "upper", how)
        how = (
            "the value of a zero-sum game that is its own mirror image; how good a policy is shows "
            "against opponents (benchmarks/best_response.py)"
        )
        return Optimum(0.0, "exact", how)

    def episode_series(self, state: PongState) -> dict[str, Tensor]:
        return {
            "height of ball, left and right paddles": torch.cat(
                [state.position[:, 1:], state.paddle.flatten(1)], -1
            )
        }

    def render(self, state: PongState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.pong.render import draw

        return draw(self.params, state, index)


def _each(value: Tensor, n_side: int) -> Tensor:
    """``value`` ``[n_envs, d]`` for every player of a side, ``[n_envs, n_side, d]``."""
    return value.unsqueeze(1).expand(-1, n_side, -1)
