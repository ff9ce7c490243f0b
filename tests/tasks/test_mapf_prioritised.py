"""Prioritised planning: known corridors, no collision, between the shortest ways and the least costs."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.evaluation.scores import evaluate_episodes
from marl_td.tasks import make_env, make_task
from marl_td.tasks.mapf.bound import solve
from marl_td.tasks.mapf.prioritised import Problem, in_order, prioritised


def problem_of(layout, starts, goals, mode):
    """A task on one map, a state with agents on cells counted row by row, and the same as a problem."""
    task = make_task("mapf", layout=layout, n_agents=len(starts), mode=mode)
    state = task.reset(1, task.draw_reset(1, torch.Generator().manual_seed(0)))
    cell, goal = task.board.inside[torch.tensor([starts])], torch.tensor([goals])
    return task, state._replace(cell=cell, goal=goal), as_problem(task, starts, goals, 0)


def as_problem(task, starts, goals, which):
    policy, columns = task.baselines()["prioritised"], task.board.shape[1]
    ends = [
        [cell // columns * (columns + 1) + cell % columns for cell in at] for at in (starts, goals)
    ]
    return Problem(policy.free[which], policy.width, *ends, policy.leaves)


def cost(paths):
    return sum(len(path) - 1 for path in paths)


def test_who_meets_another_one_in_a_corridor_waits_in_the_bay():
    for mode in ("finish", "nothing"):
        task, state, problem = problem_of(".... #.##", [0, 3], [3, 0], mode)
        assert in_order(problem, [0, 1])[1] == 1  # there is no bay on the way of the second
        paths = prioritised(problem)
        assert paths == [[0, 1, 6, 1, 2, 3], [3, 2, 1, 0]]
        assert solve(task, state, 0) == (cost(paths), True)


def test_who_stands_on_its_goal_closes_the_way_unless_it_leaves():
    layout, starts, goals = ".... #.##", [1, 0], [2, 3]
    paths, stuck = in_order(problem_of(layout, starts, goals, "finish")[2], [0, 1])
    assert paths == {0: [1, 2], 1: [0, 1, 2, 3]} and stuck is None
    *known, problem = problem_of(layout, starts, goals, "nothing")
    assert in_order(problem, [0, 1]) == ({0: [1, 2]}, 1)  # cell 2 is taken for good
    paths = prioritised(problem)
    assert paths == [[1, 6, 1, 2], [0, 1, 2, 3]] and solve(*known, 0) == (cost(paths), True)


def test_without_a_way_all_stay_and_nothing_collides():
    assert prioritised(problem_of("....", [0, 3], [3, 0], "finish")[2]) is None
    env = make_env("mapf", 1, layout="....", n_agents=2)
    policy, td = env.task.baselines()["prioritised"], env.reset()
    cell, goal = env.task.board.inside[torch.tensor([[0, 3]])], torch.tensor([[3, 0]])
    env.state = env.state._replace(cell=cell, goal=goal)
    for _ in range(3):
        for name, value in env.task.agent_info(env.state).items():
            td["agents", "info", name] = value["agents"]
        td = env.step(policy(td))["next"]
        assert torch.equal(env.state.cell, cell) and td["info", "conflicts"].item() == 0


def test_what_no_order_can_solve_is_given_up_though_there_is_a_plan():
    # Whoever comes first goes straight to where the other one stands and has its goal behind it.
    task, state, problem = problem_of("..... ##.##", [1, 3], [3, 1], "nothing")
    assert [in_order(problem, order)[1] for order in ([0, 1], [1, 0])] == [1, 0]
    assert prioritised(problem) is None and solve(task, state, 0) == (3 + 4, True)
    assert cost(prioritised(problem._replace(leaves=True))) == 2 + 5


def collisions(paths, leaves):
    """Whether two are in one cell or exchange theirs, by hand."""

    def at(path, time):
        return path[time] if time < len(path) else None if leaves else path[-1]

    for time in range(1, max(map(len, paths))):
        for a, b in itertools.combinations(paths, 2):
            now = at(a, time), at(b, time)
            before = at(a, time - 1), at(b, time - 1)
            if None not in now and (now[0] == now[1] or (now == before[::-1] and now != before)):
                return True
    return False


@given(
    mode=st.sampled_from(["finish", "nothing"]),
    n_agents=st.integers(1, 6),
    density=st.floats(0.0, 0.4),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_paths_never_collide_and_cost_no_less_than_the_optimum(mode, n_agents, density, seed):
    task = make_task(
        "mapf", mode=mode, n_agents=n_agents, grid_size=6, density=density, n_maps=2, map_seed=seed
    )
    state = task.reset(3, task.draw_reset(3, torch.Generator().manual_seed(seed)))
    for env in range(3):
        starts, goals = task.board.number(state.cell[env]).tolist(), state.goal[env].tolist()
        problem = as_problem(task, starts, goals, int(state.map[env]))
        paths, ways = prioritised(problem), state.way[env].tolist()
        if paths is None:
            continue
        assert [path[0] for path in paths] == problem.starts
        assert [path[-1] for path in paths] == problem.goals
        assert not collisions(paths, problem.leaves)
        steps = {b - a for path in paths for a, b in itertools.pairwise(path)}
        assert steps <= {0, 1, -1, 7, -7} and all(problem.free >> c & 1 for p in paths for c in p)
        assert all(len(path) - 1 >= way for path, way in zip(paths, ways, strict=True))
        assert cost(paths) >= solve(task, state, env, max_nodes=60).cost
        alone = [in_order(problem, [i])[0][i] for i in range(n_agents)]
        if not collisions(alone, problem.leaves):  # whoever comes first has the way free
            first = in_order(problem, list(range(n_agents)))[0][0]
            assert len(first) - 1 == ways[0]


def test_agents_in_rooms_of_their_own_pay_what_they_must():
    layout = " ".join(["......", "######"] * 5)
    task = make_task("mapf", layout=layout, n_agents=5, mode="nothing")
    generator = torch.Generator().manual_seed(0)
    columns = torch.rand((20, 5, 6), generator=generator).argsort(-1)[..., :2]
    rooms = 12 * torch.arange(5)
    state = task.reset(20, task.draw_reset(20, generator))
    state = state._replace(
        cell=task.board.inside[rooms + columns[..., 0]], goal=rooms + columns[..., 1]
    )
    for env in range(20):
        starts, goals = task.board.number(state.cell[env]).tolist(), state.goal[env].tolist()
        paths = prioritised(as_problem(task, starts, goals, 0))
        ways = (columns[env, :, 0] - columns[env, :, 1]).abs().sum().item()
        assert solve(task, state, env) == (cost(paths), True) and cost(paths) == ways


@pytest.mark.parametrize("mode", ["finish", "nothing"])
@pytest.mark.parametrize(
    "params", [{}, {"density": 0.3, "n_agents": 12}, {"dead_agents": 0.4, "grid_size": 5}]
)
def test_no_move_fails_in_200_episodes(mode, params):
    task = make_task("mapf", mode=mode, **params)
    totals = evaluate_episodes(task, task.baselines()["prioritised"], 200, seed=0).totals
    assert not totals["conflicts"].any() and (totals["cost"] >= totals["shortest"]).all()
    if params == {}:
        assert (totals["solved"] == 1).all()
        assert task.score(totals).mean() > (0.94 if mode == "finish" else 0.87)


def test_it_plans_anew_where_the_world_is_not_as_planned():
    env = make_env("mapf", 8, mode="nothing", n_agents=4)
    env.set_seed(0)
    td, policy = env.reset(), env.task.baselines()["prioritised"]
    torch.manual_seed(0)
    solved = torch.zeros(8, dtype=torch.bool)
    for step in range(60):
        td = policy(td)
        if step in (2, 5, 9):
            td = env.rand_action(td)  # something else happens
        td = env.step(td)["next"]
        assert step in (2, 5, 9) or not td["info", "conflicts"].any()
        solved |= td["terminated"].squeeze(-1)
    assert solved.all()
