"""PRIMAL's penalty for standing in the way: by hand, and beside two searches for every pair of agents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.tasks import make_task
from marl_td.tasks.mapf.blocking import DETOUR, blocked_by
from marl_td.tasks.mapf.task import DOWN, LEFT, STAY


def placed(layout, starts, goals, sight=5, **params):
    """A task on one map, and a state with agents at `starts` and goals at `goals`, (row, column) each."""
    task = make_task(
        "mapf",
        layout=layout,
        n_agents=len(starts),
        sight=sight,
        mode="nothing",
        reward="primal",
        **params,
    )
    state = task.reset(1, task.draw_reset(1, torch.Generator().manual_seed(0)))
    columns = task.board.shape[1]
    start, goal = (torch.tensor([[r * columns + c for r, c in at]]) for at in (starts, goals))
    return task, state._replace(cell=task.board.inside[start], goal=goal)


def rewards(task, state, *actions):
    noise = task.draw_step(1, torch.Generator().manual_seed(0))
    return task.step(state, {"agents": torch.tensor([actions])}, noise).reward["agents"][0].tolist()


def test_who_stands_in_a_corridor_blocks_and_pays_for_it():
    task, state = placed(".....", [(0, 2), (0, 1)], [(0, 2), (0, 4)])
    assert rewards(task, state, STAY, STAY) == pytest.approx([-1.0, -0.5])
    task, state = placed(".....", [(0, 2), (0, 1)], [(0, 2), (0, 4)], blocking_cost=0.25)
    assert rewards(task, state, STAY, STAY) == pytest.approx([-0.25, -0.5])
    task, state = placed(".....", [(0, 2), (0, 1)], [(0, 2), (0, 4)], blocking_cost=0.0)
    assert rewards(task, state, STAY, STAY) == pytest.approx([0.0, -0.5])


def test_nobody_pays_for_standing_beside_the_way_or_for_moving():
    task, state = placed(".....", [(0, 4), (0, 1)], [(0, 4), (0, 3)])  # behind the goal
    assert rewards(task, state, STAY, STAY) == pytest.approx([0.0, -0.5])
    task, state = placed(".....", [(0, 3), (0, 1)], [(0, 2), (0, 4)])  # it only arrives
    assert rewards(task, state, LEFT, STAY) == pytest.approx([0.0, -0.5])
    task, state = placed(".....", [(0, 2), (0, 1)], [(0, 3), (0, 4)])  # not on its goal
    assert rewards(task, state, STAY, STAY) == pytest.approx([-0.5, -0.5])
    task, state = placed(".....", [(0, 2), (0, 1)], [(0, 2), (0, 0)])  # the other way
    assert rewards(task, state, STAY, STAY) == pytest.approx([0.0, -0.5])
    task, state = placed(".....", [(0, 2), (0, 1)], [(0, 2), (0, 1)])  # all stand: solved
    assert rewards(task, state, STAY, STAY) == pytest.approx([20.0, 20.0])


def test_every_one_that_is_blocked_counts_but_not_who_is_behind_another_one():
    starts = [
        (2, 2),
        (1, 2),
        (3, 2),
        (0, 2),
    ]  # in the middle, above, below, and above the one above
    goals = [(2, 2), (2, 1), (2, 3), (2, 0)]
    task, state = placed("##.## ##.## ..... ##.##", starts, goals)
    assert rewards(task, state, STAY, STAY, STAY, STAY) == pytest.approx([-2.0, -0.5, -0.5, -0.5])


def test_a_detour_of_more_than_ten_steps_counts():
    # From (0, 1) to (0, 3) it is 2 steps through (0, 2), and 14 the other way round the ring of 16: 12 more.
    ring, starts = "....... .#####. .......", [(0, 2), (0, 1)]
    task, state = placed(ring, starts, [(0, 2), (0, 3)])
    assert rewards(task, state, STAY, STAY) == pytest.approx([-1.0, -0.5])
    task, state = placed(ring, starts, [(0, 2), (0, 4)])  # 3 and 13: 10 more
    assert rewards(task, state, STAY, STAY) == pytest.approx([0.0, -0.5])
    task, state = placed("...... .####. ......", starts, [(0, 2), (0, 3)])  # 2 and 12: 10 more
    assert rewards(task, state, STAY, STAY) == pytest.approx([0.0, -0.5])


def test_who_is_out_of_sight_does_not_count():
    for sight, cost in ((3, 1.0), (2, 0.0)):
        task, state = placed("......", [(0, 4), (0, 1)], [(0, 4), (0, 5)], sight=sight)
        assert rewards(task, state, STAY, STAY) == pytest.approx([-cost, -0.5])


def test_it_is_counted_where_all_are_after_the_step():
    # Where the third one stands, the second one has no way in any case; when it has stepped aside, it has.
    starts, goals = [(0, 3), (0, 1), (0, 4)], [(0, 3), (0, 5), (1, 4)]
    task, state = placed("...... ####.#", starts, goals)
    assert rewards(task, state, STAY, STAY, STAY) == pytest.approx([0.0, -0.5, -0.5])
    assert rewards(task, state, STAY, STAY, DOWN) == pytest.approx([-1.0, -0.5, 0.0])


def steps_to(free, start, goal, obstacles):
    """Steps of a shortest way around obstacles by a search cell by cell, None if there is none."""
    steps, queue = {start: 0}, [start]
    for row, column in queue:
        for new in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if new in free and new not in obstacles and new not in steps:
                steps[new] = steps[row, column] + 1
                queue.append(new)
    return steps.get(goal)


def blocked_pair_by_pair(free, cells, goals, stays, sight, reach):
    """PRIMAL's loop over pairs: with and without the one, around all others."""
    counts = []
    for i, at in enumerate(cells):
        count = 0
        for j, start in enumerate(cells):
            near = max(abs(at[0] - start[0]), abs(at[1] - start[1])) <= sight
            if i == j or not near or not stays[i]:
                continue
            others = {cell for k, cell in enumerate(cells) if k not in (i, j)}
            before = steps_to(free, start, goals[j], others | {at})
            after = steps_to(free, start, goals[j], others)
            if after is not None and after <= reach:
                count += before is None or before > after + DETOUR
        counts.append(count)
    return counts


