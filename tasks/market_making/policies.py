"""Quoting by rule: every maker reads its own inventory and the time, nobody looks at the others.

A rule gives the depth of bid and ask; discrete actions quote the level nearest to it, and as many units as
they may.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.market_making import optimum
from marl_td.tasks.market_making.params import N_LEVELS, MarketMakingParams

if TYPE_CHECKING:
    from marl_td.tasks.market_making.task import MarketMaking

GROUP = "agents"
Rule = Callable[[Tensor, Tensor], Tensor]
"""``rule(inventory, left)``: units and days left, ``[*B]`` each, to depths ``[*B, 2]`` in $; inf: none."""


def baselines(task: MarketMaking) -> dict[str, Policy]:
    """All rules by name."""
    p = task.params
    rules: dict[str, Rule] = {
        "fixed": fixed(p),
        "avellaneda_stoikov_0.1": avellaneda_stoikov(p, 0.1),
        "avellaneda_stoikov_0.01": avellaneda_stoikov(p, 0.01),
        "continuous_time": from_table(p, optimum.continuous_depths(p), task.device),
        "reservation": reservation(p),
    }
    policies: dict[str, Policy] = {name: Quoting(task, rule) for name, rule in rules.items()}
    plan = optimum.solve(p, task.continuous)
    policies["lone_optimum"] = Quoting(task, from_table(p, plan.depth, task.device), plan.size)
    return policies


class Quoting:
    """The policy that follows a rule.

    Args:
        task: the task.
        rule: the depths.
        size: units by step and inventory, ``[n_steps, 2 Q + 1]``; None quotes as many as allowed.
    """

    def __init__(self, task: MarketMaking, rule: Rule, size: Tensor | None = None) -> None:
        self.task = task
        self.rule = rule
        self.size = None if size is None else from_table(task.params, size, task.device)

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``."""
        p = self.task.params
        seen = tensordict.get((GROUP, "observation"))
        inventory = (seen[..., 0] * p.max_inventory).round()
        left = seen[..., 1] * p.max_steps * p.dt
        depth = self.rule(inventory, left)
        if self.task.continuous:
            return tensordict.set((GROUP, "action"), depth.clamp(0.0, p.max_depth))
        choice = nearest_level(depth, self.task.level_depths)
        most = p.max_inventory
        room = torch.stack([inventory < most, inventory > -most], -1)
        mask = tensordict.get((GROUP, "action_mask"))
        idle = ~mask[..., : -p.size].any(-1)  # a dead maker can only quote nothing
        choice = torch.where(room & ~idle.unsqueeze(-1), choice, N_LEVELS)
        size = torch.full_like(left, p.size) if self.size is None else self.size(inventory, left)
        nothing = (choice == N_LEVELS).all(-1)
        units = torch.where(nothing, 1, size.long())
        pair = choice[..., 0] * (N_LEVELS + 1) + choice[..., 1]
        return tensordict.set((GROUP, "action"), pair * p.size + units - 1)


def nearest_level(depth: Tensor, levels: Tensor) -> Tensor:
    """Index of the level nearest to each depth; of the last one, no quote, where the depth is inf."""
    distance = (depth.unsqueeze(-1) - levels[:-1]).abs()
    return torch.where(depth.isinf(), N_LEVELS, distance.argmin(-1))


def fixed(params: MarketMakingParams) -> Rule:
    """1 / k on both sides, where depth x exp(-k depth) is largest: nobody minds inventory."""
    return lambda inventory, left: (
        torch.full_like(inventory, 1.0 / params.decay).unsqueeze(-1).expand(*inventory.shape, 2)
    )


def avellaneda_stoikov(params: MarketMakingParams, gamma: float) -> Rule:
    """Avellaneda & Stoikov (2008), equations 3.17 and 3.18, for risk aversion ``gamma`` per $.

    Reservation price s - q gamma sigma^2 (T - t), spread gamma sigma^2 (T - t) + 2/gamma log(1 + gamma/k).
    """
    variance = gamma * params.volatility**2
    base = math.log1p(gamma / params.decay) / gamma

    def rule(inventory: Tensor, left: Tensor) -> Tensor:
        half = base + 0.5 * variance * left
        skew = inventory * variance * left
        return torch.stack([half + skew, half - skew], -1).clamp(0.0, params.max_depth)

    return rule


def reservation(params: MarketMakingParams) -> Rule:
    """Where makers who undercut one another end: a unit earns what holding it until the close costs.

    One more unit at inventory q costs (2 q + 1) (phi x time left + alpha), the push of the price, and what
    it loses in the mean to those who know the next moves.
    """
    per_fill = params.adverse + params.toxic_share * params.known_move

    def rule(inventory: Tensor, left: Tensor) -> Tensor:
        per_unit = params.inventory_penalty * left
        per_unit = per_unit + (0.0 if params.lifelong else params.closing_penalty)
        side = torch.stack([inventory, -inventory], -1)
        cost = (2.0 * side + 1.0) * per_unit.unsqueeze(-1) + per_fill
        return cost.clamp(0.0, params.max_depth)

    return rule


def from_table(params: MarketMakingParams, table: Tensor, device: torch.device) -> Rule:
    """Look up ``table`` ``[n_steps, 2 Q + 1, ...]`` by steps left and inventory."""
    table = table.to(device, torch.float32)

    def rule(inventory: Tensor, left: Tensor) -> Tensor:
        row = params.max_steps - (left / params.dt).round().long()
        row = row.clamp(
            0, params.max_steps - 1
        )  # observations of the closed market get some quote, too
        column = (inventory.long() + params.max_inventory).clamp(0, 2 * params.max_inventory)
        return table[row, column]

    return rule
