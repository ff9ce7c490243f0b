"""The map as tensors, and who arrives."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.base import Noise
from marl_td.tasks.order import ranks, running_total
from marl_td.tasks.traffic_junction.maps import build
from marl_td.tasks.traffic_junction.params import TrafficJunctionParams

if TYPE_CHECKING:
    from marl_td.tasks.traffic_junction.task import TrafficState


class Tables(NamedTuple):
    """Constants of a map; road cells are counted row by row, and ``n_cells`` stands for outside."""

    path: Tensor
    """Cells of every route, ``[n_routes, longest + 1]`` int64; outside after its end."""
    length: Tensor
    """Cells of every route, ``[n_routes]`` int64."""
    entry: Tensor
    """Cell of every entry, ``[n_entries]`` int64."""
    window: Tensor
    """Cells around every cell, row by row, ``[n_cells + 1, n_view]`` int64."""
    place: Tensor
    """Row and column of every cell, ``[n_cells + 1, 2]`` int64; -1 outside."""
    n_entries: int
    n_choices: int


def tables(params: TrafficJunctionParams, device: torch.device) -> Tables:
    """The map of a parameter set as tensors."""
    road = build(params.layout, params.size)
    number = {cell: i for i, cell in enumerate(road.cells)}
    outside = len(road.cells)
    routes = [[number[cell] for cell in route] for entry in road.routes for route in entry]
    longest = max(map(len, routes))
    near = range(-params.vision, params.vision + 1)
    window = [
        [number.get((row + i, column + j), outside) for i, j in itertools.product(near, near)]
        for row, column in road.cells
    ]

    def table(values: list[list[int]]) -> Tensor:
        return torch.tensor(values, device=device)

    return Tables(
        path=table([route + [outside] * (longest + 1 - len(route)) for route in routes]),
        length=torch.tensor([len(route) for route in routes], device=device),
        entry=torch.tensor([number[entry[0][0]] for entry in road.routes], device=device),
        window=table([*window, [outside] * len(near) ** 2]),
        place=table([*(list(cell) for cell in road.cells), [-1, -1]]),
        n_entries=len(road.routes),
        n_choices=len(road.routes[0]),
    )


def arrive(
    params: TrafficJunctionParams, t: Tables, state: TrafficState, occupied: Tensor, noise: Noise
) -> TrafficState:
    """The state after cars have arrived, entry by entry, each at a random free agent.

    Args:
        params: the task's parameters.
        t: the map.
        state: after the cars have moved.
        occupied: whether a car stands on the entry, ``[n_envs, n_entries]`` bool.
        noise: the draws of the step.
    """
    comes = noise["arrive"] < params.p_arrive
    if params.safe_entry:
        comes = comes & ~occupied
    choice = (noise["choice"] * t.n_choices).long().clamp(max=t.n_choices - 1)
    route = torch.arange(t.n_entries, device=comes.device) * t.n_choices + choice
    rank = ranks(torch.where(state.driving, 2.0, noise["agent"]))  # free agents first
    number = running_total(comes.long()) - 1  # of those who come, entry by entry
    takes = (rank.unsqueeze(-1) == number.unsqueeze(-2)) & comes.unsqueeze(-2)
    enters = ~state.driving & takes.any(-1)  # takes: [n_envs, n_agents, n_entries]
    chosen = torch.where(takes, route.unsqueeze(-2), 0).sum(-1)
    return state._replace(
        route=torch.where(enters, chosen, state.route),
        place=torch.where(enters, 0, state.place),
        driving=state.driving | enters,
        wait=torch.where(enters, 0.0, state.wait),
        braked=state.braked & ~enters,
    )
