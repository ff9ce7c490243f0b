"""What path finding cannot beat: everybody on a shortest way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from marl_td.tasks.base import Optimum

if TYPE_CHECKING:
    from marl_td.tasks.mapf.task import Mapf

STARTS = 2048
"""Random starts whose shortest ways are measured."""


def bound(task: Mapf) -> Optimum:
    """Upper bound of the score: the sum of costs is at least the sum of shortest ways."""
    generator = torch.Generator(device=task.device).manual_seed(0)
    state = task.reset(STARTS, task.draw_reset(STARTS, generator))
    alive = task.alive(state)["agents"]
    total = torch.where(alive, state.way, 0).sum(-1).double()
    least = total / total  # an agent costs at least its shortest way
    error = 1.96 * total.std() / STARTS**0.5
    how = (
        "sum of shortest ways / sum of costs: without others the costs are the shortest ways, on average "
        f"{total.mean().item():.1f} +- {error.item():.1f} steps for all agents of an episode"
    )
    return Optimum(least.mean().item(), "upper", how)
