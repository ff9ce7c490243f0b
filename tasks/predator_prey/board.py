"""The board as tables over its open cells: where each move leads, how far cells are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_td.tasks.grid.distance import components
from marl_td.tasks.predator_prey.params import PredatorPreyParams

MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Row and column by which the moves stay, up, down, left, right lead away."""
N_MOVES = len(MOVES)


@dataclass(frozen=True)
class Board:
    """Tables over the ``n`` open cells, in reading order."""

    open: Tensor
    """Bool ``[grid_size, grid_size]``."""
    place: Tensor
    """Row and column of every open cell, int64 ``[n, 2]``."""
    after: Tensor
    """Where every prey action leads, int64 ``[n, n_prey_actions]``; a blocked move stays."""
    near: Tensor
    """Bool ``[n, n]``: whether a predator in the row's cell is near enough to a prey in the column's."""
    square: Tensor
    """Squared Euclidean distance of the cells, int64 ``[n, n]``."""

    @property
    def n_cells(self) -> int:
        """Number of open cells."""
        return int(self.place.shape[0])

    @property
    def next(self) -> Tensor:
        """Where every predator move leads, int64 ``[n, 5]``."""
        return self.after[:, :N_MOVES]


def build(params: PredatorPreyParams, device: torch.device | str = "cpu") -> Board:
    """The board of these parameters.

    In mode ``fast_prey`` the prey's actions are pairs of moves, ``5 * first + second``; the first five are
    "stay, then move", so that they are the predators' moves as well.
    """
    free = _free(params)
    rows, columns = np.nonzero(free)
    number = np.full(free.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    ahead = np.empty((len(rows), N_MOVES), dtype=np.int64)
    for move, (down, right) in enumerate(MOVES):
        row = (rows + down).clip(0, params.grid_size - 1)
        column = (columns + right).clip(0, params.grid_size - 1)
        target = number[row, column]
        ahead[:, move] = np.where(target < 0, np.arange(len(rows)), target)
    if params.mode == "fast_prey":
        ahead = ahead[ahead].reshape(len(rows), N_MOVES * N_MOVES)
    place = torch.from_numpy(np.stack([rows, columns], -1)).to(device)
    square = (place.unsqueeze(1) - place.unsqueeze(0)).square().sum(-1)
    near = square <= params.capture_distance**2 + 1e-9
    return Board(
        torch.from_numpy(free).to(device), place, torch.from_numpy(ahead).to(device), near, square
    )


def _free(params: PredatorPreyParams) -> NDArray[np.bool_]:
    """Open cells; in mode ``obstacles`` cells are closed one by one where that cuts nobody off."""
    free = np.ones((params.grid_size, params.grid_size), dtype=bool)
    if params.mode != "obstacles":
        return free
    left = round(params.obstacle_share * free.size)
    for cell in np.random.default_rng(params.obstacle_seed).permutation(free.size):
        if left == 0:
            break
        free.flat[cell] = False
        labels = components(free)
        if len(np.unique(labels[free.ravel()])) == 1:
            left -= 1
        else:
            free.flat[cell] = True
    return free