@given(
    rows=st.integers(2, 7),
    columns=st.integers(2, 7),
    n_agents=st.integers(2, 7),
    density=st.floats(0.0, 0.5),
    sight=st.integers(1, 7),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=120, deadline=None)
def test_all_at_once_is_pair_by_pair(rows, columns, n_agents, density, sight, seed):
    generator = torch.Generator().manual_seed(seed)
    free = torch.rand((rows, columns), generator=generator) >= density
    places = free.nonzero().tolist()
    if len(places) < n_agents:
        return
    cells, goals = (
        [tuple(places[k]) for k in torch.randperm(len(places), generator=generator)[:n_agents]]
        for _ in range(2)
    )
    stays = torch.rand(n_agents, generator=generator) < 0.8
    goals = [
        cell if stay and cell not in goals else goal
        for cell, stay, goal in zip(cells, stays, goals, strict=True)
    ]
    stays = [cell == goal for cell, goal in zip(cells, goals, strict=True)]
    task = make_task(
        "mapf", layout=" ".join("." * columns for _ in range(rows)), n_agents=1, sight=sight
    )
    cell, goal = (torch.tensor([[r * columns + c for r, c in at]]) for at in (cells, goals))
    found = blocked_by(
        task.board, free.reshape(1, -1), task.board.inside[cell], goal, torch.tensor([stays]), 20
    )
    expected = blocked_pair_by_pair(set(map(tuple, places)), cells, goals, stays, sight, 20)
    assert found[0].tolist() == expected


def test_the_dead_neither_block_nor_are_blocked():
    task, state = placed(".....", [(0, 2), (0, 1)], [(0, 2), (0, 4)])
    for dead, expected in ((0, [0.0, -0.5]), (1, [0.0, 0.0])):
        cell = state.cell.clone()
        cell[0, dead] = task.board.nowhere
        found = rewards(task, state._replace(cell=cell), STAY, STAY)
        assert found[1 - dead] == pytest.approx(expected[1] if dead == 0 else 20.0)
        assert found[dead] == 0.0


def test_it_compiles_whole_and_gives_the_same():
    task = make_task("mapf", mode="nothing", reward="primal", grid_size=5, n_agents=4, n_maps=2)
    generator = torch.Generator().manual_seed(0)
    state = task.reset(64, task.draw_reset(64, generator))
    state = state._replace(
        cell=torch.cat([task.board.inside[state.goal[:, :2]], state.cell[:, 2:]], 1)
    )
    noise = task.draw_step(64, generator)
    action = {"agents": torch.zeros((64, 4), dtype=torch.long)}
    plain = task.step(state, action, noise).reward["agents"]
    compiled = torch.compile(task.step, fullgraph=True, backend="aot_eager")
    compiled = compiled(state, action, noise).reward["agents"]
    torch.testing.assert_close(compiled, plain)
    assert (plain[:, :2] == -1.0).any() and (plain[:, :2] == 0.0).any()
