"""Paths in space and time among reserved ones: by hand, and beside a search cell by cell."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.tasks.grid.space_time import ALL, Reservations, as_bits


def table_of(layout):
    """A table of a map of letters, and how its cells are numbered: (row, column) to cell."""
    free = np.array([[letter == "." for letter in row] for row in layout.split()])
    return Reservations(as_bits(free), free.shape[1] + 1), free


def at(path, time, rests):
    """Where a path is at a time; None when it is over and does not rest."""
    return path[time] if time < len(path) else path[-1] if rests else None


def collisions(paths, rests):
    """Pairs of paths that share a cell or exchange theirs, with the time."""
    found = []
    for time in range(max(map(len, paths)) + 1):
        for i, j in itertools.combinations(range(len(paths)), 2):
            now = [at(paths[k], time, rests) for k in (i, j)]
            if None in now:
                continue
            before = [at(paths[k], max(time - 1, 0), rests) for k in (i, j)]
            if now[0] == now[1] or (now == before[::-1] and now != before):
                found.append((i, j, time))
    return found


def walkable(path, free):
    """Whether a path keeps to the map, one cell per step."""
    width = free.shape[1] + 1
    places = [divmod(cell, width) for cell in path]
    inside = all(column < free.shape[1] and free[row, column] for row, column in places)
    steps = {abs(r - a) + abs(c - b) for (r, c), (a, b) in itertools.pairwise(places)}
    return inside and steps <= {0, 1}


def arrival_cell_by_cell(free, others, start, goal, rests):
    """The earliest arrival by a search over single cells and times, or None."""
    width, latest = free.shape[1] + 1, max(map(len, others), default=0)
    here, time = {start}, 0
    for time in range(latest + free.size + 1):
        later = range(time, latest + 1) if rests else ()
        if goal in here and all(at(path, t, rests) != goal for path in others for t in later):
            return time
        after = set()
        for cell in here:
            for new in (cell, cell - width, cell + width, cell - 1, cell + 1):
                row, column = divmod(new, width)
                if not (0 <= row < free.shape[0] and column < free.shape[1] and free[row, column]):
                    continue
                pairs = [(at(path, time, rests), at(path, time + 1, rests)) for path in others]
                if all(b != new and (a, b) != (new, cell) for a, b in pairs):
                    after.add(new)
        here = after
    return None


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    n=st.integers(1, 6),
    rests=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_paths_arrive_as_early_as_those_of_a_search_cell_by_cell(rows, columns, n, rests, seed):
    generator = np.random.default_rng(seed)
    free = generator.random((rows, columns)) < 0.8
    cells = [int(r * (columns + 1) + c) for r, c in np.argwhere(free)]
    starts, goals = (generator.permutation(cells)[:n].tolist() for _ in range(2))
    table, paths = Reservations(as_bits(free), columns + 1), []
    for start, goal in zip(starts, goals, strict=True):
        path = table.earliest(start, goal, rests)
        expected = arrival_cell_by_cell(free, paths, start, goal, rests)
        assert (None if path is None else len(path) - 1) == expected
        if path is not None:
            assert (path[0], path[-1]) == (start, goal) and walkable(path, free)
            table.reserve(path, rests=rests)
            paths.append(path)
    assert not paths or not [hit for hit in collisions(paths, rests) if hit[2] > 0]


def test_who_comes_second_waits_makes_room_or_finds_no_way():
    table, _ = table_of("... #.#")  # cells 0 1 2, below 5
    table.reserve([2, 1, 0])
    assert table.earliest(0, 2, False) is None  # in the corridor, with nowhere to go
    assert len(table.earliest(5, 2, False)) - 1 == 3  # it waits a step for the other one to pass
    assert table.earliest(1, 5, False) == [1, 5]
    table, _ = table_of(".... #.##")  # the bay, 6, is beside 1
    table.reserve([3, 2, 1, 0])
    assert table.earliest(0, 3, False) == [0, 1, 6, 1, 2, 3]
    table, _ = table_of("..... ##.##")
    table.reserve([4, 3, 2, 1, 0])
    assert table.earliest(0, 4, False) is None  # it would meet the other one before the bay


def test_a_cell_can_be_entered_when_its_holder_leaves_but_not_in_exchange():
    table, _ = table_of("...")
    table.reserve([1, 2])
    assert table.earliest(0, 1, False) == [0, 1]  # follows
    table, _ = table_of("... ...")
    table.reserve([1, 0])
    assert len(table.earliest(0, 1, False)) - 1 == 3  # goes around


def test_who_rests_is_in_the_way_for_ever_and_waits_until_it_is_not():
    table, _ = table_of("....")
    table.reserve([0, 1], rests=True)
    assert table.earliest(3, 0, True) is None and table.earliest(3, 1, True) is None
    assert table.earliest(3, 2, True) == [3, 2]
    table, _ = table_of(".... ....")
    table.reserve([5, 5, 5, 0], rests=True)  # crosses row 0 at its end
    assert len(table.earliest(1, 0, False)) - 1 == 1  # for a moment
    assert table.earliest(1, 0, True) is None
    table, _ = table_of("... ...")
    table.reserve([0, 0, 1, 2], rests=True)
    path = table.earliest(5, 1, True)  # is there for good when the other one has passed
    assert len(path) - 1 == 3 and path[-1] == 1


def test_a_released_path_leaves_nothing_and_time_goes_by():
    table, free = table_of(".... ....")
    table.reserve([0, 1, 2, 3])
    table.advance()
    assert table.earliest(2, 1, False) != [2, 1]  # the other one comes from there
    table.release([1, 2, 3])
    assert set(table._open) == {as_bits(free)}
    assert all(cells == ALL for row in table._passable[1:] for cells in row)
    assert table.earliest(2, 1, False) == [2, 1]


def test_a_path_of_given_length_goes_where_the_goal_is_nearest():
    table, free = table_of("...... .####.")
    assert table.towards(0, 12, 3) == [0, 1, 2, 3]  # the goal is below the other end
    assert table.towards(0, 12, 9) == [0, 1, 2, 3, 4, 5, 12, 12, 12, 12]  # arrives and stays
    assert table.towards(0, 0, 2) == [0, 0, 0]
    table.reserve([5, 4, 3, 2, 1, 0])
    path = table.towards(0, 12, 7)  # makes room below, in 7
    assert path[1:3] == [7, 7] or (path[1:2] == [0] and 7 in path)
    assert len(path) == 8 and walkable(path, free)
    assert not collisions([[5, 4, 3, 2, 1, 0], path], rests=False)
    table, _ = table_of(".... ##.#")  # 7 is below 2
    table.reserve([0, 1, 2, 3, 3, 3])
    path = table.towards(2, 3, 5)  # at 3 it would be shut in by the other one
    assert len(path) == 6 and path[1:3] == [7, 7] and 3 not in path
    table, _ = table_of("....")
    table.reserve([3, 2, 1, 0])
    assert len(table.towards(0, 3, 5)) == 3  # squeezed: for two steps only


@given(seed=st.integers(0, 10_000), n=st.integers(1, 8), length=st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_paths_of_given_length_never_collide_and_end_no_farther_than_needed(seed, n, length):
    generator = np.random.default_rng(seed)
    free = generator.random((5, 6)) < 0.8
    cells = [int(r * 7 + c) for r, c in np.argwhere(free)]
    starts = generator.permutation(cells)[:n].tolist()
    table, paths = Reservations(as_bits(free), 7), []
    for start in starts:
        path = table.towards(start, int(generator.choice(cells)), length)
        assert path[0] == start and walkable(path, free) and len(path) <= length + 1
        if len(path) == length + 1:
            table.reserve(path)
            paths.append(path)
    assert not paths or not collisions(paths, rests=False)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 2)])
def test_bits_are_the_cells_of_the_map(shape):
    free = np.random.default_rng(0).random(shape) < 0.5
    bits = as_bits(free)
    for row, column in itertools.product(*map(range, shape)):
        assert bool(bits >> (row * (shape[1] + 1) + column) & 1) == free[row, column]
    assert bits.bit_length() <= shape[0] * (shape[1] + 1) - 1
