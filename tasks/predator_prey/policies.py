"""Greedy pursuit: every predator steps towards where the prey is now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import TensorDictBase

from marl_td.tasks.grid.distance import distance_fields

if TYPE_CHECKING:
    from marl_td.tasks.predator_prey.task import PredatorPrey


class Chase:
    """Take the move after which the prey, if it stayed, is nearest; the first of several.

    Args:
        task: the task; its global state is read.
        straight: near by Euclidean distance, or else by the number of steps. In Euclidean distance it pays to
            approach along the longer axis first, from where the prey has fewer ways to slip by.
    """

    def __init__(self, task: PredatorPrey, straight: bool) -> None:
        self.task = task
        board = task.board
        if straight:
            self.distance = board.square
        else:
            free = board.open.cpu().numpy()
            cells = np.flatnonzero(free)
            fields = distance_fields(free, cells)[:, cells]
            self.distance = torch.from_numpy(fields.astype(np.int64)).to(board.place.device)
        number = torch.zeros(board.open.shape, dtype=torch.long, device=board.open.device)
        number[board.place[:, 0], board.place[:, 1]] = torch.arange(
            board.n_cells, device=board.open.device
        )
        self.number = number

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the predators' action, and for a learned prey that of a flight from the nearest."""
        task, board = self.task, self.task.board
        n = task.params.n_agents
        shares = tensordict.get("state")[..., : 2 * n + 2].unflatten(-1, (n + 1, 2))
        place = (shares * (task.params.grid_size - 1)).round().long()
        cell = self.number[place[..., 0], place[..., 1]]
        predator, prey = cell[..., :n], cell[..., n]
        left = self.distance[board.next[predator], prey[..., None, None]]
        left = torch.where(tensordict.get(("predator", "action_mask")), left, left.amax() + 1)
        tensordict.set(("predator", "action"), left.argmin(-1))
        if task.learned_prey:
            after = board.after[prey]
            far = board.square[after.unsqueeze(-1), predator.unsqueeze(-2)].amin(-1)
            far = torch.where(tensordict.get(("prey", "action_mask"))[..., 0, :], far, -1)
            tensordict.set(("prey", "action"), far.argmax(-1, keepdim=True))
        return tensordict
