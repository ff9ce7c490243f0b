"""Classical dispatch as policies: a rule gives each generator a target, and it moves there within its ramp.

What is left to the true net load is closed by automatic generation control (``agc``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.energy_grid.dispatch import economic_dispatch, merit_order
from marl_td.tasks.energy_grid.sensing import NEED

if TYPE_CHECKING:
    from marl_td.tasks.energy_grid.task import EnergyGrid

GROUP = "agents"
Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``rule(power, demand, alive)``: outputs ``[*B, G]`` and the net load expected ``[*B]``, to targets."""


def baselines(task: EnergyGrid) -> dict[str, Policy]:
    """All rules by name."""
    grid = task.grid

    def stay(power: Tensor, demand: Tensor, alive: Tensor) -> Tensor:
        return power

    def droop(power: Tensor, demand: Tensor, alive: Tensor) -> Tensor:
        ramp = grid.ramp * alive
        need = (demand - power.sum(-1)) / ramp.sum(-1)
        return power + need.unsqueeze(-1) * ramp

    def merit(power: Tensor, demand: Tensor, alive: Tensor) -> Tensor:
        return merit_order(grid, demand)

    def dispatch(power: Tensor, demand: Tensor, alive: Tensor) -> Tensor:
        return economic_dispatch(grid, demand, grid.least * alive, grid.most * alive)[0]

    def within_ramps(power: Tensor, demand: Tensor, alive: Tensor) -> Tensor:
        low = torch.maximum(grid.least, power - grid.ramp) * alive
        high = torch.minimum(grid.most, power + grid.ramp) * alive
        return economic_dispatch(grid, demand, low, high)[0]

    rules: dict[str, Rule] = {
        "agc_only": stay,
        "droop_agc": droop,
        "merit_order": merit,
        "economic_dispatch": dispatch,
        "economic_dispatch_ramp": within_ramps,
    }
    return {name: Dispatching(task, rule) for name, rule in rules.items()}


class Dispatching:
    """The policy that moves every generator towards a rule's target; it sees all generators at once."""

    def __init__(self, task: EnergyGrid, rule: Rule) -> None:
        self.task = task
        self.rule = rule

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``."""
        grid = self.task.grid
        seen = tensordict.get((GROUP, "observation"))
        power = tensordict.get((GROUP, "info", "power")).squeeze(-1)
        demand = seen[..., 0, NEED] * grid.ramp.sum() + power.sum(-1)
        target = self.rule(power, demand, power > 0.0)
        share = ((target - power) / grid.ramp).clamp(-1.0, 1.0)
        if self.task.continuous:
            return tensordict.set((GROUP, "action"), share.unsqueeze(-1))
        distance = (share.unsqueeze(-1) - self.task.moves).abs()
        mask = tensordict.get((GROUP, "action_mask"))
        return tensordict.set((GROUP, "action"), distance.masked_fill(~mask, torch.inf).argmin(-1))
