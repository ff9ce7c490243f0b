"""Moves without collisions, of all things at once: one after the other, or all in the same moment.

Both rules are loops when written down thing by thing. Here who moves is settled for all together: what a
move needs hangs on the holder of the cell that it enters, whose move hangs on the next holder, and so on
along chains that are followed by doubling (pointer jumping), in log2(n) rounds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.grid.board import Board, look


def turns(draw: Tensor) -> Tensor:
    """A random order of n things, no two alike, from uniform draws ``[n_envs, n]``; the least is first."""
    n = draw.shape[1]
    return (draw * 2**24).long() * n + torch.arange(n, device=draw.device)


def move_in_turn(board: Board, cell: Tensor, target: Tensor, turn: Tensor, open_: Tensor) -> Tensor:
    """Where things stand after each, one after the other, has entered its target if that was free.

    The outcome is that of the loop over the things in the order of ``turn``, without the loop. Everyone moves
    at most once, so whoever wants a cell enters it if (1) its holder's turn was before and the holder left,
    and (2) nobody with a turn between the two wanted it as well. (2) takes one look; (1) hangs on holders
    with earlier turns only, so it is settled along chains without cycles, whose length every hop doubles.

    Args:
        board: the board.
        cell: where they stand, ``[n_envs, n]``, all different except for ``nowhere``.
        target: the cells they want; their own to stay.
        turn: who goes first, different integers ``[n_envs, n]``.
        open_: whether their targets can be entered, ``[n_envs, n]`` bool.

    Returns:
        The new cells, ``[n_envs, n]``.
    """
    holder = board.holders(cell, target)
    # One more column: the holder of an empty cell, who left before everyone else.
    turn_of = torch.cat([turn, torch.full_like(turn[:, :1], -1)], 1)
    wants = (target != cell) & open_ & (look(turn_of, holder) < turn)
    moves = wants & _is_first(board, target, wants, turn)
    return torch.where(_follow(moves, holder), target, cell)


def move_together(
    board: Board, cell: Tensor, target: Tensor, open_: Tensor, turn: Tensor | None = None
) -> Tensor:
    """Where things stand after all have moved in the same moment, as far as there was room.

    A thing enters the cell it wants if (1) it is open, (2) its holder does not want the thing's own
    cell in exchange, (3) nobody with an earlier turn wants it, too, and (4) its holder leaves it. Rings of
    three and more turn. With turns by index it is the rule ``soft`` of pogema.

    Args:
        board: the board.
        cell: where they stand, ``[n_envs, n]``, all different except for ``nowhere``.
        target: the cells they want; their own to stay.
        open_: whether their targets can be entered, ``[n_envs, n]`` bool.
        turn: who gets a cell that several want, different integers ``[n_envs, n]``; by index if None.

    Returns:
        The new cells, ``[n_envs, n]``.
    """
    if turn is None:
        turn = torch.arange(cell.shape[1], device=cell.device).expand_as(cell)
    wants = (target != cell) & open_
    holder = board.holders(cell, target)
    goes = torch.where(wants, target, cell)
    goes = torch.cat([goes, torch.full_like(goes[:, :1], -1)], 1)  # no holder goes nowhere
    wants = wants & (look(goes, holder) != cell)
    moves = wants & _is_first(board, target, wants, turn)
    return torch.where(_follow(moves, holder), target, cell)


def _is_first(board: Board, target: Tensor, wants: Tensor, turn: Tensor) -> Tensor:
    """Whose turn is first among those who want the same target, ``[n_envs, n]`` bool."""
    last = torch.iinfo(turn.dtype).max
    claim = torch.where(wants, turn, last)
    first = board.blank(target)
    first.scatter_(1, target, last).scatter_reduce_(1, target, claim, "amin")
    return look(first, target) == turn


def _follow(moves: Tensor, holder: Tensor) -> Tensor:
    """Who moves for certain, if a move needs that the holder of its target moves as well.

    Args:
        moves: who moves unless the holder stays, ``[n_envs, n]`` bool.
        holder: who holds the target, ``[n_envs, n]``; n where nobody does.
    """
    n = moves.shape[1]
    # One more column: the holder of an empty cell, who is out of the way.
    moves = torch.cat([moves, torch.ones_like(moves[:, :1])], 1)
    holder = torch.cat([holder, torch.full_like(holder[:, :1], n)], 1)
    for _ in range(max(1, (n - 1).bit_length())):
        moves = moves & look(moves, holder)
        holder = look(holder, holder)
    return moves[:, :n]
