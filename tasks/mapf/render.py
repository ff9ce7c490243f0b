"""Picture of path finding: obstacles, agents as discs, their goals as squares of the same colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marl_td.tasks.grid.render import Picture, colours, pale

if TYPE_CHECKING:
    from marl_td.tasks.mapf.task import Mapf
    from marl_td.tasks.mapf.views import MapfState


def draw(task: Mapf, state: MapfState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [height, width, 3]``.

    A thread leads from every agent to its goal; a filled square is a goal that its agent stands on, or
    that it has left the board from.
    """
    board, tables = task.board, task.tables
    wall = tables.wall[state.map[index], board.inside].reshape(board.shape)
    picture = Picture((~wall).cpu().numpy())
    goals, places = (
        torch.stack(board.place(cells), -1).tolist()
        for cells in (board.inside[state.goal[index]], state.cell[index])
    )
    here = (state.cell[index] != board.nowhere).tolist()
    steps = task.distance(state)[index].tolist()
    shades = colours(len(here))
    for goal, place, on_board, shade in zip(goals, places, here, shades, strict=True):
        if on_board and place != goal:
            picture.thread(place, goal, pale(shade))
    for goal, far, on_board, shade in zip(goals, steps, here, shades, strict=True):
        if far == 0 and not (on_board and task.params.mode == "restart"):
            picture.tile(goal, pale(shade), 0.06)
        else:
            picture.ring(goal, shade)
    for number, (place, on_board) in enumerate(zip(places, here, strict=True)):
        if on_board:
            picture.robot(place, shades[number], str(number))
    there = sum(far == 0 for far in steps)
    left = sum(steps)
    picture.title(f"{there} of {len(here)} at their goals, {left} steps to go")
    return picture.pixels()
