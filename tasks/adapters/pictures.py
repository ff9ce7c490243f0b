"""Pictures as observations: averaged down to a size that a small network can read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marl_td.tasks.base import require

Array = NDArray[Any]

MAX_CHANNELS = 4
"""A first dimension of at most this, before a larger last one, holds the channels."""


def is_picture(space: Any) -> bool:
    """Whether a Box holds pictures: bytes from 0 to 255, two dimensions or three."""
    shaped = space.dtype == np.uint8 and len(space.shape) in (2, 3)
    return bool(shaped and (space.low == 0).all() and (space.high == 255).all())


class Pictures:
    """Reads pictures ``[height, width]``, ``[height, width, c]`` or ``[c, height, width]`` of bytes.

    Args:
        shape: of a picture as it comes.
        size: height and width to average down to; a smaller side stays as it is.

    Attributes:
        shape: of what :meth:`read` gives, ``(height, width, c)``.
    """

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        require(size >= 1, f"image_size must be at least 1 pixel; got {size}.")
        self._channels_first = len(shape) == 3 and shape[0] <= MAX_CHANNELS < shape[-1]
        height, width, channels = self._as_last(np.empty(shape, np.uint8)).shape
        self._rows, self._columns = (
            np.linspace(0, side, min(side, size) + 1).astype(int) for side in (height, width)
        )
        self.shape = (len(self._rows) - 1, len(self._columns) - 1, channels)
        area = np.diff(self._rows)[:, None, None] * np.diff(self._columns)[None, :, None]
        self._scale = (1.0 / (255.0 * area)).astype(np.float32)

    def read(self, picture: Any) -> Array:
        """The average of each block of pixels, float32 in [0, 1]."""
        pixels = self._as_last(np.asarray(picture))
        sums = np.add.reduceat(pixels, self._rows[:-1], axis=0, dtype=np.uint32)
        sums = np.add.reduceat(sums, self._columns[:-1], axis=1)
        return (sums * self._scale).astype(np.float32)

    def _as_last(self, pixels: Array) -> Array:
        if pixels.ndim == 2:
            return pixels[..., None]
        return np.moveaxis(pixels, 0, -1) if self._channels_first else pixels
