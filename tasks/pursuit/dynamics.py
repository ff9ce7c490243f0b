"""What happens on the board in a step: who catches what, and where prey go."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.grid import Board, look, move_in_turn

CATCHERS = 2
"""Agents that a capture takes."""


class Caught(NamedTuple):
    """Outcome of the catches of a step: per prey ``captured`` and ``lone``, per agent ``gone``."""

    captured: Tensor
    """Prey that enough agents caught together, ``[n_envs, n_prey]`` bool."""
    lone: Tensor
    """Prey at which too few caught, ``[n_envs, n_prey]`` bool."""
    gone: Tensor
    """Agents that leave the board with a prey, ``[n_envs, n_agents]`` bool."""


def catch(board: Board, agent: Tensor, prey: Tensor, catching: Tensor, turn: Tensor) -> Caught:
    """Judge the prey one after the other, in the order of ``turn``.

    A prey is captured if two or more agents beside it catch who have not left with an earlier prey; they all
    leave with it. Whether a prey is captured hangs on earlier prey only: repeating the judgement of all at
    once settles at least one more prey each time, and so all of them in ``n_prey`` rounds.

    Args:
        board: the board.
        agent: cells of the agents, ``[n_envs, n_agents]``.
        prey: cells of the prey, ``[n_envs, n_prey]``.
        catching: agents that catch, ``[n_envs, n_agents]`` bool.
        turn: different integers, at least 0, ``[n_envs, n_prey]``.
    """
    n_prey = prey.shape[1]
    never = torch.iinfo(turn.dtype).max
    beside_prey = board.holders(agent, board.around(prey))  # [n_envs, n_prey, 4] agents
    beside_agent = board.holders(prey, board.around(agent))  # [n_envs, n_agents, 4] prey
    on_board = prey != board.nowhere
    ready = torch.where(catching, never, -1)  # the turn until which an agent can still catch
    captured = torch.zeros_like(on_board)
    for _ in range(n_prey):
        leaves = _widened(torch.where(captured, turn, never), never)
        until = functools.reduce(torch.minimum, look(leaves, beside_agent).unbind(-1), ready)
        count = (look(_widened(until, -1), beside_prey) >= turn.unsqueeze(-1)).sum(-1)
        captured = on_board & (count >= CATCHERS)
    lone = on_board & (count > 0) & ~captured
    gone = catching & (look(_widened(captured, False), beside_agent).any(-1))
    return Caught(captured, lone, gone)


def walk(
    board: Board, agent: Tensor, prey: Tensor, turn: Tensor, way: Tensor, stays: Tensor
) -> Tensor:
    """Cells of the prey after each took a random step to a free cell beside it.

    Every prey chooses among the cells that are free before any of them moves; of those that chose the same
    cell the first in the order of ``turn`` enters it and the others stay.

    Args:
        board: the board.
        agent: cells of the agents, ``[n_envs, n_agents]``.
        prey: cells of the prey, ``[n_envs, n_prey]``.
        turn: different integers, ``[n_envs, n_prey]``.
        way: uniform in [0, 1), which of the free cells, ``[n_envs, n_prey]``.
        stays: prey that do not move, ``[n_envs, n_prey]`` bool.
    """
    beside = board.around(prey)
    crowd = torch.cat([agent, prey], 1)
    free = ~board.wall[beside] & (board.holders(crowd, beside) == crowd.shape[1])
    number = free.sum(-1)
    choice = torch.minimum((way * number).long(), number - 1)  # -1 where no cell is free
    chosen = free & (free.long().cumsum(-1) - 1 == choice.unsqueeze(-1))
    target = torch.where(chosen, beside, 0).sum(-1)
    target = torch.where((number > 0) & ~stays, target, prey)
    return move_in_turn(board, prey, target, turn, torch.ones_like(stays))


def _widened(values: Tensor, last: int | bool) -> Tensor:
    """``values`` ``[n_envs, n]`` with one more column, for nobody."""
    return torch.cat([values, torch.full_like(values[:, :1], last)], 1)
