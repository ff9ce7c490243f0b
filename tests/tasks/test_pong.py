"""Pong: steps by hand, a ball followed wall by wall, mirror images, failures, what the rules make of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.evaluation.scores import evaluate_policy
from marl_td.tasks import make_env, make_task
from marl_td.tasks.pong import PongParams, PongState
from marl_td.tasks.pong.params import most_hits, safe_hits
from marl_td.tasks.pong.task import DOWN, STAY, UP

GROUPS = ("left", "right")
CALM = {"side": torch.tensor([0.0]), "slope": torch.tensor([0.5])}


def placed(ball, velocity, left=(0.5,), right=(0.5,), hits=0.0, **params):
    """A task with discrete actions and a state of one environment."""
    task = make_task("pong", continuous=False, n_agents=2 * len(left), **params)
    n = task.params.n_agents
    state = PongState(
        position=torch.tensor([ball]),
        velocity=torch.tensor([velocity]),
        paddle=torch.tensor([[left, right]]),
        points=torch.zeros(1, 2),
        hits=torch.tensor([hits]),
        alive=torch.ones(1, 2, len(left), dtype=torch.bool),
        heard=torch.ones(1, n, n, dtype=torch.bool),
    )
    return task, state


def stepped(task, state, left=(STAY,), right=(STAY,)):
    return task.step(state, {"left": torch.tensor([left]), "right": torch.tensor([right])}, CALM)


def near(tensor, values):
    torch.testing.assert_close(tensor, torch.tensor(values), atol=1e-6, rtol=0.0)


def played(task, n_steps, seed=0, n_envs=64):
    """States and noise of random play, with actions; one step after the other."""
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, generator))
    for _ in range(n_steps):
        shape = (n_envs, task.params.n_side)
        if task.continuous:
            action = {g: 3 * torch.rand((*shape, 1), generator=generator) - 1.5 for g in GROUPS}
        else:
            action = {g: torch.randint(3, shape, generator=generator) for g in GROUPS}
        noise = task.draw_step(n_envs, generator)
        step = task.step(state, action, noise)
        yield state, action, noise, step
        state = step.state


# ------------------------------------------------------------------------------------ by hand
def test_a_ball_flies_straight_and_off_the_walls():
    task, state = placed((0.5, 0.9), (0.03, 0.04))
    for height, rise in ((0.94, 0.04), (0.98, 0.04), (0.98, -0.04), (0.94, -0.04)):
        state = stepped(task, state).state
        near(state.position[0, 1], height)
        near(state.velocity[0], [0.03, rise])
    near(state.position[0, 0], 0.62)


def test_paddles_move_first_and_stop_at_the_walls():
    task, state = placed((0.5, 0.5), (0.03, 0.0), left=(0.5,), right=(0.885,))
    near(stepped(task, state, (DOWN,), (UP,)).state.paddle[0], [[0.48], [0.9]])
    free = make_task("pong", continuous=True)
    action = {"left": torch.tensor([[[0.5]]]), "right": torch.tensor([[[-7.0]]])}
    near(free.step(state, action, CALM).state.paddle[0], [[0.51], [0.865]])


@pytest.mark.parametrize(("height", "degrees"), [(0.5, 0.0), (0.55, 22.5), (0.42, -36.0)])
def test_a_paddle_sends_the_ball_back_faster_and_by_where_it_meets_it(height, degrees):
    """At the line after a third of the step; the other two thirds go back at 0.05 x 1.05 ** 3."""
    task, state = placed((0.01, height), (-0.03, 0.0), hits=2.0)
    step = stepped(task, state)
    speed, angle = 0.03 * 1.05**3, math.radians(degrees)
    flown = torch.tensor([speed * math.cos(angle), speed * math.sin(angle)])
    torch.testing.assert_close(step.state.velocity[0], flown)
    near(step.state.position[0], [2 / 3 * flown[0], height + 2 / 3 * flown[1]])
    assert (step.info["hits"].item(), step.state.hits.item()) == (1.0, 3.0)
    assert not step.terminated.item() and step.reward["left"].item() == 0.0


def test_the_ball_gets_no_faster_than_the_limit():
    task, state = placed((0.01, 0.5), (-0.2, 0.0), hits=90.0)
    near(stepped(task, state).state.velocity[0], [0.2, 0.0])


def test_a_miss_is_a_point_for_the_other_side():
    task, state = placed((0.99, 0.61), (0.03, 0.0))
    step = stepped(task, state)
    assert (step.reward["left"].item(), step.reward["right"].item()) == (1.0, -1.0)
    assert step.state.points.tolist() == [[1.0, 0.0]] and step.terminated.item()
    assert (step.info["left_points"].item(), step.info["right_points"].item()) == (1.0, 0.0)
    assert not stepped(task, state, right=(UP,)).terminated.item()  # it reached the ball
    near(step.state.position[0], [1.0, 0.61])


def test_it_is_served_anew_until_a_side_has_enough_points():
    _, state = placed((0.01, 0.9), (-0.03, 0.0), hits=5.0)
    task = make_task("pong", continuous=False, points=2)
    step = stepped(task, state, left=(DOWN,))
    assert not step.terminated.item() and step.reward["right"].item() == 1.0
    near(step.state.position[0], [0.5, 0.5])
    near(step.state.velocity[0], [-0.03, 0.0])
    assert step.state.hits.item() == 0.0
    near(step.state.paddle[0], [[0.48], [0.5]])
    again = state._replace(points=torch.tensor([[0.0, 1.0]]))
    assert stepped(task, again).terminated.item()


def test_in_coop_a_hit_counts_for_all_and_a_miss_for_nobody():
    task, state = placed((0.01, 0.5), (-0.03, 0.0), mode="coop")
    step = stepped(task, state)
    assert (step.reward["left"].item(), step.reward["right"].item()) == (1.0, 1.0)
    step = stepped(task, state._replace(paddle=torch.tensor([[[0.7], [0.5]]])))
    assert (step.reward["left"].item(), step.reward["right"].item()) == (0.0, 0.0)
    assert step.terminated.item()


def test_the_nearest_paddle_of_a_team_hits():
    task, state = placed((0.01, 0.5), (-0.03, 0.0), left=(0.42, 0.55), right=(0.25, 0.75))
    both = (STAY, STAY)
    velocity = stepped(task, state, both, both).state.velocity[0]
    torch.testing.assert_close(torch.atan2(velocity[1], velocity[0]).item(), -math.radians(22.5))
    dead = state._replace(alive=torch.tensor([[[True, False], [True, True]]]))
    velocity = stepped(task, dead, both, both).state.velocity[0]
    torch.testing.assert_close(torch.atan2(velocity[1], velocity[0]).item(), math.radians(36.0))


# -------------------------------------------------------------------- followed wall by wall
def followed(params, position, velocity, hits, paddles, alive):
    """One step of a ball, from event to event: the end, a hit, and who missed."""
    (x, y), (vx, vy), left, hit = position, velocity, 1.0, False
    while True:
        to_wall = ((1.0 if vy > 0 else 0.0) - y) / vy if vy else math.inf
        line = 1.0 if vx > 0 else 0.0
        to_line = (line - x) / vx
        time = min(to_wall, to_line, left)
        x, y, left = x + vx * time, y + vy * time, left - time
        if left <= 0.0:
            return (x, y), (vx, vy), hit, None
        if time == to_line:
            side = int(line)
            offsets = [y - p for p, lives in zip(paddles[side], alive[side], strict=True) if lives]
            offset = min(offsets, key=abs, default=math.inf)
            if abs(offset) > params.half_length:
                return (line, y), (vx, vy), False, side
            angle = offset / params.half_length * params.sharpest
            speed = min(params.serve_speed * params.speed_up ** (hits + 1), params.max_speed)
            vx, vy = (1 - 2 * side) * speed * math.cos(angle), speed * math.sin(angle)
            x, hit = line, True
        else:
            vy = -vy


@given(n_side=st.integers(1, 2), dead=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_step_is_that_of_the_ball_followed(n_side, dead, seed):
    options = {"serve_speed": 0.2, "max_speed": 0.5, "half_length": 0.2, "points": 3}
    task = make_task("pong", n_agents=2 * n_side, dead_agents=dead, max_angle=70.0, **options)
    for state, _, _, step in played(task, 8, seed, n_envs=24):
        for env in range(24):
            before = [part[env].double().tolist() for part in state[:2]]
            paddles, alive = step.state.paddle[env].double().tolist(), state.alive[env].tolist()
            end, velocity, hit, misser = followed(
                task.params, *before, state.hits[env].item(), paddles, alive
            )
            missed = [0.0, 0.0]
            if misser is not None:
                missed[1 - misser] = 1.0
            assert step.info["hits"][env].item() == float(hit)
            assert (step.state.points - state.points)[env].tolist() == missed
            over = max(step.state.points[env].tolist()) >= 3
            assert step.terminated[env].item() == over
            if misser is None or over:
                near(step.state.position[env], list(end))
                if misser is None:
                    torch.testing.assert_close(
                        step.state.velocity[env], torch.tensor(velocity), atol=1e-5, rtol=1e-4
                    )


# ------------------------------------------------------------------------------ symmetries
def mirrored(state):
    """The same with left and right exchanged."""
    flip = torch.tensor([-1.0, 1.0])
    n = state.heard.shape[1]
    order = torch.arange(n).roll(n // 2)
    return PongState(
        position=torch.stack([1.0 - state.position[:, 0], state.position[:, 1]], -1),
        velocity=state.velocity * flip,
        paddle=state.paddle.flip(1),
        points=state.points.flip(1),
        hits=state.hits,
        alive=state.alive.flip(1),
        heard=state.heard[:, order][:, :, order],
    )


@pytest.mark.parametrize("mode", ["versus", "coop"])
def test_the_game_is_its_own_mirror_image_and_zero_sum(mode):
    """So the value of versus is 0; and both sides see the same frame."""
    params = {"n_agents": 4, "points": 2, "dead_agents": 0.5, "message_dropout": 0.3}
    task = make_task("pong", mode=mode, serve_speed=0.1, **params)
    scored = 0.0
    for state, action, noise, step in played(task, 30):
        other = {"left": action["right"], "right": action["left"]}
        order = torch.arange(4).roll(2)
        lost = noise["lost"][:, order][:, :, order]
        noise = {"side": 1.0 - noise["side"], "slope": noise["slope"], "lost": lost}
        found = task.step(mirrored(state), other, noise)
        for a, b in zip(found.state, mirrored(step.state), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
        for group, twin in zip(GROUPS, reversed(GROUPS), strict=True):
            assert torch.equal(found.reward[group], step.reward[twin])
            seen, theirs = task.observe(found.state)[group], task.observe(step.state)[twin]
            torch.testing.assert_close(seen, theirs, atol=1e-4, rtol=1e-4)
        total = step.reward["left"] + step.reward["right"]
        assert total.isfinite().all() and (mode == "coop" or total.eq(0).all())
        scored += step.reward["left"].abs().sum().item()
    assert scored > 20


def test_players_of_a_team_can_be_exchanged():
    task = make_task("pong", n_agents=4, half_length=0.2, serve_speed=0.1)
    for state, action, noise, step in played(task, 20):
        swapped = state._replace(paddle=state.paddle.flip(2))
        found = task.step(swapped, {g: a.flip(1) for g, a in action.items()}, noise)
        torch.testing.assert_close(found.state.velocity, step.state.velocity)
        torch.testing.assert_close(found.state.paddle, step.state.paddle.flip(2))
        seen, theirs = task.observe(found.state)["left"], task.observe(step.state)["left"].flip(1)
        torch.testing.assert_close(seen[..., :6], theirs[..., :6])
        torch.testing.assert_close(seen[..., 6:], theirs[..., [7, 6]])


# ------------------------------------------------------------------------ what is seen, failures
def test_both_sides_see_themselves_on_the_left():
    _, state = placed((0.25, 0.75), (-0.03, 0.015), left=(0.5, 0.6), right=(0.2, 0.4))
    task = make_task("pong", continuous=False, n_agents=4, points=2)
    seen = task.observe(state._replace(points=torch.tensor([[1.0, 0.0]])))
    near(seen["left"][0, 0], [0.0, -0.5, 0.5, -1.0, 0.5, 0.2, -0.6, -0.2, 0.5, 0.0])
    near(seen["left"][0, 1], [0.2, -0.5, 0.5, -1.0, 0.5, 0.0, -0.6, -0.2, 0.5, 0.0])
    near(seen["right"][0, 1], [-0.2, 0.5, 0.5, 1.0, 0.5, -0.6, 0.0, 0.2, 0.0, 0.5])
    whole = [-0.5, 0.5, -1.0, 0.5, 0.0, 0.0, 0.0, 0.2, -0.6, -0.2, 1.0, 1.0, 1.0, 1.0]
    near(task.team_state(state)[0], whole)


def test_the_dead_neither_move_nor_hit_nor_are_seen():
    env = make_env("pong", 32, continuous=False, n_agents=4, dead_agents=0.5)
    td = env.reset()
    assert td["left", "mask"].sum(-1).eq(1).all() and td["right", "mask"].sum(-1).eq(1).all()
    assert td["left", "mask"][:, 0].float().mean().item() not in (0.0, 1.0)
    mask = td["left", "action_mask"]
    assert torch.equal(mask.sum(-1), torch.where(td["left", "mask"], 3, 1))
    seen = env.rollout(5)["next", "left", "observation"]
    other = seen[:, -1, 0, 5][~env.state.alive[:, 0, 1]]  # what player 0 sees of player 1
    assert other.numel() and other.eq(0).all()
    task = make_task("pong", n_agents=4, dead_agents=0.5)  # without masks
    *_, (state, _, _, step) = played(task, 3)
    still = (step.state.paddle == state.paddle)[~state.alive]
    assert still.all() and not (step.state.paddle == state.paddle)[state.alive].all()


def test_lost_messages_are_seen_in_the_middle():
    for share in (0.0, 0.3, 1.0):
        task = make_task("pong", n_agents=4, message_dropout=share)
        *_, (_, _, _, step) = played(task, 3, n_envs=2000)
        seen = task.observe(step.state)["left"][..., 5:].eq(0).float().mean().item()
        assert abs(seen - share) < 0.02


# ---------------------------------------------------------------------------------- environments
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("params", [{}, {"n_agents": 4, "dead_agents": 0.5, "points": 2}])
def test_specs_hold(continuous, params):
    check_env_specs(make_env("pong", 3, continuous=continuous, **params))


def test_serves_go_to_both_sides_at_all_angles():
    task = make_task("pong")
    state = task.reset(4000, task.draw_reset(4000, torch.Generator().manual_seed(0)))
    angle = torch.atan2(state.velocity[:, 1], state.velocity[:, 0].abs())
    assert abs((state.velocity[:, 0] > 0).float().mean().item() - 0.5) < 0.03
    assert math.radians(43) < angle.max() <= math.radians(45.001)
    assert math.radians(-45.001) <= angle.min() < math.radians(-43)
    torch.testing.assert_close(state.velocity.norm(dim=-1), torch.full((4000,), 0.03))


def test_the_time_limit_truncates_and_a_point_terminates():
    td = make_env("pong", 2, max_steps=4).rollout(9, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert not td["next", "terminated"].any()
    td = make_env("pong", 64, serve_speed=0.2).rollout(60, break_when_any_done=False)
    ended = td["next", "terminated"].squeeze(-1)
    assert torch.equal(ended, td["next", "left", "reward"][..., 0, 0] != 0.0) and ended.any()


# --------------------------------------------------------------------------------------- judging
@pytest.mark.parametrize("continuous", [True, False])
def test_rules_come_in_their_known_order(continuous):
    task = make_task("pong", continuous=continuous, max_steps=600)
    table = baseline_table("t", task, 96, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["tracker_vs_random"] > 0.9
    assert found["striker_vs_tracker"] > 0.2 and found["striker_vs_interceptor"] > 0.2
    for even in ("random", "tracker", "interceptor", "striker"):
        assert abs(found[even]) < 0.3
    assert (table.optimum.value, table.optimum.kind) == (0.0, "exact")


def test_rules_rally_under_the_bound_of_coop_and_reach_it_with_straight_balls():
    task = make_task("pong", mode="coop", max_steps=200, max_angle=1e-3)
    hits = evaluate_policy(task, task.baselines()["tracker"], 4, seed=0)
    assert hits.eq(task.optimum().value).all()
    task = make_task("pong", mode="coop", max_steps=200)
    random, tracker = (
        evaluate_policy(task, policy, 64, seed=0).mean().item()
        for policy in (None, task.baselines()["tracker"])
    )
    assert random < 1.0 < tracker <= task.optimum().value


def test_the_most_hits_are_those_of_one_ball_followed_in_time():
    """In continuous time: half a court to the first hit, and a whole one to each of the others."""
    for params in (PongParams(max_steps=300), PongParams(speed_up=1.2, serve_speed=0.011)):
        time = 0.5 / params.serve_speed
        hits = 0
        while time <= params.max_steps:
            hits += 1
            time += 1.0 / min(params.serve_speed * params.speed_up**hits, params.max_speed)
        assert most_hits(params) == hits


def test_a_player_in_the_middle_is_too_slow_from_some_hit_on():
    """0.02 / speed >= 0.4 up to a speed of 0.05: 0.03 x 1.05 ** 10 is below, with one hit more above."""
    assert safe_hits(PongParams()) == math.floor(math.log(0.05 / 0.03, 1.05)) + 1 == 11
    assert safe_hits(PongParams(paddle_speed=0.09)) is None
    assert safe_hits(PongParams(speed_up=1.0)) is None
    assert safe_hits(PongParams(serve_speed=0.06)) == 0


def test_a_series_and_a_picture():
    env = make_env("pong", 2)
    env.reset()
    (lines,) = env.task.episode_series(env.state).values()
    assert lines.tolist() == [[0.5, 0.5, 0.5]] * 2
    shown = env.render(index=1)
    assert shown.shape == (414, 400, 3) and shown.dtype == np.uint8
    env.state = env.state._replace(paddle=env.state.paddle + 0.2)
    assert not np.array_equal(shown, env.render(index=1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "duel"}, "mode must be one of versus, coop; got 'duel'"),
        ({"n_agents": 3}, r"n_agents must be an even number of at least 2 .*; got 3"),
        ({"points": 0}, "points must be at least 1; got 0"),
        ({"half_length": 0.3}, r"half_length must be in \(0, 0.25\]; got 0.3"),
        ({"paddle_speed": 0.0}, r"paddle_speed must be in \(0, 0.5\]; got 0"),
        ({"serve_speed": 0.3}, r"serve_speed must be in \(0, 0.2\]; got 0.3"),
        ({"max_speed": 0.9}, r"max_speed must be in \(0, 0.5\]; got 0.9"),
        ({"max_angle": 90.0}, r"max_angle must be in \(0, 80\]; got 90"),
        ({"speed_up": 0.9}, "speed_up must be at least 1; got 0.9"),
        ({"dead_agents": 1.0}, r"must be in \[0, 1\); got 1"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("pong", **params)
