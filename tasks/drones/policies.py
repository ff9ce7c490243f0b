"""Classical ways to watch an area, as policies over all drones.

``greedy`` acts on each drone's own observation, ``strips`` on its place; ``lloyd`` and ``assignment`` are
central: they read the global state and where everybody is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.drones.params import BLOCKS, VIEW, DronesParams
from marl_td.tasks.drones.tours import best_tours

Rule = Callable[[DronesParams, TensorDictBase], Tensor]
"""Where each drone flies to, in m from where it is, ``[n_envs, n_agents, 2]``."""

AHEAD = 6
"""Points of a tour that a drone looks ahead."""


def strips(params: DronesParams, tensordict: TensorDictBase) -> Tensor:
    """Boustrophedon: every drone flies a closed tour of its own, see :mod:`marl_td.tasks.drones.tours`."""
    p = params
    longest = p.max_speed * p.step_time * p.max_steps / 2.0
    tours = best_tours(p.n_agents, p.side, p.sensing_radius, longest)
    place = tensordict.get(("agents", "info", "position"))
    tour = torch.tensor(tours, dtype=place.dtype, device=place.device)  # [n_agents, n_points, 2]
    x, y = (tour[..., axis] - place[..., axis].unsqueeze(-1) for axis in (0, 1))
    ahead = (x.square() + y.square()).argmin(-1) + AHEAD
    number = torch.arange(p.n_agents, device=place.device)
    return tour[number, ahead % tour.shape[1]] - place


def greedy(params: DronesParams, tensordict: TensorDictBase) -> Tensor:
    """Highest age: fly to the block of the own view that gains most, age less the time of flight.

    Blocks nearer to another drone that is seen are left to that one.
    """
    p = params
    observation = tensordict.get(("agents", "observation"))
    age = p.sweep_time * observation[..., 4 : 4 + VIEW**2]
    middle = (torch.arange(VIEW, device=age.device) - VIEW // 2 + 0.5) * p.pool * p.cell
    way = torch.cartesian_prod(middle, middle).flip(-1)  # rows from below: y first
    distance = way.norm(dim=-1)
    end = 4 + VIEW**2 + 5 * p.n_seen
    seen = observation[..., 4 + VIEW**2 : end].unflatten(-1, (p.n_seen, 5))
    other = p.comm_radius * seen[..., :2].unsqueeze(-2)  # [n_envs, n_agents, n_seen, 1, 2]
    theirs = ((way - other).norm(dim=-1) < distance) & (seen[..., 4:] > 0.5)
    gain = age - distance / p.max_speed
    gain = torch.where(theirs.any(-2), gain - p.sweep_time, gain)
    return way[gain.argmax(-1)]


def lloyd(params: DronesParams, tensordict: TensorDictBase) -> Tensor:
    """Lloyd: fly to the centroid of the blocks nearest to oneself, weighted by age squared.

    In coverage all weigh the same. It settles where nothing pulls any more: it is made to cover an area at
    once, not to patrol it.
    """
    p = params
    place = tensordict.get(("agents", "info", "position"))
    middle = (torch.arange(BLOCKS, device=place.device) + 0.5) * (p.side / BLOCKS)
    block = torch.cartesian_prod(middle, middle).flip(-1)
    weight = tensordict.get("state")[:, None, : BLOCKS**2].square()
    if p.mode == "coverage":
        weight = torch.ones_like(weight)
    way = block - place.unsqueeze(2)  # [n_envs, n_agents, 100, 2]
    distance = way.square().sum(-1)
    mine = distance == distance.amin(1, keepdim=True)
    share = weight * mine + 1e-9
    return (share.unsqueeze(-1) * way).sum(2) / share.sum(2).unsqueeze(-1)


def assignment(params: DronesParams, tensordict: TensorDictBase) -> Tensor:
    """Nearest target: the nearest pair of a free drone and a block with targets, and so on.

    A drone that is sent follows the nearest target in its sight; those left over go where it is old.
    """
    p = params
    place = tensordict.get(("agents", "info", "position"))
    middle = (torch.arange(BLOCKS, device=place.device) + 0.5) * (p.side / BLOCKS)
    block = torch.cartesian_prod(middle, middle).flip(-1)
    crowd = tensordict.get("state")[:, 2 * BLOCKS**2 :]
    way = block - place.unsqueeze(2)
    left = torch.where(crowd.unsqueeze(1) > 0.0, way.square().sum(-1), torch.inf)
    goal = greedy(params, tensordict)
    on_target = torch.zeros_like(goal[..., :1], dtype=torch.bool)
    number = torch.arange(p.n_agents, device=place.device).unsqueeze(-1)
    for _ in range(min(p.n_agents, p.n_targets)):  # one pair per round, in all environments at once
        least, pair = left.flatten(1).min(-1)
        who, which = pair[:, None, None] // BLOCKS**2, pair[:, None, None] % BLOCKS**2
        sent = (number == who) & (least < torch.inf)[:, None, None]
        there = way.gather(2, which.unsqueeze(-1).expand(-1, p.n_agents, 1, 2)).squeeze(2)
        goal, on_target = torch.where(sent, there, goal), on_target | sent
        column = torch.arange(BLOCKS**2, device=place.device)
        left = torch.where((number == who) | (column == which), torch.inf, left)
    observation = tensordict.get(("agents", "observation"))
    near = observation[..., -3 * p.n_seen :].unflatten(-1, (p.n_seen, 3))[..., 0, :]
    return torch.where((near[..., 2:] > 0.5) & on_target, p.sensing_radius * near[..., :2], goal)


@dataclass
class Pilot:
    """Flies every drone to where a rule sends it."""

    params: DronesParams
    continuous: bool
    rule: Rule

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``."""
        p = self.params
        way = self.rule(p, tensordict)
        velocity = p.max_speed * tensordict.get(("agents", "observation"))[..., :2]
        distance = way.norm(dim=-1, keepdim=True)
        braking = (2.0 * p.max_acceleration * distance).sqrt()
        speed = torch.minimum(braking, distance / p.step_time).clamp_max(p.max_speed)
        wanted = way * (speed / distance.clamp_min(1e-6))
        push = ((wanted - velocity) / p.step_time + p.drag * velocity) / p.max_acceleration
        push = push / push.norm(dim=-1, keepdim=True).clamp_min(1.0)
        action = push if self.continuous else _direction(push)
        mask = tensordict.get(("agents", "action_mask"), None)
        if mask is not None:
            action = torch.where(mask[..., 1], action, 0)
        return tensordict.set(("agents", "action"), action)


def _direction(push: Tensor) -> Tensor:
    """The discrete action nearest to an acceleration of length at most 1."""
    turn = torch.atan2(push[..., 1], push[..., 0]) / (2.0 * math.pi)
    return torch.where(
        push.norm(dim=-1) < 0.5, 0, 1 + torch.remainder((8.0 * turn).round(), 8.0).long()
    )


def baselines(params: DronesParams, continuous: bool) -> dict[str, Policy]:
    """The rules that fit the mode."""
    rules: dict[str, Rule] = {"strips": strips, "greedy": greedy, "lloyd": lloyd}
    if params.n_targets > 0:
        rules["assignment"] = assignment
    return {name: Pilot(params, continuous, rule) for name, rule in rules.items()}
