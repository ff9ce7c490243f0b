"""Intersection: geometry, steps by hand, a shield without holes, rules, sensing, environments."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.intersection import IntersectionState, dynamics
from marl_td.tasks.intersection.params import braking_distance
from marl_td.tasks.intersection.paths import LENGTH, WIDTH
from marl_td.tasks.intersection.sensing import read_state

BRAKE, KEEP, GO = 0, 1, 2
RIGHT, STRAIGHT, LEFT = 0, 1, 2
SOUTH, WEST, NORTH, EAST = 0, 3, 6, 9


def vehicles(*rows, step=0):
    """One environment: `(movement, s, v)` per vehicle; all on the road, none committed unless it must be."""
    n = len(rows)
    movement, s, v = (torch.tensor([[row[k] for row in rows]]) for k in range(3))
    no = torch.zeros(1, n, dtype=torch.bool)
    stop = s.float() + dynamics.stop_distance(make_task("intersection").params, v.float())
    return IntersectionState(
        s.float(),
        v.float(),
        torch.zeros(1, n),
        movement,
        torch.zeros(1, n, dtype=torch.long),
        ~no,
        no,
        stop > 59.5,
        ~no,
        no.unsqueeze(-1)[..., :0],
        no,
        torch.tensor([step]),
    )


def stepped(state, *actions, **params):
    """The step of one environment."""
    task = make_task("intersection", continuous=False, n_agents=len(actions), **params)
    noise = {"lost": torch.ones(1, len(actions), 0)}
    return task.step(state, {"agents": torch.tensor([actions])}, noise)


# --------------------------------------------------------------------------------------- geometry
def test_the_conflicts_are_those_of_the_textbook():
    """Four one-lane roads: 16 pairs of paths cross, 12 merge, and opposite left turns pass each other."""
    found = make_task("intersection").paths
    assert torch.equal(found.conflict, found.conflict.T) and found.conflict.sum() == 2 * 28
    exits = {(a, t): (a + (3, 2, 1)[t]) % 4 for a in range(4) for t in range(3)}
    merges = [
        bool(found.conflict[3 * a + t, 3 * b + u])
        for (a, t), out in exits.items()
        for (b, u), other in exits.items()
        if a < b and out == other
    ]
    assert merges == [True] * 12
    assert not found.conflict[SOUTH + LEFT, NORTH + LEFT]
    assert not found.conflict[SOUTH + STRAIGHT, NORTH + STRAIGHT]
    assert not found.conflict[:, :].diagonal().any() and not found.conflict[:3, :3].any()
    turned = found.conflict.roll((3, 3), (0, 1))
    assert torch.equal(turned, found.conflict)  # alike from every approach


def test_paths_are_as_long_as_they_say_and_end_in_the_right_lane():
    found = make_task("intersection").paths
    length = found.points[:, :, :2].diff(dim=1).norm(dim=-1).sum(-1)
    torch.testing.assert_close(length, found.end, atol=0.01, rtol=0)
    assert found.inside[:3].tolist() == pytest.approx([5.25 * math.pi / 2, 14, 8.75 * math.pi / 2])
    ends = found.points[:, -1]
    torch.testing.assert_close(ends[SOUTH + RIGHT], torch.tensor([12.0, -1.75, 0.0]))
    torch.testing.assert_close(ends[SOUTH + LEFT], torch.tensor([-12.0, 1.75, math.pi]))
    torch.testing.assert_close(ends[WEST + STRAIGHT, :2], torch.tensor([12.0, -1.75]))
    torch.testing.assert_close(ends[EAST + RIGHT, :2], torch.tensor([1.75, 12.0]))


def test_outside_their_intervals_conflicting_paths_keep_a_vehicle_s_width():
    found = make_task("intersection").paths
    position = torch.arange(found.points.shape[1]) * 0.25
    for i, j in found.conflict.nonzero().tolist():
        before = (position < found.enter[i, j]) & (position < 60 + found.inside[i])
        other = position <= 60 + found.inside[j]
        gap = torch.cdist(found.points[i, before, :2], found.points[j, other, :2]).min()
        assert gap >= WIDTH
    assert found.enter[found.conflict].min() > 60.0
    assert found.shared[SOUTH, SOUTH + LEFT] > 60.0 and found.shared[0, 3] < 0.0


# ---------------------------------------------------------------------------------------- by hand
@given(v=st.floats(0.0, 12.0))
def test_the_braking_distance_is_that_of_braking(v):
    params = make_task("intersection").params
    s, left = 0.0, v
    while left > 0.0:
        new = max(left - 0.6, 0.0)
        s, left = s + (left + new) * 0.1, new
    assert braking_distance(params, v) == pytest.approx(s, abs=1e-6)
    found = dynamics.stop_distance(params, torch.tensor(v, dtype=torch.float32))
    assert found.item() == pytest.approx(s, abs=1e-4)


def test_vehicles_move_and_all_share_the_cost():
    state = vehicles((SOUTH + STRAIGHT, 10.0, 10.0), (WEST + LEFT, 20.0, 12.0))
    step = stepped(state, BRAKE, GO)
    torch.testing.assert_close(step.state.s, torch.tensor([[11.94, 22.4]]))
    torch.testing.assert_close(step.state.v, torch.tensor([[9.4, 12.0]]))
    torch.testing.assert_close(step.state.a, torch.tensor([[-3.0, 0.0]]))
    torch.testing.assert_close(step.info["delay"], torch.tensor([0.2 - 1.94 / 12]))
    torch.testing.assert_close(step.reward["agents"], torch.full((1, 2), -0.2 - 0.01 * 3 / 2))
    assert not step.terminated.item() and step.info["overridden"].item() == 0.0


def test_of_two_that_would_commit_the_earlier_does_and_the_other_brakes():
    state = vehicles((SOUTH + STRAIGHT, 57.0, 3.0), (WEST + STRAIGHT, 57.0, 3.0))
    step = stepped(state, GO, GO)
    assert step.state.committed.tolist() == [[True, False]]
    assert step.info["overridden"].item() == 1.0
    torch.testing.assert_close(step.state.v, torch.tensor([[3.4, 2.4]]))
    both = stepped(vehicles((SOUTH + STRAIGHT, 57.0, 3.0), (NORTH + STRAIGHT, 57.0, 3.0)), GO, GO)
    assert both.state.committed.all()
    yields = stepped(state, BRAKE, GO)  # who comes first may let the other go
    assert yields.state.committed.tolist() == [[False, True]]


def test_who_is_past_a_conflict_blocks_it_no_more():
    leave = make_task("intersection").paths.leave[SOUTH + STRAIGHT, WEST + STRAIGHT].item()
    for s, passes in ((leave + LENGTH - 0.1, False), (leave + LENGTH, True)):
        state = vehicles((SOUTH + STRAIGHT, s, 10.0), (WEST + STRAIGHT, 59.45, 0.0))
        assert stepped(state, GO, GO).state.v[0, 1].item() == pytest.approx(0.4 * passes)


def test_a_follower_brakes_for_its_leader():
    state = vehicles((SOUTH, 30.0, 0.0), (SOUTH + LEFT, 12.0, 8.0))
    step = stepped(state, BRAKE, KEEP)
    assert step.info["overridden"].item() == 1.0
    free = vehicles((SOUTH + STRAIGHT, 72.0, 0.0), (SOUTH + LEFT, 50.0, 5.0))
    assert stepped(free, BRAKE, KEEP).info["overridden"].item() == 0.0  # their ways have parted


def test_a_collision_ends_it_and_blocks_the_junction():
    state = vehicles(
        (SOUTH + STRAIGHT, 66.0, 5.0), (WEST + STRAIGHT, 66.0, 5.0), (NORTH, 5.0, 12.0)
    )
    step = stepped(state, KEEP, KEEP, KEEP, shield=False)
    assert step.terminated.item() and step.info["collisions"].item() == 2.0
    lost = 0.2 + 299 * 0.2
    torch.testing.assert_close(step.reward["agents"], torch.full((1, 3), -lost - 10.0))
    torch.testing.assert_close(step.info["delay"], torch.tensor([3 * lost - (1 + 1 + 2.4) / 12]))
    rear = vehicles((SOUTH, 20.0, 0.0), (SOUTH, 14.5, 5.0))
    assert stepped(rear, BRAKE, KEEP, shield=False).info["collisions"].item() == 2.0


def test_it_ends_when_all_have_left():
    end = make_task("intersection").paths.end
    state = vehicles((SOUTH, end[SOUTH].item() - 1.0, 10.0))
    step = stepped(state, KEEP)
    assert step.terminated.item() and step.info["left"].item() == 1.0 and step.state.done.all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 65}, "n_agents must be in 1 to 64; got 65"),
        ({"approach": 20.0}, "approach must be at least 25.0 m, so that .* 12 m/s can stop"),
        (
            {"turn_shares": [0.5, 0.5, 0.5]},
            "turn_shares must be three probabilities that add up to 1",
        ),
        ({"arrival_rate": 0.0}, "arrival_rate must be above 0; got 0"),
        ({"n_seen": 0}, "n_seen must be at least 1; got 0"),
        ({"jerk_weight": -1.0}, "jerk_weight must be at least 0; got -1"),
    ],
)
def test_parameters_out_of_range_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("intersection", **params)


# ------------------------------------------------------------------------------------- no collision
def play(task, policy, n_envs, seed, n_steps=300):
    """States and steps of an episode, without resets."""
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, generator))
    for _ in range(n_steps):
        noise = task.draw_step(n_envs, generator)
        step = task.step(state, {"agents": policy(state, generator)}, noise)
        yield state, step
        state = step.state


@given(
    seed=st.integers(0, 10_000),
    persistence=st.sampled_from([1, 5, 40]),
    go=st.sampled_from([0.4, 0.7, 0.95]),
    continuous=st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_with_the_shield_no_actions_lead_to_a_collision_and_nobody_is_lost(
    seed, persistence, go, continuous
):
    params = {"n_agents": 14, "arrival_rate": 1.5}
    task = make_task("intersection", continuous=continuous, **params)
    held = {}

    def policy(state, generator):
        k = int(state.step[0])
        if k % persistence == 0:
            draw = torch.rand(state.s.shape, generator=generator)
            held["a"] = torch.where(draw < go, GO, (3 * draw).long())
            held["c"] = (6 * torch.rand((*state.s.shape, 1), generator=generator) - 3).clamp(-3, 2)
        return held["c"] if continuous else held["a"]

    total, time = torch.zeros(16), torch.zeros(16)
    for state, step in play(task, policy, 16, seed, 150):
        assert step.info["collisions"].eq(0).all() and step.reward["agents"].isfinite().all()
        new = step.state
        assert (new.s >= state.s).all() and new.v.ge(0).all() and new.v.le(12).all()
        assert not (new.active & new.done).any() and (new.done | ~state.done).all()
        total += step.info["delay"]
        came = state.comes <= state.step.unsqueeze(-1)
        time += 0.2 * (came & ~state.done).sum(-1)
    torch.testing.assert_close(total, time - new.s.sum(-1) / 12.0, atol=1e-2, rtol=0)


@given(
    seed=st.integers(0, 10_000),
    rule=st.sampled_from(["all_way_stop", "first_come_first_served", "first_there_first"]),
    shield=st.booleans(),
)
@settings(max_examples=4, deadline=None)
def test_rules_never_collide_with_or_without_the_shield_and_bring_everybody_through(
    seed, rule, shield
):
    params = {"n_agents": 8, "arrival_rate": 1.0, "max_steps": 500}
    env = make_env("intersection", 8, seed=seed, shield=shield, **params)
    td, policy = env.reset(), env.task.baselines()[rule]
    ended = torch.zeros(8, dtype=torch.bool)
    for _ in range(500):
        td = env.step(policy(td))["next"]
        assert td["info", "collisions"].eq(0).all()
        ended |= td["terminated"][:, 0]
        if ended.all():
            break
    assert ended.all()


def test_the_delay_is_the_time_beyond_driving_freely():
    task = make_task("intersection", continuous=False, n_agents=1)
    steps = [step for _, step in play(task, lambda s, g: torch.full(s.s.shape, GO), 20, 0)]
    delay = torch.stack([step.info["delay"] for step in steps]).sum(0)
    assert delay.abs().max() < 0.2  # the last step is a whole one
    left = torch.stack([step.info["left"] for step in steps]).sum(0)
    assert (left == 1).all()


# ---------------------------------------------------------------------------------------- sensing
def test_what_a_vehicle_sees():
    task = make_task("intersection", n_agents=4, n_seen=2)
    state = vehicles(
        (SOUTH + LEFT, 40.0, 6.0),
        (NORTH + STRAIGHT, 50.0, 3.0),
        (SOUTH, 20.0, 12.0),
        (EAST, 30.0, 9.0),
    )
    seen = task.observe(state)["agents"][0]
    expected = [20 / 60, 0.5, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    torch.testing.assert_close(seen[0, :12], torch.tensor(expected))
    opposite = [1, 10 / 60, 0.25, 0, 1, 0, 1, 0, 0, 1, 0]
    torch.testing.assert_close(seen[0, 12:23], torch.tensor(opposite))
    assert not seen[0, 23:].any()
    torch.testing.assert_close(seen[2, 8:11], torch.tensor([1, 15 / 60, 0.5]))
    pair = vehicles((SOUTH + STRAIGHT, 40.0, 6.0), (WEST + LEFT, 30.0, 9.0))
    other = make_task("intersection", n_agents=2).observe(pair)["agents"][0, :, 12:23]
    from_left, from_right = (
        [1, 0.5, 0.75, 0, 0, 1, 0, 0, 0, 0, 1],
        [1, 20 / 60, 0.5, 0, 1, 0, 0, 1, 0, 1, 0],
    )
    torch.testing.assert_close(other, torch.tensor([from_left, from_right]))


def test_all_approaches_are_alike():
    task = make_task("intersection")
    generator = torch.Generator().manual_seed(0)
    state = task.reset(8, task.draw_reset(8, generator))
    for _ in range(60):
        a = 5 * torch.rand((8, 12, 1), generator=generator) - 3
        noise = task.draw_step(8, generator)
        turned = state._replace(movement=(state.movement + 3) % 12)
        step, again = (task.step(s, {"agents": a}, noise) for s in (state, turned))
        torch.testing.assert_close(again.reward, step.reward)
        torch.testing.assert_close(task.observe(again.state), task.observe(step.state))
        state = step.state


def test_the_global_state_tells_everything_that_rules_need():
    task = make_task("intersection", continuous=False)
    policy = task.baselines()["first_there_first"]
    generator = torch.Generator().manual_seed(0)
    env = make_env("intersection", 8, continuous=False)
    td = env.reset()
    for _ in range(60):
        td = env.step(
            policy(td) if torch.rand(1, generator=generator) < 0.8 else env.rand_action(td)
        )
        td = td["next"]
    read, true = read_state(task.params, task.team_state(env.state)), env.state
    for name in ("s", "v", "a"):
        torch.testing.assert_close(getattr(read, name), getattr(true, name), atol=1e-3, rtol=1e-4)
    for name in ("active", "done", "committed", "works", "step"):
        assert torch.equal(getattr(read, name), getattr(true, name))
    came = true.comes <= true.step.unsqueeze(-1)
    assert torch.equal(read.movement[came], true.movement[came])


def test_masks_are_what_the_shield_lets_pass():
    task = make_task("intersection", continuous=False, n_agents=3)
    state = vehicles(
        (SOUTH + STRAIGHT, 66.0, 2.0), (WEST + STRAIGHT, 59.45, 0.0), (NORTH + STRAIGHT, 59.45, 0.0)
    )
    mask = task.action_mask(state)["agents"][0]
    assert mask.tolist() == [[True] * 3, [True, True, False], [True] * 3]
    free = make_task("intersection", continuous=False, n_agents=3, shield=False)
    assert free.action_mask(state)["agents"].all()


def test_dead_agents_accelerate_and_lost_messages_hide_others():
    task = make_task("intersection", n_agents=10, dead_agents=0.3, message_dropout=1.0)
    rows = list(play(task, lambda s, g: torch.full((*s.s.shape, 1), -3.0), 20, 0, 80))
    state, step = rows[-1]
    assert ((~state.works).sum(-1) == 3).all()
    assert (step.state.done & ~state.works).any() and not (step.state.done & state.works).any()
    seen = task.observe(step.state)["agents"]
    assert not seen[..., 8:].any() and seen.any()
    assert not (task.alive(step.state)["agents"] & ~state.works).any()


# ----------------------------------------------------------------------------------- environments
@pytest.mark.parametrize("continuous", [True, False])
def test_specs_hold(continuous):
    check_env_specs(make_env("intersection", 3, continuous=continuous, message_dropout=0.5))


def test_arrivals_have_the_rate_and_the_shares():
    task = make_task("intersection", n_agents=40)
    state = task.reset(2000, task.draw_reset(2000, torch.Generator().manual_seed(0)))
    assert 0.2 * state.comes[:, -1].float().mean().item() / 40 == pytest.approx(1 / 0.6, rel=0.02)
    share = torch.bincount(state.movement.flatten(), minlength=12) / state.movement.numel()
    expected = torch.tensor([0.25, 0.5, 0.25] * 4) / 4
    torch.testing.assert_close(share, expected, atol=0.005, rtol=0)
    assert (state.comes.diff(dim=1) >= 0).all()


def test_time_truncates():
    env = make_env("intersection", 3, max_steps=30)
    td = env.rollout(30, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [29]
    assert not td["next", "terminated"].any()


def test_policies_by_rule_come_in_their_known_order():
    task = make_task("intersection", continuous=False, n_agents=5, arrival_rate=0.5)
    table = baseline_table("t", task, 32, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["first_there_first"] < found["first_come_first_served"] < 4.0
    assert 4.0 < found["all_way_stop"] < found["random"]
    assert 0.0 < table.optimum.value < found["first_there_first"] and table.optimum.kind == "lower"


def test_series_and_pictures():
    env = make_env("intersection", 2)
    env.rollout(20)
    counts, speeds = env.task.episode_series(env.state).values()
    assert counts.shape == (2, 3) and speeds.shape == (2, 12)
    shown = env.render(index=1)
    assert shown.shape == (586, 560, 3) and shown.dtype == np.uint8
    assert not np.array_equal(shown, env.render(index=0))
