"""Warehouse: steps by hand, orders that are kept, what is seen, the bound, judging."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.evaluation.scores import evaluate_policy
from marl_td.tasks import make_env, make_task
from marl_td.tasks.grid.distance import FAR
from marl_td.tasks.mapf.task import DOWN, LEFT, RIGHT, STAY, UP
from marl_td.tasks.warehouse.bound import deliveries_alone, mean_cycle
from marl_td.tasks.warehouse.layout import make_layout
from marl_td.tasks.warehouse.params import WarehouseParams


def placed(layout, cells, loaded=None, **params):
    """A task on a floor of its own, and a state with robots at `cells` and orders from the first 'P' to the
    first 'D'."""
    task = make_task("warehouse", layout=layout, n_agents=len(cells), **{"sight": 1, **params})
    state = task.reset(1, task.draw_reset(1, torch.Generator().manual_seed(0)))
    columns = task.board.shape[1]
    cell = task.board.inside[torch.tensor([[r * columns + c for r, c in cells]])]
    zero = torch.zeros_like(state.pick)
    loads = torch.tensor([loaded or [False] * len(cells)])
    return task, state._replace(cell=cell, pick=zero, drop=zero, loaded=loads)


def stepped(task, state, *actions, pick=0.0, drop=0.0):
    noise = task.draw_step(1, torch.Generator().manual_seed(0))
    noise["pick"], noise["drop"] = (torch.full_like(noise["pick"], at) for at in (pick, drop))
    return task.step(state, {"agents": torch.tensor([actions])}, noise)


def places(task, state):
    return [tuple(at) for at in task.agent_info(state)["position"]["agents"][0].int().tolist()]


def facts(step):
    return tuple(int(step.info[name]) for name in ("deliveries", "pickups", "blocked"))


# ------------------------------------------------------------------------------------ by hand
def test_an_order_is_picked_and_delivered_and_another_follows():
    task, state = placed("D.P ##P", [(0, 1)])
    step = stepped(task, state, RIGHT)
    assert facts(step) == (0, 1, 0) and step.state.loaded.item() and step.reward["agents"] == 0.0
    state = stepped(task, step.state, LEFT).state
    assert state.waited.item() == 1 and state.stood.item() == 0
    assert stepped(task, state, STAY).state.stood.item() == 1
    step = stepped(task, state, LEFT, pick=0.99)
    assert facts(step) == (1, 0, 0) and step.reward["agents"].item() == 1.0
    assert not step.state.loaded.item() and step.state.waited.item() == 0
    assert step.state.pick.item() == 1  # the next order is at the other pick
    assert not step.terminated.item()


def test_only_the_own_goal_counts_and_standing_on_it_is_enough():
    task, state = placed("D.P ..P", [(1, 2), (0, 2)])
    step = stepped(task, state, STAY, STAY)
    assert facts(step) == (0, 1, 0) and step.state.loaded.tolist() == [[False, True]]


def test_who_has_waited_longer_goes_first_and_others_pay():
    task, state = placed("D.P ...", [(0, 0), (0, 2)], blocked_cost=0.25)
    step = stepped(task, state, RIGHT, LEFT)
    assert places(task, step.state) == [(0, 1), (0, 2)] and facts(step) == (0, 1, 1)
    assert step.reward["agents"].tolist() == [[0.0, -0.25]]
    state = state._replace(waited=torch.tensor([[3, 4]]))
    step = stepped(task, state, RIGHT, LEFT)
    assert places(task, step.state) == [(0, 0), (0, 1)]
    assert step.reward["agents"].tolist() == [[-0.25, 0.0]]


def test_team_reward_and_shaping():
    task, state = placed("D..P ....", [(0, 1), (1, 2)], [True, False], reward="team")
    step = stepped(task, state, LEFT, STAY)
    assert step.reward["agents"].tolist() == [[0.5, 0.5]]
    task, state = placed("D..P ....", [(0, 1), (1, 2)], [True, False], shaping=0.1, discount=0.5)
    step = stepped(task, state, LEFT, DOWN)  # arrives: 1 + 0.1 (1 - 0); stays: 0.1 (2 - 0.5 * 2)
    reward = step.reward["agents"][0].tolist()
    assert reward == pytest.approx([1.1, 0.1 - task.params.blocked_cost])


def test_what_a_robot_sees():
    task, state = placed("D.P .#. ...", [(0, 1), (0, 2), (2, 1)], [True, True, False])
    state = state._replace(waited=torch.tensor([[2, 5, 20]]), stood=torch.tensor([[2, 9, 0]]))
    seen = task.observe(state)["agents"][0]
    walls, first, second, down, right = seen[0, :45].unflatten(0, (5, 3, 3))
    assert walls.tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 0]]
    assert first.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]] and not second.any()
    assert right.tolist() == [[0, 0, 0], [0, 0, -1], [0, 0, 0]] and not down.any()
    assert seen[0, 45:].tolist() == pytest.approx([0, 0, 1, -1, 1 / 6, 1, 0.2, 0.4])
    second = seen[1, 18:27].unflatten(0, (3, 3))
    assert second.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert seen[2, 45:].tolist() == pytest.approx([0, 0, -1, 1, 3 / 6, 0, 1, 0])
    mask = task.action_mask(state)["agents"][0].int().tolist()
    assert mask == [[1, 0, 0, 1, 1], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]


def test_lost_messages_hide_the_others():
    task, state = placed("D.P ...", [(0, 0), (0, 1)], message_dropout=0.5)
    for lost in (False, True):
        unheard = torch.full_like(state.unheard, lost)
        seen = task.observe(state._replace(unheard=unheard))["agents"][0, 0, 9:45]
        assert seen.any().item() is not lost


def test_the_global_state_counts_in_regions():
    task = make_task("warehouse", n_agents=40)
    state = task.reset(5, task.draw_reset(5, torch.Generator().manual_seed(0)))
    robots, loaded, goals = task.team_state(state).unflatten(-1, (3, 64)).unbind(1)
    for crowd in (robots, goals):
        torch.testing.assert_close(crowd.mean(-1), torch.ones(5))
    assert not loaded.any()
    assert make_task("warehouse", n_agents=300, density=0.5).d_state == task.d_state == 192


# --------------------------------------------------------------------------------- properties
@given(
    n_agents=st.integers(1, 30),
    density=st.floats(0.05, 0.5),
    dead=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_robots_never_overlap_and_every_delivery_was_picked(n_agents, density, dead, seed):
    task = make_task("warehouse", n_agents=n_agents, density=density, dead_agents=dead, sight=1)
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(8, task.draw_reset(8, generator))
    here = task.floor.here(state)
    assert (here.sum(-1) == n_agents - task.n_dead).all()
    policy = task.baselines()["sidestep"]
    env = make_env("warehouse", 8, n_agents=n_agents, density=density, dead_agents=dead, sight=1)
    td = env.reset()
    env.state = state
    for _ in range(12):
        for name, value in task.agent_info(state).items():
            td["agents", "info", name] = value["agents"]
        action = policy(td)["agents", "action"]
        step = task.step(state, {"agents": action}, task.draw_step(8, generator))
        after, loads = step.state, (step.state.loaded.sum(-1) - state.loaded.sum(-1)).float()
        assert torch.equal(loads, step.info["pickups"] - step.info["deliveries"])
        assert (
            step.reward["agents"].isfinite().all()
            and task.observe(after)["agents"].isfinite().all()
        )
        assert torch.equal(task.floor.here(after), here)
        assert not task.floor.wall[after.cell[here]].any()
        apart = torch.where(here, after.cell, -1 - torch.arange(n_agents)).sort(1).values
        assert (apart.diff(dim=1) > 0).all()
        still = torch.where(here, state.cell == after.cell, True)
        swapped = (state.cell.unsqueeze(1) == after.cell.unsqueeze(2)) & ~still.unsqueeze(1)
        assert not (swapped & swapped.transpose(1, 2) & here.unsqueeze(1)).any()
        state = after


@pytest.mark.parametrize(("n_agents", "density"), [(1, 0.1), (20, 0.1), (50, 0.2), (300, 0.1)])
def test_the_floor_is_as_large_as_asked_and_everything_can_be_reached(n_agents, density):
    task = make_task("warehouse", n_agents=n_agents, density=density)
    floor = make_layout(task.params)
    assert n_agents / density <= floor.free.sum()
    assert floor.steps[:, floor.free.ravel()].max() < FAR and len(floor.picks) <= 256
    assert floor.free.ravel()[floor.picks].all() and floor.free.ravel()[floor.drops].all()


def test_a_thousand_robots_are_stepped_without_pairs_of_robots():
    task = make_task("warehouse", n_agents=1000, sight=1)
    state = task.reset(2, task.draw_reset(2, torch.Generator().manual_seed(0)))
    with torch.profiler.profile(profile_memory=True) as profile:
        action = {"agents": torch.full((2, 1000), RIGHT)}
        step = task.step(state, action, task.draw_step(2, torch.Generator()))
        task.observe(step.state), task.team_state(step.state)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 8 * 2 * 1000 * 100  # a bit for each pair of robots would take 2 MB
    assert step.state.cell[0].unique().numel() == 1000


# ------------------------------------------------------------------------------- environments
@pytest.mark.parametrize(
    "params", [{}, {"n_agents": 5, "dead_agents": 0.3, "message_dropout": 0.2, "shaping": 0.1}]
)
def test_specs_hold(params):
    check_env_specs(make_env("warehouse", 3, **params))


def test_time_truncates():
    env = make_env("warehouse", 3, max_steps=4)
    td = env.rollout(9, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert not td["next", "terminated"].any()


# ------------------------------------------------------------------------------------ judging
def test_the_bound_is_what_a_lone_robot_delivers():
    params = {"n_agents": 1, "max_steps": 60}
    bound = make_task("warehouse", **params).optimum()
    task = make_task("warehouse", **params)
    scores = evaluate_policy(task, task.baselines()["shortest_path"], 400, seed=0)
    assert scores.mean().item() == pytest.approx(bound.value, abs=3 * scores.std().item() / 20)
    assert bound.kind == "upper"


def test_the_bound_by_hand():
    floor = make_layout(WarehouseParams(layout="D..P", n_agents=1))
    assert mean_cycle(floor) == 6.0
    # From cell 0, 1, 2 or 3 the first delivery is at 6, 5, 4 or 4, and the next one 6 steps later.
    expected = [0, 0, 0, 0, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.5]
    assert [deliveries_alone(floor, t) for t in range(11)] == pytest.approx(expected)


def test_policies_by_rule_come_in_their_known_order():
    table = baseline_table("t", make_task("warehouse", max_steps=128), 16, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["random"] < 0.02 < found["shortest_path"] < found["sidestep"]
    assert 2 * found["sidestep"] < found["pibt"] < found["token_passing"] < table.optimum.value
    assert table.optimum.value == pytest.approx(20 / 33, rel=0.15)  # the long run: robots / cycle


def test_dead_robots_deliver_nothing():
    alive, dead = (make_task("warehouse", dead_agents=share) for share in (0.0, 0.5))
    assert dead.optimum().value == pytest.approx(alive.optimum().value / 2)


def test_a_series_and_a_picture():
    env = make_env("warehouse", 2)
    env.reset()
    assert all(line.shape == (2, 1) for line in env.task.episode_series(env.state).values())
    shown = env.render(index=1)
    assert shown.ndim == 3 and shown.shape[2] == 3 and shown.dtype == np.uint8
    assert not np.array_equal(shown, env.render(index=0))
    env.state = env.state._replace(loaded=~env.state.loaded)
    assert not np.array_equal(shown, env.render(index=1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"max_steps": 10**8}, r"n_agents \* max_steps must be below 2\*\*28"),
        ({"density": 0.8}, r"density must be in \(0, 0.5\]; got 0.8"),
        ({"reward": "mine"}, "reward must be one of own, team; got 'mine'"),
        ({"blocked_cost": -1.0}, "blocked_cost must be at least 0; got -1"),
        ({"discount": 2.0}, r"discount must be in \[0, 1\]; got 2"),
        ({"layout": "D.x"}, "a layout is rows of '.', '#', 'P' and 'D', all of one length; got"),
        ({"layout": "D..."}, "the layout needs at least one 'P' and one 'D'"),
        ({"layout": "D.#P", "n_agents": 1}, "the floor of the layout must hang together"),
        ({"layout": "D.P"}, "20 robots do not fit on 3 cells of floor"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("warehouse", **params)


def test_moves_have_the_same_numbers_in_both_tasks():
    task = make_task("warehouse")
    width = task.board.width
    ways = {STAY: 0, UP: -width, DOWN: width, LEFT: -1, RIGHT: 1}
    assert task.step_of.tolist() == [ways[action] for action in range(5)]
