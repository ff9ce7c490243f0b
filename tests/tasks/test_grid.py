"""Boards: geometry, and moves in turn beside the loop that they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.tasks.grid import Board, look, move_in_turn, turns


def moved_one_by_one(cell, target, turn, closed):
    """The loop: in the order of `turn`, each enters its target if nothing is there at that moment."""
    now = list(cell)
    for i in sorted(range(len(cell)), key=lambda i: turn[i]):
        if not closed[target[i]] and target[i] not in now:
            now[i] = target[i]
    return now


def crowd(board, n_envs, n, generator):
    """Random different cells, targets beside them (or themselves), turns, and some closed cells."""
    size = board.inside.numel()
    free = torch.rand((n_envs, size), generator=generator).argsort(1)
    cell = board.inside[free[:, :n]]
    steps = torch.cat([board.directions, torch.zeros(1, dtype=torch.long)])
    target = cell + steps[torch.randint(5, (n_envs, n), generator=generator)]
    closed = board.wall.expand(n_envs, -1).clone()
    if size > n:
        closed.scatter_(1, board.inside[free[:, n : n + 1]], True)
    return cell, target, turns(torch.rand((n_envs, n), generator=generator)), closed


@given(size=st.integers(1, 6), share=st.floats(0.1, 1.0), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_moves_are_those_of_the_loop(size, share, seed):
    board = Board(size, sight=1)
    n = max(1, int(share * size * size))
    parts = crowd(board, 16, n, torch.Generator().manual_seed(seed))
    found = move_in_turn(board, *parts)
    for row, *given_ in zip(found.tolist(), *[part.tolist() for part in parts], strict=True):
        assert row == moved_one_by_one(*given_)
        assert len(set(row)) == n


def row_of_four(turn):
    """Four things in a row of a 5 x 5 board all want to the right; who moved."""
    board = Board(5, sight=1)
    cell = board.inside[:4].unsqueeze(0)
    closed = board.wall.expand(1, -1)
    new = move_in_turn(board, cell, cell + 1, torch.tensor([turn]), closed)
    return (new != cell)[0].tolist()


def test_a_chain_follows_its_leader_as_far_as_the_turns_allow():
    assert row_of_four([3, 2, 1, 0]) == [True, True, True, True]
    assert row_of_four([0, 1, 2, 3]) == [False, False, False, True]
    assert row_of_four([0, 3, 2, 1]) == [False, True, True, True]


def test_two_cannot_swap_and_the_first_of_two_gets_the_cell():
    board = Board(3, sight=1)
    cell = board.inside[[0, 1]].unsqueeze(0)
    closed = board.wall.expand(1, -1)
    turn = torch.tensor([[0, 1]])
    assert torch.equal(move_in_turn(board, cell, cell.flip(1), turn, closed), cell)
    cell = board.inside[[0, 2]].unsqueeze(0)
    target = board.inside[[1, 1]].unsqueeze(0)
    assert move_in_turn(board, cell, target, turn, closed).tolist() == [[target[0, 0], cell[0, 1]]]
    turn = torch.tensor([[1, 0]])
    assert move_in_turn(board, cell, target, turn, closed).tolist() == [[cell[0, 0], target[0, 1]]]


def test_turns_are_different_even_for_equal_draws():
    draw = torch.tensor([[0.5, 0.25, 0.5, 0.0]])
    assert turns(draw).argsort(1).tolist() == [[3, 1, 0, 2]]


@pytest.mark.parametrize(("size", "sight"), [(1, 1), (3, 2), (10, 4)])
def test_nobody_sees_or_reaches_nowhere(size, sight):
    board = Board(size, sight)
    assert (~board.wall).nonzero().flatten().tolist() == board.inside.tolist()
    row, column = board.place(board.inside)
    assert torch.equal(row * size + column, torch.arange(size * size))
    seen = (board.inside.unsqueeze(-1) + board.window).flatten()
    assert seen.min() >= 0 and board.nowhere not in seen.tolist()
    from_nowhere = board.nowhere + board.window
    assert from_nowhere.max() < board.n_cells and board.wall[from_nowhere].all()


def test_holders_and_taken_know_who_stands_where():
    board = Board(3, sight=1)
    cell = torch.tensor([[board.inside[4].item(), board.nowhere]])
    held = board.holders(cell)
    assert look(held, cell).tolist() == [[0, 2]]
    assert (held < 2).sum() == 1 and torch.equal(board.taken(cell), held < 2)
    assert look(held, board.around(cell)).eq(2).all()
