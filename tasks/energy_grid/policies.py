"""Classical dispatch as policies: a rule gives each generator a target, and it moves there within its ramp.

What is left to the true net load is closed by automatic generation control (``agc``). Batteries, where there
are some, level the net load first, and the rules dispatch what they leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.energy_grid import storage
from marl_td.tasks.energy_grid.dispatch import economic_dispatch, merit_order
from marl_td.tasks.energy_grid.network import draw_grid
from marl_td.tasks.energy_grid.reference import mean_net_load
from marl_td.tasks.energy_grid.sensing import NEED

if TYPE_CHECKING:
    from marl_td.tasks.energy_grid.task import EnergyGrid

GROUP, STORAGE = "agents", "storage"
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
    if task.params.n_storage == 0:
        return {name: Dispatching(task, rule) for name, rule in rules.items()}
    params, price = task.params, task.reference.day_price.double().cpu()
    day = mean_net_load(draw_grid(params)).sum(-1)
    level = storage.levels(params, day, price)
    found: dict[str, Policy] = {
        name: Dispatching(task, rule, level) for name, rule in rules.items()
    }
    return found | {"economic_dispatch_ramp_idle_storage": Dispatching(task, within_ramps)}


class Dispatching:
    """The policy that moves every generator towards a rule's target; it sees all generators at once.

    Args:
        task: the grid.
        rule: of the generators.
        level: net loads in MW below which batteries fill and above which they empty
            (:func:`marl_td.tasks.energy_grid.storage.levels`), or None: they rest.
    """

    def __init__(
        self, task: EnergyGrid, rule: Rule, level: tuple[float, float] | None = None
    ) -> None:
        self.task = task
        self.rule = rule
        self.level = level

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")``."""
        grid = self.task.grid
        seen = tensordict.get((GROUP, "observation"))
        power = tensordict.get((GROUP, "info", "power")).squeeze(-1)
        demand = seen[..., 0, NEED] * grid.ramp.sum() + power.sum(-1)
        if self.task.params.n_storage > 0:
            demand = self._store(tensordict, demand)
        target = self.rule(power, demand, power > 0.0)
        return self._write(tensordict, GROUP, (target - power) / grid.ramp)

    def _store(self, tensordict: TensorDictBase, demand: Tensor) -> Tensor:
        """Write the batteries' action; returns the net load that it leaves to the generators."""
        params = self.task.params
        before = tensordict.get((STORAGE, "info", "power")).squeeze(-1)
        demand = demand + before.sum(-1)
        charge = tensordict.get((STORAGE, "info", "charge")).squeeze(-1)
        share = torch.zeros_like(before)
        if self.level is not None:
            share = storage.level_load(params, self.level, demand, charge)
        self._write(tensordict, STORAGE, share)
        chosen = self.task.share(tensordict.get((STORAGE, "action")))
        return demand - storage.wanted(params, storage.window(params, charge), chosen).sum(-1)

    def _write(self, tensordict: TensorDictBase, group: str, share: Tensor) -> TensorDictBase:
        """Write the action that is nearest to ``share``, and available."""
        share = share.clamp(-1.0, 1.0)
        if self.task.continuous:
            return tensordict.set((group, "action"), share.unsqueeze(-1))
        distance = (share.unsqueeze(-1) - self.task.moves).abs()
        mask = tensordict.get((group, "action_mask"))
        return tensordict.set((group, "action"), distance.masked_fill(~mask, torch.inf).argmin(-1))
