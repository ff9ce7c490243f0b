"""The least sum of costs beside a search over everybody's places at once, and the bound made of it."""

import heapq
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.tasks import make_env, make_task
from marl_td.tasks.mapf.bound import solve


def reach(free, cell):
    """Cells in reach of a step on a map of letters, itself included."""
    row, column = cell
    near = [
        (row, column),
        (row - 1, column),
        (row + 1, column),
        (row, column - 1),
        (row, column + 1),
    ]
    inside = [(r, c) for r, c in near if 0 <= r < len(free) and 0 <= c < len(free[0])]
    return [(r, c) for r, c in inside if free[r][c] == "."]


def collide(before, after):
    """Whether two agents share a cell or exchange theirs; None is off the board."""
    for i, j in itertools.combinations(range(len(after)), 2):
        if after[i] is None or after[j] is None:
            continue
        if after[i] == after[j] or (after[i] == before[j] and after[j] == before[i]):
            return True
    return False


def least_jointly(free, starts, goals, leaves):
    """Dijkstra over the places of all: an agent costs 1 per step until it is through with its goal."""
    begin = (tuple(starts), (False,) * len(starts))
    best, queue = {begin: 0}, [(0, begin)]
    while queue:
        cost, state = heapq.heappop(queue)
        places, through = state
        if all(through):
            return cost
        if cost > best[state]:
            continue
        choices = [
            [place] if done else reach(free, place)
            for place, done in zip(places, through, strict=True)
        ]
        for after in itertools.product(*choices):
            present = [
                None if done and leaves else place
                for place, done in zip(after, through, strict=True)
            ]
            if collide(places, present):
                continue
            flags = []
            for place, goal, done in zip(after, goals, through, strict=True):
                flags.append(
                    [True] if done or (place == goal and leaves) else [False, place == goal]
                )
            for now in set(itertools.product(*flags)):
                new, total = (after, now), cost + through.count(False)
                if total < best.get(new, 10**6):
                    best[new] = total
                    heapq.heappush(queue, (total, new))
    return None


@given(
    mode=st.sampled_from(["finish", "nothing"]),
    n_agents=st.integers(2, 3),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None)
def test_the_least_costs_are_those_of_a_joint_search(mode, n_agents, seed):
    task = make_task(
        "mapf", mode=mode, n_agents=n_agents, grid_size=3, density=0.15, n_maps=2, map_seed=seed
    )
    state = task.reset(2, task.draw_reset(2, torch.Generator().manual_seed(seed)))
    for env in range(2):
        wall = task.tables.wall[state.map[env], task.board.inside].reshape(3, 3).tolist()
        free = ["".join(".#"[cell] for cell in row) for row in wall]
        starts, goals = (
            [divmod(cell, 3) for cell in cells.tolist()]
            for cells in (task.board.number(state.cell[env]), state.goal[env])
        )
        found = solve(task, state, env, max_nodes=300)
        expected = least_jointly(free, starts, goals, mode == "finish")
        if found.exact:
            assert found.cost == expected
        else:  # no solution, or none found so soon
            assert expected is None or found.cost <= expected


def placed(layout, starts, goals, **params):
    task = make_task("mapf", layout=layout, n_agents=len(starts), **params)
    state = task.reset(1, task.draw_reset(1, torch.Generator().manual_seed(0)))
    cell, goal = task.board.inside[torch.tensor([starts])], torch.tensor([goals])
    return task, state._replace(cell=cell, goal=goal)


def test_two_who_meet_in_a_corridor_need_the_bay():
    task, state = placed(".... #.##", [0, 3], [3, 0])
    assert solve(task, state, 0) == (
        3 + 5,
        True,
    )  # in finish the second waits in the bay for 2 steps
    task, state = placed("....", [0, 3], [3, 0])
    assert not solve(task, state, 0).exact  # there is no way at all


def test_who_stands_on_its_goal_is_in_the_way_unless_it_leaves():
    layout, starts, goals = (
        ".... #.##",
        [1, 0],
        [2, 3],
    )  # the first one's goal is on the second one's way
    task, state = placed(layout, starts, goals)
    assert solve(task, state, 0) == (1 + 3, True)
    task, state = placed(layout, starts, goals, mode="nothing")
    found = solve(task, state, 0)  # it lets the other one pass first, in the bay
    assert found == (3 + 3, True)


def test_the_bound_is_below_one_and_counts_those_who_do_not_arrive():
    bound = make_task("mapf", n_agents=4, grid_size=5).optimum()
    assert bound.kind == "upper" and 0.9 < bound.value < 1.0 and "conflict-based" in bound.how
    assert make_task("mapf", n_agents=12).optimum().value == 1.0


def test_who_cannot_arrive_in_time_costs_all_steps():
    task, state = placed("....", [0, 3], [3, 0], max_steps=4)
    assert solve(task, state, 0).cost > 4 + 3  # there is no way: better one of them stays away
    found = task.optimum().value
    state = task.reset(128, task.draw_reset(128, torch.Generator().manual_seed(0)))
    ways = [sum(row) for row in state.way.tolist()]
    costs = [solve(task, state, env).cost for env in range(128)]
    least = [
        min(c, 4 + w - max(row)) for c, w, row in zip(costs, ways, state.way.tolist(), strict=True)
    ]
    assert least != costs
    assert found == pytest.approx(sum(w / c for w, c in zip(ways, least, strict=True)) / 128)


@pytest.mark.parametrize("mode", ["finish", "nothing"])
def test_no_policy_by_rule_beats_the_least_costs_start_by_start(mode):
    env = make_env("mapf", 12, mode=mode, n_agents=3, grid_size=4, n_maps=8, max_steps=30)
    td = env.reset()
    least = [solve(env.task, env.state, i).cost for i in range(12)]
    policy, running = env.task.baselines()["pibt"], torch.ones(12, dtype=torch.bool)
    cost = torch.zeros(12)
    for _ in range(30):
        td = env.step(policy(td))["next"]
        cost += td["info", "cost"].squeeze(-1) * running
        running &= ~td["terminated"].squeeze(-1)
    assert (cost >= torch.tensor(least)).all() and (cost == torch.tensor(least)).any()
