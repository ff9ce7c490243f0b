"""Playing by rule. Each player acts on what it observes itself, in its own mirrored view of the court.

A rule gives the height that each player's paddle goes to. Of several players on a side each defends its
own part of the goal line, and waits in its middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.pong.court import fold
from marl_td.tasks.pong.params import PongParams

Rule = Callable[["View"], Tensor]
"""Heights that paddles go to, ``[n_envs, n_side]``."""

AIMS = 9
"""Places of a paddle between which a striker chooses."""


@dataclass
class View:
    """What the players of a side see, in units of the court; each field ``[n_envs, n_side]`` or as said."""

    params: PongParams
    own: Tensor
    """Own height."""
    x: Tensor
    """Distance of the ball to the own goal line."""
    y: Tensor
    """Its height."""
    vx: Tensor
    """Its way in a step, away from the own line positive."""
    vy: Tensor
    """Its rise in a step."""
    opponents: Tensor
    """Their heights, ``[n_envs, n_side, n_side]``."""
    home: Tensor
    """Middle of each player's part of the line, ``[n_side]``."""

    @property
    def time(self) -> Tensor:
        """Steps until an approaching ball is at the own line."""
        return self.x / (-self.vx).clamp_min(1e-6)

    def landing(self) -> Tensor:
        """Height at which an approaching ball will be at the own line."""
        return fold(self.y + self.vy * self.time)[0]

    def mine(self) -> Tensor:
        """Balls that approach one's own part of the line, bool."""
        near = (self.landing() - self.home).abs() <= 0.5 / self.params.n_side
        return (self.vx < 0.0) & near


def view_of(params: PongParams, observation: Tensor) -> View:
    """The view of a side's ``observation`` ``[n_envs, n_side, d_obs]``."""
    n = params.n_side
    height = (observation[..., :3] + 1.0) / 2.0
    velocity = observation[..., 3:5] * params.serve_speed
    opponents = (observation[..., 4 + n : 4 + 2 * n] + 1.0) / 2.0
    home = (torch.arange(n, device=observation.device) + 0.5) / n
    (own, x, y), (vx, vy) = height.unbind(-1), velocity.unbind(-1)
    return View(params, own, x, y, vx, vy, opponents, home)


def track(view: View) -> Tensor:
    """Go to the ball's height."""
    return view.y


def intercept(view: View) -> Tensor:
    """Go where the ball will arrive, walls included; otherwise wait at home."""
    return torch.where(view.mine(), view.landing(), view.home)


def strike(view: View) -> Tensor:
    """Intercept such that the ball comes back where the other side can least reach it.

    Looks one return ahead: of :data:`AIMS` places of the paddle that meet the ball it takes the one after
    which the ball arrives farthest out of the reach of the nearest opponent, who meanwhile goes home.
    """
    p = view.params
    reach = (p.paddle_speed * view.time.ceil()).unsqueeze(-1)
    arrival = view.landing().unsqueeze(-1)
    aims = torch.linspace(-0.95, 0.95, AIMS, device=arrival.device) * p.half_length
    own = view.own.unsqueeze(-1)
    place = (arrival - aims).clamp(p.half_length, 1.0 - p.half_length)
    place = torch.maximum(torch.minimum(place, own + reach), own - reach)  # [n_envs, n_side, AIMS]
    offset = arrival - place
    angle = (offset / p.half_length).clamp(-1.0, 1.0) * p.sharpest
    speed = torch.stack([view.vx, view.vy]).norm(dim=0).unsqueeze(-1) * p.speed_up
    way = p.paddle_speed / (speed.clamp_max(p.max_speed) * angle.cos())
    back = fold(arrival + angle.tan())[0].unsqueeze(-2)  # [n_envs, n_side, 1, AIMS]

    recentre = (view.home - view.opponents).clamp(-reach, reach)
    waiting = (view.opponents + recentre).unsqueeze(-1)
    margin = (back - waiting).abs().amin(-2) - way
    margin = torch.where(offset.abs() <= p.half_length, margin, -torch.inf)
    best = margin.argmax(-1, keepdim=True)
    aimed = torch.where(
        margin.amax(-1) > -torch.inf, place.gather(-1, best).squeeze(-1), view.landing()
    )
    return torch.where(view.mine(), aimed, view.home)


@dataclass
class Sides:
    """A rule for the left side and one for the right; None plays at random."""

    params: PongParams
    continuous: bool
    left: Rule | None
    right: Rule | None

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("left", "action")`` and ``("right", "action")``."""
        for group, rule in (("left", self.left), ("right", self.right)):
            observation = tensordict.get((group, "observation"))
            if rule is None:
                way = 2.0 * torch.rand_like(observation[..., 0]) - 1.0
                way = way if self.continuous else (1.5 * (way + 1.0)).floor() - 1.0
            else:
                view = view_of(self.params, observation)
                way = self._way(rule(view) - view.own)
            action = way.unsqueeze(-1) if self.continuous else torch.remainder(way, 3.0).long()
            tensordict.set((group, "action"), self._available(tensordict, group, action))
        return tensordict

    def _way(self, distance: Tensor) -> Tensor:
        """Share of a paddle's way in a step that leads over ``distance``; -1, 0 or 1 if discrete."""
        way = (distance / self.params.paddle_speed).clamp(-1.0, 1.0)
        return way if self.continuous else way.round()

    def _available(self, tensordict: TensorDictBase, group: str, action: Tensor) -> Tensor:
        mask = tensordict.get((group, "action_mask"), None)
        if mask is None:
            return action
        allowed = mask.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return torch.where(allowed, action, 0)


def baselines(params: PongParams, continuous: bool) -> dict[str, Policy]:
    """Rules on both sides and, in versus, matches of a better one on the left against a worse one."""
    rules: dict[str, Rule] = {"tracker": track, "interceptor": intercept, "striker": strike}
    found: dict[str, Policy] = {
        name: Sides(params, continuous, rule, rule) for name, rule in rules.items()
    }
    if params.mode == "versus":
        matches = [("tracker", "random"), ("striker", "tracker"), ("striker", "interceptor")]
        for left, right in matches:
            sides = Sides(params, continuous, rules[left], rules.get(right))
            found[f"{left}_vs_{right}"] = sides
    return found
