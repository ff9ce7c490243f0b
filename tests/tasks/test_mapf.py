"""Path finding: steps by hand, starts that hang together, what is seen, rewards, judging."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.mapf.task import DOWN, LEFT, RIGHT, STAY, UP


def placed(layout, starts, goals, **params):
    """A task on one map, and a state with agents at `starts` and goals at `goals`, (row, column) each."""
    task = make_task("mapf", layout=layout, n_agents=len(starts), sight=1, **params)
    state = task.reset(1, task.draw_reset(1, torch.Generator().manual_seed(0)))
    columns = task.board.shape[1]
    start, goal = (torch.tensor([[r * columns + c for r, c in at]]) for at in (starts, goals))
    way = task.tables.steps(state.map, goal, start)
    return task, state._replace(cell=task.board.inside[start], goal=goal, way=way)


def stepped(task, state, *actions, draw=0):
    noise = task.draw_step(1, torch.Generator().manual_seed(draw))
    return task.step(state, {"agents": torch.tensor([actions])}, noise)


def places(task, state):
    """Row and column of everybody, None for those who have left."""
    found = task.agent_info(state)["position"]["agents"][0].int().tolist()
    return [None if row < 0 else (row, column) for row, column in found]


def facts(step):
    names = ("arrivals", "cost", "shortest", "conflicts", "solved")
    return tuple(int(step.info[name]) for name in names)


# ------------------------------------------------------------------------------------ by hand
def test_who_arrives_leaves_and_the_last_one_ends_it():
    task, state = placed("... .#. ...", [(0, 0), (2, 0)], [(0, 1), (2, 2)])
    step = stepped(task, state, RIGHT, RIGHT)
    assert places(task, step.state) == [None, (2, 1)]
    assert step.reward["agents"].tolist() == [[1.0, 0.0]]
    assert facts(step) == (1, 2, 3, 0, 0)  # the shortest ways, 1 + 2, are told in the first step
    step = stepped(task, step.state, UP, RIGHT)
    assert places(task, step.state) == [None, None] and step.terminated.item()
    assert facts(step) == (1, 1, 0, 0, 1)
    assert step.reward["agents"].tolist() == [[0.0, 1.0]]


def test_all_must_stand_and_the_cost_is_the_time_of_the_last_arrival():
    task, state = placed("....", [(0, 0), (0, 2)], [(0, 1), (0, 3)], mode="nothing")
    step = stepped(task, state, RIGHT, STAY)  # one arrives
    assert facts(step) == (1, 2, 2, 0, 0) and not step.reward["agents"].any()
    step = stepped(task, step.state, STAY, STAY)  # it stands: only the other one costs
    assert facts(step) == (0, 1, 0, 0, 0)
    step = stepped(task, step.state, LEFT, STAY)  # it leaves: it has not been there after all
    assert facts(step) == (-1, 1 + 2, 0, 0, 0)
    step = stepped(task, step.state, RIGHT, RIGHT)
    assert facts(step) == (2, 2, 0, 0, 1) and step.terminated.item()
    assert step.reward["agents"].tolist() == [[1.0, 1.0]]
    # Both arrived in step 4: 2 + 1 + 3 + 2 = 8 = 4 + 4.


def test_a_new_goal_follows_the_old_one_and_is_another_cell():
    task, state = placed("..#. ..#.", [(0, 0)], [(0, 1)], mode="restart")
    goals = set()
    for draw in range(40):
        step = stepped(task, state, RIGHT, draw=draw)
        assert facts(step) == (1, 1, 1, 0, 0) and step.reward["agents"].item() == 1.0
        goals.add(step.state.goal.item())
        assert step.state.way.item() == task.distance(step.state).item() > 0
    assert goals == {0, 4, 5}  # the cells on this side of the wall, but for the one it stands on


def test_primal_s_rewards():
    task, state = placed(
        "... ... ... .#.",
        [(0, 0), (0, 1), (3, 0), (1, 2), (2, 2)],
        [(1, 0), (0, 1), (3, 0), (0, 2), (1, 1)],
        mode="nothing",
        reward="primal",
    )
    # Reaches its goal, leaves its goal, stays on it, moves, stays off it:
    step = stepped(task, state, DOWN, LEFT, STAY, LEFT, STAY)
    assert step.reward["agents"][0].tolist() == pytest.approx([0.0, -0.3, 0.0, -0.3, -0.5])
    # Runs into the next one on its goal, and into the edge; stays; goes back; stays:
    step = stepped(task, step.state, RIGHT, UP, STAY, RIGHT, STAY)
    assert step.reward["agents"][0].tolist() == pytest.approx([-0.3, -2.0, 0.0, -0.3, -0.5])
    task, state = placed("..", [(0, 0)], [(0, 1)], mode="nothing", reward="primal")
    assert stepped(task, state, RIGHT).reward["agents"].tolist() == [[20.0]]


def test_what_an_agent_sees():
    task, state = placed(".#. ... ..#", [(1, 1), (1, 0)], [(2, 0), (0, 2)])
    seen = task.observe(state)["agents"][0]
    wall, agents, goal = seen[0, :27].unflatten(0, (3, 3, 3))
    assert wall.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert agents.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert goal.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    up, down, left, right, steps, waited = seen[0, 63:].tolist()
    assert (up, down, left, right, waited) == (0, 1, 1, -1, 0) and steps == pytest.approx(2 / 6)
    first, second, down, right = seen[0, 27:63].unflatten(0, (4, 3, 3))
    assert not first.any() and second.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert not down.any() and right.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    first, second, down, right = seen[1, 27:63].unflatten(0, (4, 3, 3))
    assert first.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]] and not second.any()
    assert down.tolist() == first.tolist() and not right.any()
    goal = seen[1, 18:27].unflatten(0, (3, 3))
    assert goal.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]  # on the edge of what it sees
    mask = task.action_mask(state)["agents"][0].int().tolist()
    assert mask == [[1, 0, 1, 1, 1], [1, 1, 1, 0, 1]]
    board = task.team_state(state)[0].unflatten(0, (3, 3, 3))
    assert board.sum((1, 2)).tolist() == [2, 2, 2]
    assert board[1, 1].tolist() == [1, 1, 0] and board[2, 2, 0] == board[2, 0, 2] == 1


def test_lost_messages_hide_others_but_never_oneself():
    task, state = placed("... ...", [(0, 0), (0, 1)], [(1, 2), (1, 1)], message_dropout=0.5)
    heard = state._replace(unheard=torch.zeros_like(state.unheard))
    lost = state._replace(unheard=torch.ones_like(state.unheard))
    assert task.observe(heard)["agents"][0, 0, 9:18].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert task.observe(lost)["agents"][0, 0, 9:18].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert 0.3 < task.draw_step(99, torch.Generator())["unheard"].lt(0.5).float().mean() < 0.7


# --------------------------------------------------------------------------------- properties
@given(
    mode=st.sampled_from(["finish", "nothing", "restart"]),
    size=st.integers(3, 7),
    density=st.floats(0.0, 0.4),
    dead=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_starts_hang_together_nobody_overlaps_and_sums_add_up(mode, size, density, dead, seed):
    task = make_task(
        "mapf",
        mode=mode,
        grid_size=size,
        density=density,
        n_agents=2,
        n_maps=4,
        map_seed=seed,
        dead_agents=dead,
    )
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(16, task.draw_reset(16, generator))
    number = task.board.number(state.cell).clamp(0, size * size - 1)
    assert (~task.tables.blocked(state.map, state.cell) | (state.cell == task.board.nowhere)).all()
    alive = task.alive(state)["agents"]
    assert (alive.sum(-1) == (1 if dead else 2)).all()
    assert (state.way < 100).all() and (state.way > 0).all()  # reachable, and not there yet
    assert torch.equal(state.way[alive], task.distance(state)[alive])
    apart = torch.cat([torch.where(alive, number, -1 - torch.arange(2)), state.goal], 1)
    assert (apart.sort(1).values.diff(dim=1) > 0).all()  # starts and goals: all different cells
    start_way, totals = torch.where(alive, state.way, 0).sum(-1), {}
    for _ in range(6):
        mask = task.action_mask(state)["agents"]
        action = torch.where(mask, torch.rand(mask.shape, generator=generator), -1.0).argmax(-1)
        step = task.step(state, {"agents": action}, task.draw_step(16, generator))
        assert mask.any(-1).all() and step.reward["agents"].isfinite().all()
        there = step.state.cell != task.board.nowhere
        pair = step.state.cell
        assert not ((pair[:, 0] == pair[:, 1]) & there.all(-1)).any()
        if mode != "restart":  # every move leads one step closer or one away
            moved = (pair != state.cell) & there
            nearer = task.distance(state) - task.distance(step.state)
            assert torch.equal(nearer.abs()[there], moved[there].long())
        totals = {key: totals.get(key, 0) + value for key, value in step.info.items()}
        state = step.state
    if mode != "restart":
        assert torch.equal(totals["shortest"], start_way.float())
    assert (totals["cost"] <= 12).all()


def test_starts_and_goals_are_uniform_within_a_part():
    task = make_task("mapf", layout="..# #.. ###", n_agents=1, sight=1)
    state = task.reset(6000, task.draw_reset(6000, torch.Generator().manual_seed(0)))
    start = task.board.number(state.cell)[:, 0]
    pairs = torch.stack([start, state.goal[:, 0]], 1)
    found = torch.unique(pairs, dim=0, return_counts=True)
    assert len(found[0]) == 12  # every two different cells of the four
    assert (found[1] / 6000 - 1 / 12).abs().max() < 0.02


# ------------------------------------------------------------------------------- environments
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"mode": "nothing", "reward": "primal", "guide": False, "dead_agents": 0.3},
        {"mode": "restart", "grid_size": 5, "n_agents": 3, "message_dropout": 0.2},
    ],
)
def test_specs_hold(params):
    check_env_specs(make_env("mapf", 3, n_maps=4, **params))


# ------------------------------------------------------------------------------------ judging
@pytest.mark.parametrize("mode", ["finish", "nothing", "restart"])
def test_policies_by_rule_come_in_their_known_order(mode):
    table = baseline_table("t", make_task("mapf", mode=mode), 48, seed=0)
    found = {row.policy: row.value for row in table.rows}
    planner = "token_passing" if mode == "restart" else "prioritised"
    assert list(found) == ["random", "shortest_path", "sidestep", "pibt", planner]
    assert found["random"] < 0.2 < 0.3 < found["sidestep"] < found["pibt"]
    assert found["pibt"] < found[planner] <= table.optimum.value
    assert found["shortest_path"] < found["pibt"] - 0.2
    assert table.optimum.kind == "upper" and (table.optimum.value == 1.0) == (mode == "restart")


def test_agents_alone_reach_the_bound():
    task = make_task("mapf", n_agents=1, density=0.3, n_maps=8)
    table = baseline_table("t", task, 20, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["shortest_path"] == found["pibt"] == found["prioritised"] == 1.0
    assert found["sidestep"] < 1.0


def test_a_series_and_a_picture():
    env = make_env("mapf", 2)
    env.reset()
    (line,) = env.task.episode_series(env.state).values()
    assert torch.equal(line, env.state.way.float())
    shown = env.render(index=1)
    assert shown.ndim == 3 and shown.shape[2] == 3 and shown.dtype == np.uint8
    assert not np.array_equal(shown, env.render(index=0))
    env.state = env.state._replace(cell=torch.full_like(env.state.cell, env.task.board.nowhere))
    assert not np.array_equal(shown, env.render(index=1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "wait"}, "mode must be one of finish, nothing, restart; got 'wait'"),
        (
            {"reward": "primal"},
            "reward=primal needs mode=nothing, the task it was made for; got 'fin",
        ),
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"blocking_cost": -1.0}, "blocking_cost must be at least 0; got -1"),
        ({"density": 1.0}, r"density is a probability and must be in \[0, 1\); got 1"),
        ({"n_agents": 60}, "60 agents, each with a start and a goal, do not fit on 10 x 10 cells"),
        ({"layout": ".. .."}, "the layout has starts and goals for 2 agents; 8 do not fit"),
        ({"layout": ".. ."}, "maps are rows of '.' and '#'"),
        ({"grid_size": 100}, "64 maps of 100 x 100 cells need tables of 6,400,000,000 distances"),
        ({"dead_agents": 1.0}, r"dead_agents is a share of the agents and must be in \[0, 1\)"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("mapf", **params)
