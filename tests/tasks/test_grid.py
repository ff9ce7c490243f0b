"""Boards: geometry, moves beside the loops that they stand for, distances, and planned steps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.tasks.grid import Board, look, move_in_turn, move_together, turns
from marl_td.tasks.grid.distance import FAR, components, distance_fields, read_maps
from marl_td.tasks.grid.pibt import pibt


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
    cell, target, turn, closed = parts
    found = move_in_turn(board, cell, target, turn, ~look(closed, target))
    for row, *given_ in zip(found.tolist(), *[part.tolist() for part in parts], strict=True):
        assert row == moved_one_by_one(*given_)
        assert len(set(row)) == n


def row_of_four(turn):
    """Four things in a row of a 5 x 5 board all want to the right; who moved."""
    board = Board(5, sight=1)
    cell = board.inside[:4].unsqueeze(0)
    target = cell + 1
    new = move_in_turn(board, cell, target, torch.tensor([turn]), ~board.wall[target])
    return (new != cell)[0].tolist()


def test_a_chain_follows_its_leader_as_far_as_the_turns_allow():
    assert row_of_four([3, 2, 1, 0]) == [True, True, True, True]
    assert row_of_four([0, 1, 2, 3]) == [False, False, False, True]
    assert row_of_four([0, 3, 2, 1]) == [False, True, True, True]


def test_two_cannot_swap_and_the_first_of_two_gets_the_cell():
    board = Board(3, sight=1)
    cell = board.inside[[0, 1]].unsqueeze(0)
    turn = torch.tensor([[0, 1]])
    assert torch.equal(move_in_turn(board, cell, cell.flip(1), turn, ~board.wall[cell]), cell)
    cell = board.inside[[0, 2]].unsqueeze(0)
    target = board.inside[[1, 1]].unsqueeze(0)
    assert move_in_turn(board, cell, target, turn, ~board.wall[target]).tolist() == [
        [target[0, 0], cell[0, 1]]
    ]
    turn = torch.tensor([[1, 0]])
    assert move_in_turn(board, cell, target, turn, ~board.wall[target]).tolist() == [
        [cell[0, 0], target[0, 1]]
    ]


def test_turns_are_different_even_for_equal_draws():
    draw = torch.tensor([[0.5, 0.25, 0.5, 0.0]])
    assert turns(draw).argsort(1).tolist() == [[3, 1, 0, 2]]


def moved_together(cell, target, turn, closed):
    """The rule robot by robot: refuse one move after the other until those left can all be made."""
    n = len(cell)
    goes = {i for i in range(n) if target[i] != cell[i] and not closed[target[i]]}
    holder = {c: i for i, c in enumerate(cell)}
    swaps = {
        i for i in goes if holder.get(target[i]) in goes and target[holder[target[i]]] == cell[i]
    }
    goes -= swaps
    for c in {target[i] for i in goes}:
        rivals = sorted((i for i in goes if target[i] == c), key=lambda i: turn[i])
        goes -= set(rivals[1:])
    while True:
        stuck = {i for i in goes if target[i] in holder and holder[target[i]] not in goes}
        if not stuck:
            return [target[i] if i in goes else cell[i] for i in range(n)]
        goes -= stuck


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    share=st.floats(0.1, 1.0),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_moving_together_is_the_sequential_rule_and_nobody_collides(rows, columns, share, seed):
    board = Board((rows, columns), sight=1)
    n = max(1, int(share * rows * columns))
    parts = crowd(board, 16, n, torch.Generator().manual_seed(seed))
    cell, target, turn, closed = parts
    open_ = ~look(closed, target)
    found = move_together(board, cell, target, open_, turn)
    for row, *given_ in zip(found.tolist(), *[part.tolist() for part in parts], strict=True):
        assert row == moved_together(*given_)
        assert len(set(row)) == n  # nobody overlaps, no two claims on one cell
        before = given_[0]
        moves = {(a, b) for a, b in zip(before, row, strict=True) if a != b}
        assert not any((b, a) in moves for a, b in moves)  # no swap
    by_index = torch.arange(n).expand_as(cell)
    assert torch.equal(
        move_together(board, cell, target, open_),
        move_together(board, cell, target, open_, by_index),
    )


def test_rings_turn_chains_follow_and_pairs_do_not_swap():
    board = Board(3, sight=1)
    ring = board.inside[[0, 1, 4, 3]].unsqueeze(0)
    turned = ring.roll(-1, 1)
    assert torch.equal(move_together(board, ring, turned, ~board.wall[turned]), turned)
    row = board.inside[[0, 1]].unsqueeze(0)
    assert torch.equal(move_together(board, row, row + 1, ~board.wall[row + 1]), row + 1)
    assert torch.equal(move_together(board, row, row.flip(1), ~board.wall[row]), row)
    row = board.inside[[1, 2]].unsqueeze(0)  # the first in the chain runs into the wall
    assert torch.equal(move_together(board, row, row + 1, ~board.wall[row + 1]), row)
    rivals = board.inside[[0, 2]].unsqueeze(0)
    middle = board.inside[[1, 1]].unsqueeze(0)
    for turn, winner in (([0, 1], 0), ([1, 0], 1)):
        new = move_together(board, rivals, middle, ~board.wall[middle], torch.tensor([turn]))
        assert (new == middle)[0].tolist() == [winner == 0, winner == 1]


def test_a_chain_of_a_thousand_is_followed_to_its_end():
    board = Board((1, 1001), sight=1)
    chain = board.inside[:1000].unsqueeze(0)
    open_ = torch.ones_like(chain, dtype=torch.bool)
    assert torch.equal(move_together(board, chain, chain + 1, open_), chain + 1)
    open_[0, -1] = False
    assert torch.equal(move_together(board, chain, chain + 1, open_), chain)


@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_distances_are_those_of_a_search_from_every_goal(rows, columns, seed):
    free = np.random.default_rng(seed).random((rows, columns)) < 0.7
    free[0, 0] = True
    goals = np.flatnonzero(free)
    found = distance_fields(free, goals)
    part = components(free)
    for goal, field in zip(goals, found, strict=True):
        expected, queue = {goal: 0}, [goal]
        for at in queue:
            row, column = divmod(at, columns)
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                place = row + down, column + right
                if 0 <= place[0] < rows and 0 <= place[1] < columns and free[place]:
                    number = place[0] * columns + place[1]
                    if number not in expected:
                        expected[number] = expected[at] + 1
                        queue.append(number)
        assert field.tolist() == [expected.get(cell, FAR) for cell in range(rows * columns)]
        assert np.flatnonzero(part == part[goal]).tolist() == sorted(expected)


def test_maps_are_read_and_bad_ones_refused():
    assert read_maps("..# .#.").tolist() == [[[True, True, False], [True, False, True]]]
    assert read_maps("..\n.# / ## #.").shape == (2, 2, 2)
    for text in ("..\n.", ".x", "", ".. / .. .."):
        with pytest.raises(ValueError, match=r"maps are rows of '\.' and '#', all of one size"):
            read_maps(text)


@given(size=st.integers(2, 5), share=st.floats(0.1, 1.0), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_planned_steps_are_all_carried_out_and_the_first_gets_its_way(size, share, seed):
    board = Board(size, sight=1)
    n = max(1, int(share * size * size))
    generator = torch.Generator().manual_seed(seed)
    cell = crowd(board, 8, n, generator)[0]
    beside = torch.cat([cell.unsqueeze(-1), board.around(cell)], -1)
    cost = torch.rand(beside.shape, generator=generator) + FAR * board.wall[beside]
    priority = torch.rand(cell.shape, generator=generator)
    action = pibt(cell, beside, cost, priority, FAR)
    target = beside.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    new = move_together(board, cell, target, ~board.wall[target])
    assert torch.equal(new, target)
    first = priority.argmax(-1, keepdim=True)
    if (
        n < size * size
    ):  # on a grid with a free cell whoever chooses first can always be made room for
        liked = cost.argmin(-1)
        assert torch.equal(action.gather(1, first), liked.gather(1, first))


@pytest.mark.parametrize(("size", "sight"), [(1, 1), (3, 2), (10, 4)])
def test_nobody_sees_or_reaches_nowhere(size, sight):
    board = Board(size, sight)
    assert (~board.wall).nonzero().flatten().tolist() == board.inside.tolist()
    row, column = board.place(board.inside)
    assert torch.equal(row * size + column, torch.arange(size * size))
    assert torch.equal(board.number(board.inside), torch.arange(size * size))
    seen = (board.inside.unsqueeze(-1) + board.window).flatten()
    assert seen.min() >= 0 and board.nowhere not in seen.tolist()
    from_nowhere = board.nowhere + board.window
    assert from_nowhere.max() < board.n_cells and board.wall[from_nowhere].all()


@pytest.mark.parametrize("size", [(2, 5), (3, 3)])
def test_without_its_margin_a_table_has_the_cells_inside(size):
    board = Board(size, sight=2)
    table = torch.arange(3 * board.n_cells).view(3, board.n_cells)
    assert torch.equal(board.without_margin(table), table[:, board.inside])
    assert torch.equal(board.without_margin(table[1]), table[1, board.inside])


def test_holders_and_taken_know_who_stands_where():
    board = Board(3, sight=1)
    cell = torch.tensor([[board.inside[4].item(), board.nowhere]])
    assert board.holders(cell, cell).tolist() == [[0, 2]]
    everywhere = torch.arange(board.n_cells).unsqueeze(0)
    held = board.holders(cell, everywhere)
    assert (held < 2).sum() == 1 and torch.equal(board.taken(cell), (held < 2).to(torch.int8))
    assert board.holders(cell, board.around(cell)).eq(2).all()


@pytest.mark.parametrize(("size", "sight"), [(1, 1), ((3, 5), 2)])
def test_a_view_is_the_window_around_a_cell(size, sight):
    board = Board(size, sight)
    table = torch.arange(2 * board.n_cells).view(2, -1)
    for cell in (board.inside.expand(2, -1), torch.full((2, 1), board.nowhere)):
        wanted = table.gather(1, (cell.unsqueeze(-1) + board.window).flatten(1)).view(
            *cell.shape, -1
        )
        assert torch.equal(board.view(table, cell).flatten(2), wanted)
        assert torch.equal(board.view(table[:1], cell)[0], board.view(table, cell)[0])
        same = torch.ones(2, dtype=torch.long)
        assert torch.equal(board.view(table, cell, same)[0], board.view(table, cell)[1])
