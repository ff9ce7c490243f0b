"""Shortest paths in space and time among paths that are reserved already, for planners only (on the CPU).

Prioritised planners (Silver 2005, "Cooperative Pathfinding", AIIDE, pages 117-122) plan agents one after the
other: each takes a path that keeps off the cells and the steps of those before it, which a reservation table
knows, and arrives as early as that allows. It arrives when space-time A* would. But where A* takes up one
cell after the other, here all cells that an agent can be in at a time are the bits of one integer, and a
step of the search moves all of them: with walls and reservations as integers, too, that is a few operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_td.tasks.grid.distance import Array

ALL = -1
"""All bits."""
Path = list[int]
"""Cells from one time to the next, the first one is where the agent is."""


class Reservations:
    """Who is where and when, from now (time 0) on.

    A cell is a bit: ``row * width + column``, where ``width`` is one more than the map is wide, so that no
    step leads from the end of a row to the next one.

    Args:
        free: where agents can be, one bit per cell.
        width: bits per row of the map.
    """

    def __init__(self, free: int, width: int) -> None:
        self.free, self.width = free, width
        self._number = {-width: 0, width: 1, -1: 2, 1: 3}
        """The steps up, down, left and right."""
        self._rest = free
        """Cells that nobody has reserved for ever."""
        self._open = [free]
        """Cells that nobody has reserved, by time; later than that, nobody moves."""
        self._passable = [[ALL, ALL, ALL, ALL]]
        """Cells from which a step up, down, left, right can end at a time: nobody comes the other way."""

    def advance(self) -> None:
        """A step passes: what was to come at time 1 is now."""
        if len(self._open) > 1:
            del self._open[0], self._passable[0]

    def reserve(self, path: Path, rests: bool = False) -> None:
        """Keep the cells and steps of a path, which nobody else has; ``rests``: its last cell for ever."""
        for _ in range(len(path) - len(self._open)):
            self._open.append(self._rest)
            self._passable.append([ALL, ALL, ALL, ALL])
        self._switch(path)
        if rests:
            mask = ~(1 << path[-1])
            self._rest &= mask
            for number in range(len(path), len(self._open)):
                self._open[number] &= mask

    def release(self, path: Path) -> None:
        """Take back what is left of the path of somebody who does not rest."""
        self._switch(path)

    def _switch(self, path: Path) -> None:
        """Close the cells of a path and the steps against its own, or open them again."""
        before = path[0]
        for time, cell in enumerate(path):
            bit = 1 << cell
            self._open[time] ^= bit
            if cell != before:
                self._passable[time][self._number[before - cell]] ^= bit
                before = cell

    def _flood(self, here: int, begin: int, end: int, goal: int = 0) -> list[int]:
        """Where those can be at each time from ``begin`` to ``end`` who are ``here`` at ``begin``.

        It ends earlier where they can be at ``goal`` (a bit), or nowhere.
        """
        layers, width, moving = [here], self.width, len(self._open)
        for time in range(begin + 1, end + 1):
            if time < moving:
                up, down, left, right = self._passable[time]
                sides = (here & left) >> 1 | (here & right) << 1
                here |= (here & up) >> width | (here & down) << width
                here = (here | sides) & self._open[time]
            else:
                here = self.walked(here) & self._rest
            if not here:
                break
            layers.append(here)
            if here & goal:
                break
        return layers

    def walked(self, here: int) -> int:
        """Where those can be after a step who are ``here``, if only walls are in the way."""
        width = self.width
        return (here | here >> width | here << width | here >> 1 | here << 1) & self.free

    def earliest(self, start: int, goal: int, rests: bool) -> Path | None:
        """A path from ``start``, now, that is at ``goal`` as early as possible, or None if there is none.

        With ``rests`` it is there when nobody else needs the cell any more.
        """
        bit = 1 << goal
        if rests and not self._rest & bit:
            return None
        ready = 0
        if rests:
            used = (t for t in range(len(self._open) - 1, 0, -1) if not self._open[t] & bit)
            ready = next(used, -1) + 1
        layers = self._flood(1 << start, 0, ready)
        while len(layers) <= ready or not layers[-1] & bit:
            time = len(layers)
            layers += self._flood(layers[-1], time - 1, max(ready, len(self._open), time), bit)[1:]
            still = len(layers) > 1 and time >= len(self._open) and layers[-1] == layers[-2]
            if len(layers) == time or still:
                return None
        return self._traced(layers, goal, 0)

    def shortest(self, start: int, goal: int) -> int:
        """Steps from ``start`` to ``goal`` if only walls are in the way; there must be a way."""
        here, bit, steps = 1 << start, 1 << goal, 0
        while not here & bit:
            here, steps = self.walked(here), steps + 1
        return steps

    def towards(self, start: int, goal: int, length: int) -> Path:
        """A path of ``length`` steps from ``start``, now, to ``goal`` as early as possible and then anywhere.

        If the goal is farther than ``length`` steps, only walls count beyond these. If there is no path of
        that length, the result is shorter: it ends when the agent has nowhere to go.
        """
        bit, layers = 1 << goal, [1 << start]
        while len(layers) <= length:
            time = len(layers)
            layers += self._flood(layers[-1], time - 1, length, bit)[1:]
            if len(layers) == time:  # nowhere to go
                return self._traced(layers, _lowest(layers[-1]), 0)
            if layers[-1] & bit:
                rest = self._anywhere(goal, len(layers) - 1, length)
                if rest:
                    return self._traced(layers, goal, 0) + rest[1:]
        return self._traced(layers, self._nearest(layers[-1], bit), 0)

    def _anywhere(self, start: int, begin: int, end: int) -> Path:
        """A path from ``start`` at time ``begin`` to ``end``, which stays late; empty if there is none."""
        layers = self._flood(1 << start, begin, end)
        if len(layers) <= end - begin:
            return []
        cell = start if layers[-1] >> start & 1 else _lowest(layers[-1])
        return self._traced(layers, cell, begin)

    def _nearest(self, cells: int, goal: int) -> int:
        """One of ``cells`` with the shortest way to ``goal`` (a bit)."""
        here = goal
        while not here & cells:
            new = self.walked(here)
            if new == here:
                return _lowest(cells)  # there is no way at all
            here = new
        return _lowest(here & cells)

    def _traced(self, layers: list[int], cell: int, begin: int) -> Path:
        """The path through ``layers`` that ends in ``cell``; the first one is that of time ``begin``."""
        path, last = [cell], 1
        for number in range(len(layers) - 2, -1, -1):
            here = layers[number]
            if not here >> cell & 1:
                last = self._came(here, cell, begin + number + 1, last)
                cell -= last
            path.append(cell)
        path.reverse()
        return path

    def _came(self, here: int, cell: int, time: int, liked: int) -> int:
        """A step that ends in ``cell`` at a time, from one of the cells ``here``; ``liked`` if that does."""
        for step in (liked, *self._number):
            origin = cell - step
            if origin >= 0 and here >> origin & 1:
                open_ = (
                    time >= len(self._open) or self._passable[time][self._number[step]] >> origin
                )
                if open_ & 1:
                    return step
        raise AssertionError(f"nothing leads to cell {cell} at time {time}")


def _lowest(cells: int) -> int:
    """The number of the lowest bit."""
    return (cells & -cells).bit_length() - 1


def as_bits(free: Array) -> int:
    """A map ``[rows, columns]`` bool as an integer of ``rows * (columns + 1)`` bits."""
    padded: np.ndarray[Any, Any] = np.pad(free, ((0, 0), (0, 1)))
    return int.from_bytes(np.packbits(padded.ravel(), bitorder="little").tobytes(), "little")
