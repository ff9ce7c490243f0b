"""Hunting by rule: catch only with a partner, and otherwise wait where the prey may step beside you.

Prey walk after the agents, so who stands beside a prey will not stand there a moment later (unless it is
stuck): the place to be after one's own move is two steps away, best on a diagonal, from where two of the
prey's four ways lead beside the agent. Ties are broken at random, by torch's global generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.nn.functional import pad

from marl_td.tasks.pursuit.dynamics import CATCHERS
from marl_td.tasks.pursuit.params import PursuitParams

MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Row and column by which the actions 0 to 4 lead away."""
CATCH = 5
AMBUSH = 2
"""Distance to a prey that walks next."""
FAR = 1e6


@dataclass
class Hunter:
    """Decentralised: every agent hunts the nearest prey that it sees, or wanders where it sees none."""

    params: PursuitParams

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")`` for what the agents see."""
        agents, prey = self.views(tensordict)
        to_prey = self.nearest(prey)
        mask = tensordict.get(("agents", "action_mask"))
        return tensordict.set(("agents", "action"), act(to_prey, agents, prey, mask))

    def views(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Where each agent sees agents and prey, bool ``[n_envs, n_agents, side, side]``."""
        side = 2 * self.params.sight + 1
        planes = tensordict.get(("agents", "observation")).unflatten(-1, (-1, side, side)) > 0.5
        return planes[..., 0, :, :], planes[..., 1, :, :]

    def nearest(self, prey: Tensor) -> Tensor:
        """Row and column to the nearest prey seen, ``[n_envs, n_agents, 2]``; far away if none is."""
        way = offsets(self.params.sight, prey.device)
        distance = torch.where(prey.flatten(-2), way.abs().sum(-1).float(), FAR)
        least, index = distance.min(-1, keepdim=True)
        return torch.where(least < FAR, way[index.squeeze(-1)].float(), FAR)


@dataclass
class Pack(Hunter):
    """Centralised: pairs of agents are sent to the prey nearest to both, wherever it is."""

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``; reads everybody's place and the global state."""
        agents, prey = self.views(tensordict)
        size = self.params.grid_size
        board = tensordict.get("state").unflatten(-1, (2, size * size))[:, 1] > 0.5
        place = tensordict.get(("agents", "info", "position"))
        cell = torch.arange(size * size, device=place.device)
        goal = torch.stack([cell // size, cell % size], -1).to(place)
        to_prey = goal - place.unsqueeze(-2)  # [n_envs, n_agents, size * size, 2]
        distance = to_prey.abs().sum(-1)
        distance = torch.where(board.unsqueeze(1), distance, FAR)
        distance = torch.where(tensordict.get(("agents", "mask")).unsqueeze(-1), distance, FAR)
        chosen = pairs(distance)[..., None, None].expand(-1, -1, 1, 2)
        goal_way = to_prey.gather(-2, chosen).squeeze(-2)
        mask = tensordict.get(("agents", "action_mask"))
        return tensordict.set(("agents", "action"), act(goal_way, agents, prey, mask))


def pairs(distance: Tensor) -> Tensor:
    """The goal of every agent, ``[n_envs, n_agents]``, for ``distance`` ``[n_envs, n_agents, n_goals]``.

    The goal with the least summed distance of its two nearest agents gets these two, and so on; agents that
    are left over join the goal nearest to them.
    """
    goal = distance.argmin(-1)
    agent = torch.arange(distance.shape[1], device=goal.device)
    column = torch.arange(distance.shape[2], device=goal.device)
    left = distance
    for _ in range(
        distance.shape[1] // CATCHERS
    ):  # one pair per round, in all environments at once
        near, who = left.topk(CATCHERS, dim=1, largest=False)  # [n_envs, 2, n_goals]
        cost, best = near.sum(1).min(-1, keepdim=True)
        two = who.gather(2, best.unsqueeze(1).expand(-1, CATCHERS, -1))  # [n_envs, 2, 1]
        sent = (two == agent).any(1) & (cost < FAR)
        goal = torch.where(sent, best, goal)
        gone = sent.unsqueeze(-1) | (best == column).unsqueeze(1)
        left = torch.where(gone, FAR, left)
    return goal


def act(to_prey: Tensor, agents: Tensor, prey: Tensor, mask: Tensor) -> Tensor:
    """The action of every agent.

    Args:
        to_prey: row and column to the prey that it hunts, ``[n_envs, n_agents, 2]``.
        agents: view of agents, ``[n_envs, n_agents, side, side]`` bool.
        prey: view of prey, likewise.
        mask: available actions, ``[n_envs, n_agents, n_actions]`` bool.
    """
    moves = torch.tensor(MOVES, device=to_prey.device, dtype=to_prey.dtype)
    after = (to_prey.unsqueeze(-2) - moves).abs()  # [n_envs, n_agents, 5, 2]
    distance = after.sum(-1)
    cost = (distance - AMBUSH).abs() + 0.2 * (after.amax(-1) == distance)
    cost = torch.where(distance < FAR / 2, cost, 0.0)  # wander
    middle = agents.shape[-1] // 2
    held = (agents | prey)[..., middle - 1 : middle + 2, middle - 1 : middle + 2].flatten(-2)
    beside = [4, 1, 7, 3, 5]  # of the 3 x 3 cells around: itself, above, below, left, right
    blocked = held[..., beside].clone()
    blocked[..., 0] = False
    cost = cost + 0.1 * torch.rand_like(cost) + FAR * (blocked | ~mask[..., :CATCH])
    return torch.where(together(agents, prey) & mask[..., CATCH], CATCH, cost.argmin(-1))


def together(agents: Tensor, prey: Tensor) -> Tensor:
    """Whether an agent sees a prey beside itself that has another agent beside it, too."""
    middle = agents.shape[-1] // 2
    wide = pad(agents.long(), (1, 1, 1, 1))
    number = wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1] + wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:]
    ready = prey & (number >= CATCHERS)
    beside = [ready[..., middle + row, middle + column] for row, column in MOVES[1:]]
    return torch.stack(beside, -1).any(-1)


def offsets(sight: int, device: torch.device) -> Tensor:
    """Row and column to every cell of a view, ``[(2 * sight + 1) ** 2, 2]``."""
    near = torch.arange(-sight, sight + 1, device=device)
    return torch.cartesian_prod(near, near)
