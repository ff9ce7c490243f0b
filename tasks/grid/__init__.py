"""What tasks on a board of cells share: the board, moves without collisions, distances."""

from marl_td.tasks.grid.board import MOVE_NAMES, Board, look
from marl_td.tasks.grid.moves import move_in_turn, move_together, turns

__all__ = ["MOVE_NAMES", "Board", "look", "move_in_turn", "move_together", "turns"]
