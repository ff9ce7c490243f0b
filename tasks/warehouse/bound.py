"""How much robots could deliver at most: as if each were alone on the floor."""

from __future__ import annotations

import functools

import numpy as np

from marl_td.tasks.base import Optimum
from marl_td.tasks.failures import dead_count
from marl_td.tasks.warehouse.layout import Layout, make_layout
from marl_td.tasks.warehouse.params import WarehouseParams


def bound(params: WarehouseParams) -> Optimum:
    """Upper bound of the deliveries per step, and the long-run one that the literature uses."""
    p = params
    each, cycle = _alone(p.layout, p.n_agents, p.density, p.shelf_length, p.max_steps)
    n = p.n_agents - dead_count(p.dead_agents, p.n_agents)
    how = (
        f"{n} robots, each as if alone: {each:.2f} deliveries expected in {p.max_steps} steps (dynamic "
        f"programme over shortest ways); {n / cycle:.4g} in the long run, a cycle takes {cycle:.2f} steps"
    )
    return Optimum(n * each / p.max_steps, "upper", how)


@functools.lru_cache(maxsize=8)
def _alone(
    layout: str, n_agents: int, density: float, shelf_length: int, max_steps: int
) -> tuple[float, float]:
    floor = make_layout(
        WarehouseParams(
            layout=layout, n_agents=n_agents, density=density, shelf_length=shelf_length
        )
    )
    return deliveries_alone(floor, max_steps), mean_cycle(floor)


def mean_cycle(floor: Layout) -> float:
    """Mean steps from a delivery to the next, on shortest ways."""
    n = len(floor.picks)
    return 2.0 * float(floor.steps[:n, floor.drops].mean())


def deliveries_alone(floor: Layout, n_steps: int) -> float:
    """Expected deliveries of a lone robot in ``n_steps`` steps, from a random cell without a load.

    With ``f_t(d)`` the deliveries expected in t steps from the station d, and ``g_t(p)`` those of a robot
    that has just picked at p: ``f_t(d) = mean_p g_{t - |dp|}(p)``, ``g_t(p) = mean_d [1 + f_{t - |pd|}(d)]``,
    where a way that takes longer than t counts 0. Who starts where it has to pick needs a step for that.
    """
    n = len(floor.picks)
    leg = floor.steps[:n, floor.drops].astype(np.int64)  # [n_picks, n_drops]
    start = np.maximum(floor.steps[:n, floor.free.ravel()].astype(np.int64), 1)
    f, g = np.zeros((n_steps + 1, leg.shape[1])), np.zeros((n_steps + 1, n))
    pick, drop = np.arange(n)[:, None], np.arange(leg.shape[1])
    for t in range(1, n_steps + 1):
        left = t - leg
        g[t] = np.where(left >= 0, 1.0 + f[left.clip(0), drop], 0.0).mean(1)
        f[t] = np.where(left >= 0, g[left.clip(0), pick], 0.0).mean(0)
    left = n_steps - start
    return float(np.where(left >= 0, g[left.clip(0), pick], 0.0).mean())
