"""Who stands on its goal and is in another one's way: PRIMAL's penalty, for all agents at once.

Sartoretti et al. 2019, https://arxiv.org/abs/1809.03531, and the authors' code: an agent that stays on its
goal blocks another one if this one's shortest way around all others is more than :data:`DETOUR` steps longer
than it would be without the agent, or if there is a way without it only.

The code searches twice for every pair. Here every agent searches once from its place and once from its goal,
with all others in the way, and that is enough: a shortest way through the cell of another one is a shortest
way to a neighbour of that cell, two steps, and a shortest way from a neighbour. A search is some sweeps
over the board, in all environments and for all agents at once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from marl_td.tasks.grid import Board

DETOUR = 10
"""Steps that a way around somebody may take more, and it is not blocked."""
LOOK = 8
"""Sweeps from one look at whether something new was reached to the next; a look costs more than a sweep."""


def blocked_by(
    board: Board, free: Tensor, cell: Tensor, goal: Tensor, stays: Tensor, reach: int
) -> Tensor:
    """How many others every agent blocks, ``[n_envs, n]`` int64.

    Args:
        board: the board; who is farther away than its views reach is not counted, as in PRIMAL.
        free: where there is no obstacle, ``[n_envs, rows * columns]`` bool.
        cell: where the agents stand, cells of the board ``[n_envs, n]``; dead ones ``nowhere``.
        goal: their goals, counted row by row ``[n_envs, n]``, all different.
        stays: who stays on its goal and so may block others, ``[n_envs, n]`` bool.
        reach: ways of more steps do not count, whoever is in them.
    """
    columns = board.shape[1]
    width, here = columns + 2, cell != board.nowhere
    row, column = board.place(cell)
    at = torch.where(here, (row + 1) * width + column + 1, 0)  # 0 is in the frame around the board
    to = torch.where(here, (goal // columns + 1) * width + goal % columns + 1, 0)
    floor = pad(free.unflatten(1, board.shape), (1, 1, 1, 1)).flatten(1)
    empty = floor & ~torch.zeros_like(floor).scatter(1, at, True)
    number = torch.arange(floor.shape[1], device=cell.device)
    own = (at.unsqueeze(-1) == number) & here.unsqueeze(-1)
    open_ = (empty.unsqueeze(1) | own).unsqueeze(2).expand(-1, -1, 2, -1).contiguous()
    ends = torch.stack([own, to.unsqueeze(-1) == number], 2) & open_
    far = count_steps(ends, open_, width, reach + DETOUR)  # [n_envs, n, 2, cells]

    now = far[:, :, 0].gather(2, to.unsqueeze(-1)).squeeze(-1).long()
    around = at.unsqueeze(-1) + torch.tensor([-width, width, -1, 1], device=cell.device)
    around = around.clamp(min=0).flatten(1)[:, None, None].expand(-1, *far.shape[1:3], -1)
    beside = far.gather(3, around).unflatten(3, (-1, 4)).amin(-1)
    without = beside.long().sum(2) + 2  # [n_envs, n, n]: of the first, without the second
    # No count is above reach + DETOUR + 1, so that a longer way without somebody is never shorter enough.
    blocks = (now.unsqueeze(2) > without + DETOUR) & here.unsqueeze(2)
    place = torch.stack([row, column], -1)
    apart = (place.unsqueeze(2) - place.unsqueeze(1)).abs().amax(-1)
    return (blocks & (apart <= board.margin)).sum(1) * stays


@torch.library.custom_op("marl_td::count_steps", mutates_args=())
def count_steps(ends: Tensor, open_: Tensor, width: int, most: int) -> Tensor:
    """Steps to every cell from ``ends``, over open cells; ``most + 1`` if it takes more than ``most``.

    It is one operation to the compiler, which would take minutes for the chain of sweeps, and run it slower.

    Args:
        ends: bool ``[*B, cells]``, cells of boards in frames of closed cells, row by row.
        open_: bool, of the same shape; ends are open.
        width: cells in a row.
        most: sweeps over the board, at least 0.
    """
    kind = torch.uint8 if most < 255 else torch.int16
    # All boards in one row: a step over the end of a row or board leads into a frame.
    reached, floor = ends.flatten().to(kind), open_.flatten().to(kind)
    steps = most + 1 - reached
    near = torch.empty_like(reached)
    for sweep in range(most):
        near.copy_(reached)
        for by in (1, width):
            near[by:] |= reached[:-by]
            near[:-by] |= reached[by:]
        near &= floor
        look = near.device.type == "cpu" and sweep % LOOK == LOOK - 1
        if look and torch.equal(near, reached):
            steps -= (most - sweep) * reached  # nothing new will come
            break
        steps -= near
        reached, near = near, reached
    return steps.reshape(ends.shape)


@count_steps.register_fake
def _(ends: Tensor, open_: Tensor, width: int, most: int) -> Tensor:
    return ends.new_empty(ends.shape, dtype=torch.uint8 if most < 255 else torch.int16)
