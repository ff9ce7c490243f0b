"""The best parameters of the classical policies, found by simulating the task itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.retail.demand import phase_rates
from marl_td.tasks.retail.dynamics import site_costs
from marl_td.tasks.retail.policies import StockPolicy

if TYPE_CHECKING:
    from marl_td.tasks.retail.task import Retail

SCREEN_PATHS, FINAL_PATHS, N_FINALISTS = 12, 96, 16
"""Episodes per candidate in the first and the second round of a search, and how many get to the second."""


def baselines(task: Retail) -> dict[str, Policy]:
    """The classical policies by name; found once per process and parameter setting.

    ``base_stock``: best order-up-to level of every site, no transfers (the newsvendor's level at lead
    time 0). ``s_S``: best reorder point and level, no transfers, where orders have a fixed cost.
    ``transfers``: best static policy with transfers of :func:`transfer_candidates`.
    """
    key = repr((task.params, task.continuous, task.device))
    if key not in _FOUND:
        found = {"base_stock": best_base_stock(task)}
        gap = None
        if task.params.order_cost > 0:
            found["s_S"] = best_reorder_point(task)
            gap = found["s_S"].gap
        if task.n_agents > 1:
            found["transfers"] = best_transfers(task, gap)
        _FOUND[key] = found
    return dict(_FOUND[key])


_FOUND: dict[str, dict[str, StockPolicy]] = {}


def simulate(policy: StockPolicy, n_paths: int, seed: int = 0, burn_in: int = 0) -> Tensor:
    """Cost per period of every site in whole episodes, ``[n_candidates, n_paths, n_agents]``, in $.

    The parameters of ``policy`` have a leading ``[n_candidates]``; every candidate plays the same
    ``n_paths`` episodes. The first ``burn_in`` periods do not count.
    """
    task = policy.task
    n_candidates = policy.level.shape[0]
    wide = map_parameters(policy, lambda parameter: parameter.repeat_interleave(n_paths, 0))
    generator = torch.Generator(task.device).manual_seed(seed)
    n_envs = n_candidates * n_paths
    noise = task.draw_reset(n_paths, generator)
    state = task.reset(n_envs, {k: _repeat(v, n_candidates) for k, v in noise.items()})
    total = torch.zeros((n_envs, task.n_agents), device=task.device)
    for period in range(task.params.max_steps):
        noise = task.draw_step(n_paths, generator)
        action = wide.act(task.observe(state)["agents"])
        state, flow = task.flow(
            state, action, {k: _repeat(v, n_candidates) for k, v in noise.items()}
        )
        if period >= burn_in:
            total = total + sum(site_costs(task.params, flow).values())
    return total.reshape(n_candidates, n_paths, -1) / (task.params.max_steps - burn_in)


def best_base_stock(task: Retail) -> StockPolicy:
    """The best base-stock policy without transfers (sites do not interact, so each picks its own)."""
    level = level_candidates(task, 0.0, 6.0)
    return _best_per_site(StockPolicy(task, level))


def best_reorder_point(task: Retail) -> StockPolicy:
    """The best (s, S) policy without transfers, S - s in steps of 2 units."""
    level = level_candidates(task, 0.0, 12.0)
    gap = torch.arange(1.0, task.level_scale, 2.0, device=task.device)
    i, j = _product(len(level), len(gap))
    gaps = gap[j].unsqueeze(-1).expand(-1, task.n_agents)
    return _best_per_site(StockPolicy(task, level[i], gaps))


def best_transfers(task: Retail, gap: Tensor | None = None) -> StockPolicy:
    """The best static policy with transfers in the grid of :func:`transfer_candidates`."""
    found = transfer_candidates(task, gap)
    order = simulate(found, SCREEN_PATHS).mean(1).sum(-1).argsort()[:N_FINALISTS]
    finalists = map_parameters(found, lambda parameter: parameter[order])
    best = simulate(finalists, FINAL_PATHS, seed=1).mean(1).sum(-1).argmin()
    return map_parameters(finalists, lambda parameter: parameter[best])


def level_candidates(task: Retail, low: float, high: float) -> Tensor:
    """Order-up-to levels ``[n_candidates, n_phases, n_agents]``: m + k sqrt(m), k from ``low`` to ``high``.

    m is the mean demand of the ``lead_time + 1`` periods that an order must last for. Levels are rounded
    to what an action can express and the capacity admits.
    """
    rates = phase_rates(task.params).to(task.device, torch.float32)
    mean = sum((rates.roll(-j, 0) for j in range(1, task.params.lead_time + 1)), rates)
    k = torch.arange(low, high + 0.01, 0.05, device=task.device).reshape(-1, 1, 1)
    levels = task.order_levels().to(task.device)
    levels = levels[levels <= task.params.capacity]
    wanted = mean + k * mean.sqrt()
    return levels[(wanted.unsqueeze(-1) - levels).abs().argmin(-1)].unique(dim=0)


def transfer_candidates(task: Retail, gap: Tensor | None = None) -> StockPolicy:
    """A grid of policies with transfers; ``gap`` ``[n_agents]`` is S - s where orders have a fixed cost.

    Mode ``"action"``: request below lambda + a sqrt(lambda), offer above that plus 0, 1 or 3 units.
    """
    if task.params.transfer_mode == "reactive":
        level = level_candidates(task, -2.0, 3.0 if gap is None else 12.0)
        return StockPolicy(task, level, _like(gap, level), lend=True)
    level = level_candidates(task, 0.5, 3.5 if gap is None else 12.0)
    a = torch.arange(0.0, 2.8, 0.45, device=task.device).unsqueeze(-1)
    below = (task.rates + a * task.rates.sqrt()).round()
    wider = torch.tensor([0.0, 1.0, 3.0], device=task.device)
    i, j, k = _product(len(level), len(below), len(wider))
    above = below[j] + wider[k].unsqueeze(-1)
    return StockPolicy(task, level[i], _like(gap, level[i]), below[j], above)


def _best_per_site(policy: StockPolicy) -> StockPolicy:
    """From every candidate's cost of every site, the best one for each site (alike for alike sites)."""
    rates = policy.task.rates
    alike = (rates.unsqueeze(-1) == rates).to(rates.dtype)
    for seed, (n_keep, n_paths) in enumerate(((N_FINALISTS, SCREEN_PATHS), (1, FINAL_PATHS))):
        cost = simulate(policy, n_paths, seed).mean(1) @ (alike / alike.sum(0))
        keep = cost.argsort(0)[:n_keep]
        gap = None if policy.gap is None else policy.gap.take_along_dim(keep, 0)
        level = policy.level.take_along_dim(keep.unsqueeze(1), 0)
        policy = replace(policy, level=level, gap=gap)
    return map_parameters(policy, lambda parameter: parameter[0])


def map_parameters(policy: StockPolicy, change: Callable[[Tensor], Tensor]) -> StockPolicy:
    """``policy`` with ``change`` applied to every parameter it has."""
    return StockPolicy(
        policy.task,
        change(policy.level),
        None if policy.gap is None else change(policy.gap),
        None if policy.request_below is None else change(policy.request_below),
        None if policy.offer_above is None else change(policy.offer_above),
        policy.lend,
    )


def _like(gap: Tensor | None, level: Tensor) -> Tensor | None:
    return None if gap is None else gap.expand(len(level), -1)


def _product(*sizes: int) -> tuple[Tensor, ...]:
    """Indices of the Cartesian product of ``range(size)``, one tensor per size."""
    return torch.cartesian_prod(*[torch.arange(size) for size in sizes]).unbind(-1)


def _repeat(noise: Tensor, n_candidates: int) -> Tensor:
    return noise.repeat(n_candidates, *[1] * (noise.ndim - 1))
