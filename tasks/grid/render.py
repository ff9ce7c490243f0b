"""Pictures of boards: floor and walls, places, and robots on their way, drawn with Pillow."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from marl_td.tasks.grid.distance import Array

OVERSAMPLING = 2
LONGEST = 560
"""Pixels of the longer side of a board, about."""
INK, PAPER, LINE, BLOCK = (44, 52, 64), (250, 250, 252), (228, 231, 236), (92, 100, 112)
HEADER = 30
Colour = tuple[int, int, int]


class Picture:
    """A board with a line of text above it.

    Args:
        free: the floor, ``[rows, columns]`` bool.
        block: the colour of what is not floor.
    """

    def __init__(self, free: Array, block: Colour = BLOCK) -> None:
        rows, columns = free.shape
        self.side = max(4, min(40, LONGEST // max(rows, columns)))
        """Pixels of a cell."""
        self.size = (max(columns * self.side, 340) + 20, rows * self.side + HEADER + 14)
        self._left = (self.size[0] - columns * self.side) / 2
        scaled = (self.size[0] * OVERSAMPLING, self.size[1] * OVERSAMPLING)
        self._image = Image.new("RGB", scaled, PAPER)
        self._draw = ImageDraw.Draw(self._image)
        for row in range(rows):
            for column in range(columns):
                ground = (255, 255, 255) if free[row, column] else block
                self.tile((row, column), ground, 0.0, LINE)
        corners = (*self._corner(0, 0), *self._corner(rows, columns))
        self._draw.rectangle(corners, None, INK, OVERSAMPLING)

    def _corner(self, row: float, column: float) -> tuple[float, float]:
        """Pixels, right and down, of the upper left corner of a cell."""
        across, down = self._left + column * self.side, HEADER + row * self.side
        return across * OVERSAMPLING, down * OVERSAMPLING

    def _box(self, place: tuple[int, int], inset: float) -> tuple[float, float, float, float]:
        row, column = place
        upper = self._corner(row + inset, column + inset)
        return *upper, *self._corner(row + 1 - inset, column + 1 - inset)

    def _font(self, pixels: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(max(6.0, pixels) * OVERSAMPLING)

    def title(self, text: str) -> None:
        """The line above the board."""
        at = (self.size[0] * OVERSAMPLING / 2, HEADER * OVERSAMPLING / 2)
        self._draw.text(at, text, INK, self._font(14), anchor="mm")

    def tile(
        self, place: tuple[int, int], colour: Colour, inset: float, edge: Colour | None = None
    ) -> None:
        """A square in the cell ``(row, column)``, smaller by ``inset`` of a cell on each side."""
        self._draw.rectangle(self._box(place, inset), colour, edge)

    def ring(self, place: tuple[int, int], colour: Colour) -> None:
        """A square of lines: something somebody wants to reach."""
        self._draw.rectangle(
            self._box(place, 0.14), None, colour, max(1, self.side // 8) * OVERSAMPLING
        )

    def thread(self, start: tuple[int, int], end: tuple[int, int], colour: Colour) -> None:
        """A thin line between the middles of two cells."""
        ends = [self._corner(row + 0.5, column + 0.5) for row, column in (start, end)]
        self._draw.line(ends, colour, OVERSAMPLING)

    def robot(self, place: tuple[int, int], colour: Colour, label: str = "") -> None:
        """A disc, with a label where there is room for it."""
        self._draw.ellipse(self._box(place, 0.12), colour, INK, OVERSAMPLING // 2)
        if self.side >= 16 and label:
            at = self._corner(place[0] + 0.5, place[1] + 0.5)
            self._draw.text(at, label, (255, 255, 255), self._font(0.45 * self.side), anchor="mm")

    def pixels(self) -> np.ndarray[Any, Any]:
        """The picture as ``uint8 [height, width, 3]``."""
        return np.asarray(self._image.resize(self.size, Image.Resampling.BOX))


def colours(n: int) -> list[Colour]:
    """``n`` colours as different as can be, dark enough for white text."""
    found = []
    for i in range(n):
        light = (0.36, 0.46, 0.28)[i % 3]
        parts = colorsys.hls_to_rgb(i * 0.618034 % 1.0, light, 0.6)
        found.append((round(255 * parts[0]), round(255 * parts[1]), round(255 * parts[2])))
    return found


def pale(colour: Colour) -> Colour:
    """A colour mixed with much white."""
    red, green, blue = ((255 * 2 + part) // 3 for part in colour)
    return red, green, blue
