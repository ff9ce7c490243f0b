"""The chain's cost if all demand were known in advance: one linear programme per path of demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marl_td.tasks.retail.dynamics import RetailState

if TYPE_CHECKING:
    from marl_td.tasks.retail.task import Retail


def hindsight(task: Retail, n_paths: int = 16, seed: int = 0) -> Tensor:
    """Least cost per period in hindsight, ``[n_paths]``, in $, for random starts and demand paths.

    Its mean bounds the expected score of every policy from below, in both transfer modes (the programme
    may move units before and after demand, and split them), without fixed order costs.
    """
    generator = torch.Generator(task.device).manual_seed(seed)
    state = task.reset(n_paths, task.draw_reset(n_paths, generator))
    start, demand = state, []
    idle = torch.zeros((n_paths, task.n_agents, 2) if task.continuous else (n_paths, task.n_agents))
    idle = idle.to(task.device, torch.float32 if task.continuous else torch.long)
    for _ in range(task.params.max_steps):
        state, flow = task.flow(state, idle, task.draw_step(n_paths, generator))
        demand.append(flow.demand)
    paths = torch.stack(demand, 1)
    costs = [path_cost(task, start, paths[i], i) for i in range(n_paths)]
    return torch.tensor(costs, dtype=torch.float64) / task.params.max_steps


def path_cost(task: Retail, start: RetailState, demand: Tensor, index: int = 0) -> float:
    """Least cost in $ of serving ``demand`` ``[n_periods, n_agents]``, starting as ``start`` at ``index``.

    Variables for every period t and site i: order q, sales s, leftover x, units given g and got r, all at
    least 0, with ``x[t-1] + q[t-L] + r - g - s - x[t] = 0`` and ``sum of g = sum of r``.

    Raises:
        RuntimeError: if the solver finds no solution.
    """
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import bmat, eye, kron

    p = task.params
    n_periods, n_agents = demand.shape
    size = n_periods * n_agents
    unit, across = eye(size), kron(eye(n_periods), np.ones((1, n_agents)))
    delivery = kron(eye(n_periods, k=-p.lead_time), eye(n_agents))
    earlier = kron(eye(n_periods, k=-1), eye(n_agents))
    balance = [delivery, -unit, earlier - unit, -unit, unit]
    rows = bmat([balance, [None, None, None, across, -across]], format="csr")
    arriving = np.zeros((n_periods, n_agents))
    slots = min(p.lead_time, n_periods)
    arriving[:slots] = start.pipeline[index].T[:slots].cpu().numpy()
    arriving[0] += start.stock[index].cpu().numpy()
    wanted = demand.cpu().numpy().astype(float).ravel()
    half = p.transfer_cost / 2
    cost = np.repeat([0.0, -p.lost_cost, p.holding_cost, half, half], size)
    ceiling = np.concatenate([np.full(size, p.max_order), wanted, np.full(3 * size, np.inf)])
    right = np.concatenate([-arriving.ravel(), np.zeros(n_periods)])
    found = linprog(
        cost, A_eq=rows, b_eq=right, bounds=np.stack([np.zeros_like(ceiling), ceiling], 1)
    )
    if not found.success:
        raise RuntimeError(f"the hindsight linear programme was not solved: {found.message}")
    return float(found.fun) + p.lost_cost * float(wanted.sum())
