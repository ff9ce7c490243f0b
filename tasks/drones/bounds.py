"""What no policy can beat: how fast drones pass over cells, and how many cells one sees at once.

A cell that a drone has seen on a way of length ``w`` lies, with its whole area, within ``sensing_radius``
+ half a cell's diagonal of the way: ``n`` drones have seen an area of at most ``n (pi r^2 + 2 r w)``,
r being that sum. All other cells are older. In the limit of small cells and footprints, the mean age is then
at least half the sweep time.
"""

from __future__ import annotations

import math

import numpy as np

from marl_td.tasks.base import Optimum
from marl_td.tasks.drones.cover import greedy_cover, kmeans_cover
from marl_td.tasks.drones.params import DronesParams


def most_cells(params: DronesParams) -> int:
    """Most cells that a drone can see at once.

    The most points of a lattice in a disc. A disc that holds as many can be moved until one of them is on
    its edge, and turned about that one until a second is: all discs with two points on the edge are tried.
    """
    radius = params.sensing_radius / params.cell
    reach = math.ceil(2.0 * radius) + 1
    way = np.arange(-reach, reach + 1)
    points = np.stack(np.meshgrid(way, way), -1).reshape(-1, 2).astype(float)
    length = np.hypot(*points.T)
    second = points[(length > 0.0) & (length <= 2.0 * radius)]
    half = second / 2.0
    height = np.sqrt(np.maximum(radius**2 - (half**2).sum(-1), 0.0))
    normal = np.stack([-second[:, 1], second[:, 0]], -1) / np.hypot(*second.T)[:, None]
    centres = np.concatenate([half + normal * height[:, None], half - normal * height[:, None]])
    distance = np.hypot(*(points[None] - centres[:, None]).transpose(2, 0, 1))
    counts = (distance <= radius + 1e-9).sum(1)
    return int(counts.max(initial=1))


def mean_age_bound(params: DronesParams) -> float:
    """No policy has a lower mean age over an episode, in s."""
    p = params
    radius = p.sensing_radius + p.cell / math.sqrt(2.0)
    steps = np.arange(p.max_steps)
    way = p.max_speed * p.step_time * steps
    tube = (math.pi * radius**2 + 2.0 * radius * way) / p.cell**2
    seen = np.minimum(np.floor(tube), most_cells(p) * (steps + 1))  # per drone, in so many steps
    unseen = np.maximum(1.0 - p.n_agents * seen / p.n_cells**2, 0.0)
    # the mean age after t steps is at least step_time * sum of unseen[:t], for ages are at most t steps
    return float(p.step_time * np.cumsum(unseen).mean())


def bound(params: DronesParams) -> Optimum:
    """The bound of the mode's score."""
    p = params
    if p.mode == "observation":
        return Optimum(100.0, "upper", "all targets in sight at every step")
    if p.mode == "coverage":
        most, frame = most_cells(p), (p.n_agents, p.side, p.n_cells, p.sensing_radius)
        share = min(p.n_agents * most / p.n_cells**2, 1.0)
        how = (
            f"no disc of sight holds more than {most} cells; drones that hover see "
            f"{greedy_cover(*frame):.2%} if placed greedily, {kmeans_cover(*frame):.2%} by k-means"
        )
        return Optimum(100.0 * share, "upper", how)
    how = (
        "on their way drones pass over a strip of limited area, and all else is older; half the sweep "
        f"time is {p.sweep_time / 2:.4g} s"
    )
    return Optimum(mean_age_bound(p), "lower", how)
