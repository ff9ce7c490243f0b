"""Picture of the warehouse: shelves, stations, robots without (blue) and with a load (orange)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marl_td.tasks.grid.render import Picture, pale

if TYPE_CHECKING:
    from marl_td.tasks.warehouse.floor import WarehouseState
    from marl_td.tasks.warehouse.task import Warehouse

SHELF, STATION = (181, 157, 129), (206, 232, 211)
EMPTY, LOADED, STUCK = (42, 120, 181), (224, 126, 30), (190, 36, 48)


def draw(task: Warehouse, state: WarehouseState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [height, width, 3]``.

    A thread leads from every robot to where it has to go, up to 60 robots; those that have been under way
    for longer than any way takes have a red ring.
    """
    board, floor = task.board, task.floor
    free = (~floor.wall[board.inside]).reshape(board.shape)
    picture = Picture(free.cpu().numpy(), SHELF)
    cells, goals = state.cell[index], floor.goals[floor.goal(state)[index]]
    places, ends, stations = (
        torch.stack(board.place(at), -1).tolist()
        for at in (cells, goals, floor.goals[floor.n_picks :])
    )
    for place in stations:
        picture.tile(place, STATION, 0.05)
    here, loaded = (cells != board.nowhere).tolist(), state.loaded[index].tolist()
    late = (state.waited[index] > sum(board.shape)).tolist()
    if len(here) <= 60:
        for place, end, on_floor, full in zip(places, ends, here, loaded, strict=True):
            if on_floor:
                picture.thread(place, end, pale(LOADED if full else EMPTY))
                picture.ring(end, pale(LOADED if full else EMPTY))
    for place, on_floor, full, stuck in zip(places, here, loaded, late, strict=True):
        if on_floor:
            picture.robot(place, LOADED if full else EMPTY)
            if stuck:
                picture.ring(place, STUCK)
    full = sum(a and b for a, b in zip(here, loaded, strict=True))
    late_ones = sum(a and b for a, b in zip(here, late, strict=True))
    picture.title(f"{full} of {sum(here)} robots loaded, {late_ones} stuck")
    return picture.pixels()
