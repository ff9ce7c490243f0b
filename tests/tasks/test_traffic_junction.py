"""Traffic junction: routes, steps by hand and beside a loop, rules without collisions, the programme."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.traffic_junction import TrafficState
from marl_td.tasks.traffic_junction.maps import build
from marl_td.tasks.traffic_junction.optimum import best_share
from marl_td.tasks.traffic_junction.policies import may_move
from marl_td.tasks.traffic_junction.task import BRAKE, GAS

EASY = {"layout": "easy", "size": 5, "n_agents": 3, "p_arrive": 0.5}


def cars(task, *rows):
    """A state of one environment: `(route, place, wait)` per agent with a car, None without."""
    route, place, wait = (torch.tensor([[row[k] if row else 0 for row in rows]]) for k in range(3))
    driving = torch.tensor([[row is not None for row in rows]])
    flags = torch.zeros_like(driving), torch.ones_like(driving)
    hidden = torch.zeros(1, len(rows), 0, dtype=torch.bool)
    return TrafficState(route, place, driving, wait.float(), *flags, hidden)


def stepped(task, state, *actions, arrive=(0.99, 0.99), agent=None):
    """The step of one environment; nobody arrives unless told."""
    n = len(actions)
    noise = {
        "arrive": torch.tensor([arrive]),
        "choice": torch.zeros(1, len(arrive)),
        "agent": torch.tensor([agent or [i / n for i in range(n)]]),
        "hide": torch.ones(1, n, 0),
    }
    return task.step(state, {"agents": torch.tensor([actions])}, noise)


# ------------------------------------------------------------------------------------------ roads
def test_the_routes_of_a_small_junction():
    top = build("medium", 4).routes[0]
    straight = [(0, 1), (1, 1), (2, 1), (3, 1)]
    right, left = [(0, 1), (1, 1), (1, 0)], [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3)]
    assert top == [straight, right, left]


@pytest.mark.parametrize(
    ("layout", "size", "n"), [("easy", 7, 1), ("medium", 14, 3), ("hard", 18, 7)]
)
def test_routes_are_connected_all_different_and_never_against_a_lane(layout, size, n):
    road = build(layout, size)
    routes = [tuple(route) for entry in road.routes for route in entry]
    assert [len(entry) for entry in road.routes] == [n] * len(road.routes)
    assert len(set(routes)) == len(routes)
    ways = {}
    for route in routes:
        for (r, c), (r2, c2) in itertools.pairwise(route):
            assert abs(r - r2) + abs(c - c2) == 1 and (r, c) in road.cells
            ways.setdefault(((r, c), (r2, c2)), 0)
        assert {0, size - 1} & set(route[-1])
    assert not any((b, a) in ways for a, b in ways)
    lengths = {"easy": 7, "medium": 15, "hard": 27}
    assert max(map(len, routes)) == lengths[layout]


@pytest.mark.parametrize(
    ("layout", "size"), [("easy", 2), ("medium", 7), ("hard", 10), ("ring", 9)]
)
def test_maps_that_do_not_exist_are_refused(layout, size):
    with pytest.raises(ValueError, match=f"(size must be .* '{layout}'; got {size})|layout must"):
        make_task("traffic_junction", layout=layout, size=size)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"vision": -1}, "vision must be at least 0; got -1"),
        ({"p_arrive": 1.5}, r"p_arrive is a probability and must be in \[0, 1\]; got 1.5"),
        ({"time_penalty": -1.0}, "time_penalty must be at least 0; got -1"),
    ],
)
def test_parameters_out_of_range_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("traffic_junction", **params)


# ---------------------------------------------------------------------------------------- by hand
def test_cars_meet_at_the_crossing_and_both_pay():
    task = make_task("traffic_junction", **EASY)
    state = cars(task, (0, 1, 1), (1, 1, 4), (1, 3, 3))
    step = stepped(task, state, GAS, GAS, BRAKE)
    torch.testing.assert_close(step.reward["agents"], torch.tensor([[-10.02, -10.05, -0.04]]))
    assert task.agent_info(step.state)["position"]["agents"][0].tolist() == [[2, 2], [2, 2], [2, 3]]
    assert {key: value.item() for key, value in step.info.items()} == {
        "collisions": 2.0,
        "entered": 0.0,
        "completed": 0.0,
        "brakes": 1.0,
    }
    assert not step.terminated.item()
    yields = stepped(task, state, BRAKE, GAS, GAS)
    assert yields.info["collisions"].item() == 0.0 and yields.state.braked[0, 0]


def test_cars_leave_at_the_end_and_the_freed_agents_get_new_ones():
    task = make_task("traffic_junction", **EASY)
    state = cars(task, (0, 4, 9), (1, 1, 3), None)
    step = stepped(task, state, GAS, GAS, BRAKE, arrive=(0.1, 0.6), agent=[0.9, 0.0, 0.2])
    assert step.state.driving.tolist() == [[False, True, True]]
    assert step.state.route[0, 2] == 0 and step.info["entered"].item() == 1.0
    assert step.info["completed"].item() == 1.0
    torch.testing.assert_close(step.reward["agents"], torch.tensor([[0.0, -0.04, 0.0]]))
    both = stepped(task, state, GAS, GAS, BRAKE, arrive=(0.1, 0.1), agent=[0.9, 0.0, 0.2])
    assert both.state.route.tolist() == [[1, 1, 0]] and both.state.wait.tolist() == [[0, 4, 0]]
    full = stepped(task, state, BRAKE, GAS, BRAKE, arrive=(0.1, 0.1))
    assert full.state.driving.all() and full.info["entered"].item() == 1.0


def test_who_waits_at_the_entry_is_hit_unless_entries_are_safe():
    state = cars(None, (0, 0, 1), None, None)
    for safe, collisions in ((False, 2.0), (True, 0.0)):
        task = make_task("traffic_junction", **EASY, safe_entry=safe)
        step = stepped(task, state, BRAKE, BRAKE, BRAKE, arrive=(0.1, 0.9))
        assert step.info["collisions"].item() == collisions


def test_the_team_reward_is_the_mean():
    task = make_task("traffic_junction", **EASY, team_reward=True)
    step = stepped(task, cars(task, (0, 1, 1), (1, 1, 4), None), GAS, GAS, BRAKE)
    torch.testing.assert_close(step.reward["agents"], torch.full((1, 3), -20.07 / 3))


def test_views_masks_and_who_has_no_car():
    task = make_task("traffic_junction", **EASY)
    state = cars(task, (0, 1, 1), (1, 1, 4), None)  # above and left of the crossing
    seen = task.observe(state)["agents"][0]
    assert seen[0, -9:].tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 0]
    assert seen[1, -9:].tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert seen[0, :9].argmax() == 1 and seen[0, 9:11].tolist() == [1, 0] and not seen[2].any()
    assert task.action_mask(state)["agents"].tolist() == [[[True, True]] * 2 + [[False, True]]]
    assert task.alive(state)["agents"].tolist() == [[True, True, False]]
    for action in (GAS, BRAKE):  # a policy that ignores the mask changes nothing
        ignored = stepped(task, state, BRAKE, BRAKE, action).state
        assert ignored.driving.tolist() == [[True, True, False]] and ignored.place[0, 2] == 0


def test_dead_agents_never_brake_and_lost_messages_hide_others_only():
    task = make_task("traffic_junction", n_agents=10, dead_agents=0.3, message_dropout=1.0)
    generator = torch.Generator().manual_seed(0)
    state = task.reset(50, task.draw_reset(50, generator))
    assert ((~state.works).sum(-1) == 3).all()
    for _ in range(12):
        step = task.step(
            state, {"agents": torch.full((50, 10), BRAKE)}, task.draw_step(50, generator)
        )
        moved = (step.state.place != state.place) | ~step.state.driving
        stayed = state.driving & ~moved
        assert not (stayed & ~state.works).any()
        state = step.state
    assert (
        task.action_mask(state)["agents"][~state.works & state.driving] == torch.tensor([1, 0])
    ).all()
    view = task.observe(state)["agents"][..., -9:]
    assert view[..., 4][state.driving].ge(1).all() and view.sum(-1).eq(view[..., 4]).all()


# ----------------------------------------------------------------------------------- beside a loop
def loop_step(task, row, actions, noise):
    """The published rules, car by car: `row` is a list of [route, place, wait] or None per agent."""
    p, routes = (
        task.params,
        [r for entry in build(task.params.layout, task.params.size).routes for r in entry],
    )
    row = [None if car is None else list(car) for car in row]
    for i, car in enumerate(row):
        if car is not None:
            car[2] += 1
            car[1] += actions[i] == GAS
            if car[1] == len(routes[car[0]]):
                row[i] = None
    per = len(routes) // task.n_entries
    for entry in range(task.n_entries):
        free = [i for i, car in enumerate(row) if car is None]
        if free and noise["arrive"][entry] < p.p_arrive:
            chosen = min(free, key=lambda i: noise["agent"][i])
            row[chosen] = [entry * per + int(noise["choice"][entry] * per), 0, 0]
    cells = [None if car is None else routes[car[0]][car[1]] for car in row]
    hits = [cell is not None and cells.count(cell) > 1 for cell in cells]
    reward = [
        0.0 if car is None else -0.01 * car[2] - 10.0 * hit
        for car, hit in zip(row, hits, strict=True)
    ]
    return row, cells, reward, sum(hits)


def as_rows(state, env):
    fields = zip(*(part[env].tolist() for part in state[:4]), strict=True)
    return [[route, place, int(wait)] if on else None for route, place, on, wait in fields]


@given(
    layout=st.sampled_from(["easy", "medium", "hard"]),
    n_agents=st.integers(1, 12),
    p_arrive=st.floats(0.0, 1.0),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None)
def test_a_step_is_that_of_the_loop_and_no_car_is_lost(layout, n_agents, p_arrive, seed):
    size = {"easy": 5, "medium": 6, "hard": 9}[layout]
    task = make_task(
        "traffic_junction", layout=layout, size=size, n_agents=n_agents, p_arrive=p_arrive
    )
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(4, task.draw_reset(4, generator))
    for _ in range(12):
        action = (torch.rand(4, n_agents, generator=generator) < 0.3).long()
        noise = task.draw_step(4, generator)
        step = task.step(state, {"agents": action}, noise)
        assert step.reward["agents"].isfinite().all()
        place = task.agent_info(step.state)["position"]["agents"]
        before, after = state.driving.sum(-1), step.state.driving.sum(-1)
        assert torch.equal(before + step.info["entered"] - step.info["completed"], after.float())
        for env in range(4):
            row = {name: value[env].numpy() for name, value in noise.items()}
            rows, cells, reward, hits = loop_step(
                task, as_rows(state, env), action[env].tolist(), row
            )
            assert as_rows(step.state, env) == rows
            assert step.info["collisions"][env] == hits
            np.testing.assert_allclose(step.reward["agents"][env], reward, atol=1e-5)
            shown = [None if p[0] < 0 else (int(p[0]), int(p[1])) for p in place[env].tolist()]
            assert shown == cells
        state = step.state


def test_agents_are_alike():
    """Other indices for the agents, other rows of the same numbers."""
    task = make_task("traffic_junction", n_agents=6, p_arrive=0.6)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(6, generator=generator)
    state = task.reset(5, task.draw_reset(5, generator))
    for _ in range(10):
        action, noise = torch.randint(2, (5, 6), generator=generator), task.draw_step(5, generator)
        mixed = TrafficState(*(part[:, order] for part in state))
        other = {**noise, "agent": noise["agent"][:, order], "hide": noise["hide"][:, order]}
        step = task.step(state, {"agents": action}, noise)
        again = task.step(mixed, {"agents": action[:, order]}, other)
        assert torch.equal(again.reward["agents"], step.reward["agents"][:, order])
        seen = task.observe(again.state)["agents"]
        assert torch.equal(seen, task.observe(step.state)["agents"][:, order])
        state = step.state


# ----------------------------------------------------------------------------------- environments
@pytest.mark.parametrize(
    "params", [{}, {"level": "hard", "dead_agents": 0.2, "message_dropout": 0.5}]
)
def test_specs_hold(params):
    check_env_specs(make_env("traffic_junction", 3, **params))


def test_time_truncates():
    env = make_env("traffic_junction", 3, p_arrive=1.0, max_steps=4)
    td = env.rollout(9, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert not td["next", "terminated"].any()


# ---------------------------------------------------------------------------------------- judging
def test_cars_move_together_behind_one_another_and_in_rings():
    outside = 9

    def moves(cells, targets, age=None):
        age = torch.tensor([age or [0.0] * len(cells)])
        return may_move(torch.tensor([cells]), torch.tensor([targets]), age, outside)[0].tolist()

    assert moves([0, 1, 2], [1, 2, 3]) == [True] * 3
    assert moves([0, 1, 2, 3], [1, 2, 3, 0]) == [True] * 4
    assert moves([0, 1, 4], [1, 2, 2], [0.0, 1.0, 5.0]) == [False, False, True]
    assert moves([0, 1, 4], [1, 2, 2], [0.0, 5.0, 1.0]) == [True, True, False]
    assert moves([0, 1, outside, 5], [outside, 0, outside, 2]) == [True] * 4


@given(level=st.sampled_from(["easy", "medium", "hard"]), seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_right_of_way_never_collides_where_entries_are_safe(level, seed):
    env = make_env("traffic_junction", 16, seed=seed, level=level, p_arrive=0.9, safe_entry=True)
    td, policy = env.reset(), env.task.baselines()["right_of_way"]
    for _ in range(env.task.params.max_steps - 1):
        td = env.step(policy(td))["next"]
        assert not td["info", "collisions"].any()


def test_right_of_way_spares_queues_that_reach_an_entry():
    env = make_env("traffic_junction", 256, level="easy", p_arrive=0.6)
    td, policy = env.reset(), env.task.baselines()["right_of_way"]
    for _ in range(19):
        td = env.step(policy(td))["next"]
        assert not td["info", "collisions"].any()


def test_policies_by_rule_come_in_their_known_order():
    table = baseline_table("t", make_task("traffic_junction", level="easy"), 64, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["random"] < 0.1 < found["always_gas"] < 0.5 < 0.97 < found["right_of_way"]
    assert found["right_of_way"] <= table.optimum.value == 1.0


def brute_force(size, n_cars, p, n_steps):
    """The best probability by recursion over lists of cars `(road, place)`, joint action by joint action."""
    crossing = size // 2

    def clash(state):
        cells = [(road, place) if place != crossing else "x" for road, place in state]
        return len(set(cells)) < len(cells)

    def arrivals(state, road):
        if road == 2:
            return [(1.0, state)]
        if len(state) >= n_cars:
            return arrivals(state, 2)
        came, not_came = arrivals((*state, (road, 0)), road + 1), arrivals(state, road + 1)
        return [(p * q, s) for q, s in came] + [((1 - p) * q, s) for q, s in not_came]

    def value(state, left):
        if clash(state):
            return 0.0
        if left == 0:
            return 1.0
        best = 0.0
        for moves in itertools.product((0, 1), repeat=len(state)):
            after = [(road, place + m) for (road, place), m in zip(state, moves, strict=True)]
            after = tuple(car for car in after if car[1] < size)
            if not clash(after):
                best = max(best, sum(q * value(s, left - 1) for q, s in arrivals(after, 0)))
        return best

    return value((), n_steps)


@pytest.mark.parametrize(
    ("size", "n_cars", "p", "n_steps"), [(3, 4, 0.6, 4), (3, 2, 0.5, 4), (4, 4, 0.9, 4)]
)
def test_the_programme_equals_trying_everything(size, n_cars, p, n_steps):
    value = best_share(size, n_cars, p, n_steps)
    assert value == pytest.approx(brute_force(size, n_cars, p, n_steps), abs=1e-12)
    assert best_share(size, n_cars, p, n_steps, safe_entry=True) == pytest.approx(1.0)


def test_a_bound_on_every_map():
    bound = make_task("traffic_junction").optimum()
    assert (bound.value, bound.kind) == (1.0, "upper")
    busy = make_task("traffic_junction", level="easy", n_agents=10, p_arrive=0.9).optimum()
    assert busy.value < 0.1 and "backward induction" in busy.how


def test_a_series_and_a_picture():
    env = make_env("traffic_junction", 2, p_arrive=0.9)
    env.rollout(8)
    (line,) = env.task.episode_series(env.state).values()
    assert line.shape == (2, 3)
    shown = env.render(index=1)
    assert shown.shape == (446, 420, 3) and shown.dtype == np.uint8
    assert not np.array_equal(shown, env.render(index=0))
