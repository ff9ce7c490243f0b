"""Roads, and the routes over them: computed from where the lanes lie, for any size.

Traffic keeps to the right. A lane is a row or a column with a direction. A car enters at the head of a lane
and decides at each junction whether to go straight on, right or left; it turns in the cell where its lane
meets the lane that leads there.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from marl_td.tasks.base import require

Cell = tuple[int, int]
DOWN, UP, RIGHT, LEFT = (1, 0), (-1, 0), (0, 1), (0, -1)
LAYOUTS = ("easy", "medium", "hard")
N_DECISIONS = {"easy": 1, "medium": 1, "hard": 2}
"""Junctions at which a car may turn; at later ones it goes straight on."""


class Map(NamedTuple):
    """A map: its road cells, and the routes of every entry, all entries with the same number of routes."""

    size: int
    cells: list[Cell]
    """Row and column of the road cells, row by row."""
    routes: list[list[list[Cell]]]
    """Cells from the entry to the exit, ``[n_entries][n_choices][length]``."""


def check_size(layout: str, size: int) -> None:
    """Refuse sizes on which the lanes of a layout have no place.

    Raises:
        ValueError: naming what is allowed.
    """
    fits, allowed = {
        "easy": (size >= 3, "at least 3"),
        "medium": (size >= 4 and size % 2 == 0, "even and at least 4"),
        "hard": (size >= 9 and size % 3 == 0, "a multiple of 3 and at least 9"),
    }[layout]
    require(fits, f"size must be {allowed} for layout '{layout}'; got {size}.")


def lanes(layout: str, size: int) -> tuple[dict[int, Cell], dict[int, Cell]]:
    """Directions of the rows and of the columns that are lanes."""
    half, third = size // 2, size // 3
    if layout == "easy":
        return {half: RIGHT}, {half: DOWN}
    if layout == "medium":
        return {half - 1: LEFT, half: RIGHT}, {half - 1: DOWN, half: UP}
    low, high = third - 2, 2 * third
    rows = {low: LEFT, low + 1: RIGHT, high: LEFT, high + 1: RIGHT}
    columns = {low: DOWN, low + 1: UP, high: DOWN, high + 1: UP}
    return rows, columns


def build(layout: str, size: int) -> Map:
    """The map of a layout."""
    rows, columns = lanes(layout, size)
    cells = [
        (row, column)
        for row, column in itertools.product(range(size), range(size))
        if row in rows or column in columns
    ]
    heads = [((0, c), way) for c, way in columns.items() if way == DOWN]
    heads += [((r, 0), way) for r, way in rows.items() if way == RIGHT]
    heads += [((size - 1, c), way) for c, way in columns.items() if way == UP]
    heads += [((r, size - 1), way) for r, way in rows.items() if way == LEFT]
    turns = ("straight",) if layout == "easy" else ("straight", "right", "left")
    routes = []
    for head, way in heads:
        plans = itertools.product(turns, repeat=N_DECISIONS[layout])
        found = [_walk(rows, columns, size, head, way, plan) for plan in plans]
        routes.append([list(route) for route in dict.fromkeys(found)])  # plans cut short are equal
    return Map(size, cells, routes)


def turned(way: Cell, turn: str) -> Cell:
    """The direction after a turn (rows grow downwards)."""
    row, column = way
    return {"straight": way, "right": (column, -row), "left": (-column, row)}[turn]


def _walk(
    rows: dict[int, Cell],
    columns: dict[int, Cell],
    size: int,
    cell: Cell,
    way: Cell,
    plan: tuple[str, ...],
) -> tuple[Cell, ...]:
    """The cells of a car that enters at ``cell`` towards ``way`` and turns as planned."""
    route, left, goal, in_junction = [], list(plan), way, False
    while 0 <= cell[0] < size and 0 <= cell[1] < size:
        route.append(cell)
        entered = cell[0] in rows and cell[1] in columns
        if entered and not in_junction and left:
            goal = turned(way, left.pop(0))
        in_junction = entered
        crossing = rows.get(cell[0]) if way in (UP, DOWN) else columns.get(cell[1])
        if way != goal and crossing == goal:
            way = goal
        cell = (cell[0] + way[0], cell[1] + way[1])
    return tuple(route)
