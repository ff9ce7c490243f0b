"""Drones: steps by hand, what each sees, conservation of ages, failures, rules."""

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.scores import evaluate_policy
from marl_td.tasks import make_env, make_task
from marl_td.tasks.drones import DronesState
from marl_td.tasks.drones.task import GROUP

SMALL = {"side": 20.0, "n_cells": 20, "sensing_radius": 1.0, "comm_radius": 5.0}
QUICK = {"side": 40.0, "n_cells": 20, "n_agents": 4, "max_steps": 120}


def placed(*drones, targets=(), speed=(0.0, 0.0), **params):
    """A task with discrete actions and a state of one environment, all cells of age 2 s."""
    options = {**SMALL, **params}
    task = make_task(
        "drones", continuous=False, n_agents=len(drones), n_targets=len(targets), **options
    )
    n = len(drones)
    position = torch.tensor([drones], dtype=torch.float32)
    target = torch.tensor([targets], dtype=torch.float32).view(1, len(targets), 2)
    n_cells = task.params.n_cells
    return task, DronesState(
        position=position,
        velocity=torch.tensor(speed).expand_as(position).clone(),
        age=torch.full((1, n_cells, n_cells), 2.0),
        target=target,
        goal=target + torch.tensor([3.0, 4.0]),
        alive=torch.ones(1, n, dtype=torch.bool),
        heard=torch.ones(1, n, task.params.n_seen, dtype=torch.bool),
    )


def stepped(task, state, *actions):
    noise = {"goal": torch.full_like(state.goal, 0.5)}
    return task.step(state, {GROUP: torch.tensor([actions])}, noise)


def near(tensor, values, atol=1e-5):
    torch.testing.assert_close(tensor, torch.tensor(values), atol=atol, rtol=0.0)


def played(task, n_steps, seed=0, n_envs=8):
    """States, actions, noise and steps of random play."""
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, generator))
    shape = (n_envs, task.params.n_agents)
    for _ in range(n_steps):
        if task.continuous:
            action = {GROUP: 4.0 * torch.rand((*shape, 2), generator=generator) - 2.0}
        else:
            action = {GROUP: torch.randint(9, shape, generator=generator)}
        noise = task.draw_step(n_envs, generator)
        step = task.step(state, action, noise)
        yield state, action, noise, step
        state = step.state


# ------------------------------------------------------------------------------------ by hand
def test_a_drone_speeds_up_against_drag_to_its_highest_speed():
    """From 2 m/s with full thrust: 2 + 0.5 (5 - 0.5 x 2) = 4, then 4 + 0.5 (5 - 2) cut to 5."""
    task, state = placed((10.0, 10.0), speed=(2.0, 0.0))
    state = stepped(task, state, 1).state
    near(state.velocity[0, 0], [4.0, 0.0])
    near(state.position[0, 0], [12.0, 10.0])
    state = stepped(task, state, 1).state
    near(state.velocity[0, 0], [5.0, 0.0])
    near(state.position[0, 0], [14.5, 10.0])
    near(stepped(task, state, 0).state.velocity[0, 0], [3.75, 0.0])
    free = make_task("drones", n_agents=1, **SMALL)
    action = {GROUP: torch.tensor([[[0.0, -9.0]]])}
    near(
        free.step(placed((10.0, 10.0))[1], action, {"goal": state.goal}).state.velocity[0, 0],
        [0.0, -2.5],
    )


def test_a_wall_stops_what_flies_into_it():
    task, state = placed((19.5, 10.0), speed=(4.0, 1.0))
    state = stepped(task, state, 0).state
    near(state.position[0, 0], [20.0, 10.375])
    near(state.velocity[0, 0], [0.0, 0.75])


def test_cells_in_sight_are_fresh_and_all_others_get_older():
    """Within 1 m of (10, 10) lie the middles of the four cells around."""
    task, state = placed((10.0, 10.0))
    step = stepped(task, state, 0)
    expected = torch.full((20, 20), 2.5)
    expected[9:11, 9:11] = 0.0
    assert torch.equal(step.state.age[0], expected)
    near(step.info["covered"], [4 / 400])
    dead = state._replace(alive=torch.zeros(1, 1, dtype=torch.bool))
    assert stepped(task, dead, 0).state.age.eq(2.5).all()
    near(step.info["age"], [2.5 * 396 / 400])
    sweep = 400.0 / (2.0 * 1.0 * 5.0)
    near(step.reward[GROUP], [[-2.5 * 0.99 / sweep]])
    assert not step.terminated.any()


def test_own_reward_is_the_age_that_a_drone_clears():
    """A drone at full speed clears 2 x 1 m x 2.5 m of cells of 1 m^2 in a step, of the age of a sweep."""
    task, state = placed((10.0, 10.0), (4.0, 4.5), own_reward=True)
    step = stepped(task, state, 0, 0)
    full = 5.0 * task.params.sweep_time
    near(step.reward[GROUP], [[4 * 2.5 / full, 2 * 2.5 / full]])


def test_targets_go_to_their_goal_and_then_to_another():
    task, state = placed((2.0, 2.0), targets=[(10.0, 10.0)], mode="observation")
    state = stepped(task, state, 0).state
    near(state.target[0, 0], [10.6, 10.8])
    near(state.goal[0, 0], [13.0, 14.0])
    close = state._replace(target=torch.tensor([[[12.8, 13.9]]]))
    state = stepped(task, close, 0).state
    near(state.target[0, 0], [13.0, 14.0])
    near(state.goal[0, 0], [10.0, 10.0])


def test_targets_in_a_seen_cell_are_observed():
    task, state = placed(
        (10.0, 10.0), targets=[(9.2, 9.2), (14.0, 14.0)], mode="patrol", target_speed=0.0
    )
    step = stepped(task, state, 0)
    near(step.info["observed"], [0.5])
    near(step.reward[GROUP], [[0.5 - 2.5 * 0.99 / task.params.sweep_time]])
    seen = task.observe(step.state)[GROUP][0, 0, -12:]
    near(seen, [0.0] * 12)  # its cell is in sight, it is not
    step = stepped(task, state._replace(target=torch.tensor([[[9.4, 9.7], [14.0, 14.0]]])), 0)
    near(task.observe(step.state)[GROUP][0, 0, -12:], [-0.6, -0.3, 1.0] + [0.0] * 9)


def test_drones_that_are_too_near_collide():
    task, state = placed((5.0, 5.0), (5.0, 5.9), (5.0, 7.0), (12.0, 12.0))
    step = stepped(task, state, 0, 0, 0, 0)
    assert step.info["collisions"].item() == 2.0
    paid = step.reward[GROUP][0, 0] + step.info["age"] / task.params.sweep_time
    near(paid, [-0.5])
    dead = state._replace(alive=torch.tensor([[True, False, True, True]]))
    assert stepped(task, dead, 0, 0, 0, 0).info["collisions"].item() == 0.0


# ---------------------------------------------------------------------------------- what is seen
def test_ages_are_seen_in_blocks_around_the_drone():
    """Cell (x, y) has age 100 y + x; the view is centred on the drone's cell and 0 outside."""
    task, state = placed((7.5, 10.5), pool=2)
    column, row = torch.arange(20.0), torch.arange(20.0).unsqueeze(1)
    state = state._replace(age=(100.0 * row + column).unsqueeze(0))
    seen = task.observe(state)[GROUP][0, 0, 4:68].view(8, 8) * task.params.sweep_time
    for i in range(8):
        for j in range(8):
            cells = [(7 + 2 * (j - 4) + a, 10 + 2 * (i - 4) + b) for a in (0, 1) for b in (0, 1)]
            inside = [100 * y + x if 0 <= x < 20 and 0 <= y < 20 else 0 for x, y in cells]
            assert seen[i, j].item() == pytest.approx(sum(inside) / 4, rel=1e-5, abs=1e-3)


def test_the_nearest_drones_are_seen_with_their_speed():
    task, state = placed((10.0, 10.0), (12.0, 10.0), (10.0, 9.0), (16.0, 10.0))
    state = state._replace(
        velocity=torch.tensor([[[1.0, 0.0], [0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]])
    )
    others = task.observe(state)[GROUP][0, 0, 68:88]
    near(others[:5], [0.0, -0.2, 0.2, 0.4, 1.0])
    near(others[5:10], [0.4, 0.0, -0.2, 0.0, 1.0])
    near(others[10:], [0.0] * 10)  # the third is out of reach
    lost = state._replace(heard=torch.tensor([False, True, True, True]).expand(1, 4, 4))
    again = task.observe(lost)[GROUP][0, 0, 68:88]
    near(again[:5], [0.0] * 5)
    assert torch.equal(again[5:], others[5:])


def test_the_global_state_is_three_maps():
    task, state = placed((1.0, 3.0), (1.5, 3.5), targets=[(19.9, 20.0)], mode="patrol")
    ages, drones, targets = task.team_state(state)[0].view(3, 10, 10)
    near(ages, [[2.0 / task.params.sweep_time] * 10] * 10)
    assert drones[1, 0] == 2.0 and drones.sum() == 2.0
    assert targets[9, 9] == 1.0 and targets.sum() == 1.0


# ------------------------------------------------------------------------------------ properties
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_ages_are_conserved_and_rewards_finite(continuous, own):
    """What gets older in a step is what was there plus the time, less what drones cleared."""
    params = {**QUICK, "n_targets": 3, "mode": "patrol", "own_reward": own}
    task = make_task("drones", continuous=continuous, **params)
    p = task.params
    for state, _, _, step in played(task, 25):
        before, after = state.age + p.step_time, step.state.age
        assert ((after == before) | (after == 0.0)).all()
        assert (after == 0.0).any() and after.max() <= p.step_time * 25
        assert step.reward[GROUP].isfinite().all()
        assert step.state.velocity.norm(dim=-1).max() <= p.max_speed + 1e-4
        for place in (step.state.position, step.state.target):
            assert place.min() >= 0.0 and place.max() <= p.side
        middle = (torch.arange(p.n_cells) + 0.5) * p.cell
        grid = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), -1).view(-1, 2)
        distance = torch.cdist(grid.expand(8, -1, -1), step.state.position)
        seen = (distance <= p.sensing_radius).any(-1).view_as(after)
        border = ((distance - p.sensing_radius).abs() < 1e-4).any(-1).view_as(after)
        assert ((after == 0.0) == seen)[~border].all()


def test_drones_can_be_exchanged():
    task = make_task("drones", **{**QUICK, "n_agents": 5})
    order = torch.tensor([3, 0, 4, 1, 2])
    for state, action, noise, step in played(task, 8):
        swapped = state._replace(
            position=state.position[:, order], velocity=state.velocity[:, order]
        )
        found = task.step(swapped, {GROUP: action[GROUP][:, order]}, noise)
        torch.testing.assert_close(found.state.age, step.state.age)
        torch.testing.assert_close(found.state.position, step.state.position[:, order])
        seen, theirs = task.observe(found.state)[GROUP], task.observe(step.state)[GROUP][:, order]
        torch.testing.assert_close(seen, theirs)


def test_the_dead_neither_fly_nor_see_nor_are_seen():
    env = make_env("drones", 16, continuous=False, dead_agents=0.3, **{**QUICK, "n_agents": 10})
    td = env.reset()
    alive = td[GROUP, "mask"]
    assert alive.sum(-1).eq(7).all() and not alive.all(0).any()
    assert torch.equal(td[GROUP, "action_mask"].sum(-1), torch.where(alive, 9, 1))
    assert td[GROUP, "observation"][~alive].eq(0.0).all()
    task = make_task("drones", dead_agents=0.3, **{**QUICK, "n_agents": 10})  # without masks
    for state, _, _, step in played(task, 3):
        stays = (step.state.position == state.position).all(-1)
        assert torch.equal(stays, ~state.alive)
        alone = state._replace(position=torch.where(state.alive.unsqueeze(-1), state.position, 0.0))
        seen, theirs = (task.observe(s)[GROUP][..., 68:88] for s in (state, alone))
        assert torch.equal(seen[state.alive], theirs[state.alive])


def test_messages_are_lost_by_chance():
    for share in (0.0, 0.25):
        task = make_task("drones", message_dropout=share, **{**QUICK, "side": 15.0})
        *_, (_, _, _, step) = played(task, 2, n_envs=500)
        whole = step.state._replace(heard=torch.ones_like(step.state.heard))
        known, there = (task.observe(s)[GROUP][..., 72:88:5].sum() for s in (step.state, whole))
        assert abs((known / there).item() - 1.0 + share) < 0.02


# ---------------------------------------------------------------------------------- environments
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("params", [{}, {"mode": "patrol", "n_targets": 2, "dead_agents": 0.5}])
def test_specs_hold(continuous, params):
    check_env_specs(make_env("drones", 2, continuous=continuous, **QUICK, **params))


def test_the_time_limit_truncates():
    td = make_env("drones", 2, **{**QUICK, "max_steps": 4}).rollout(9, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert not td["next", "terminated"].any()


# --------------------------------------------------------------------------------------- judging
def scores(n_episodes=16, **params):
    """Mean score of random play and of every rule."""
    task = make_task("drones", **{**QUICK, **params})
    rules = {"random": None, **task.baselines()}
    return task, {
        n: evaluate_policy(task, p, n_episodes, 0).mean().item() for n, p in rules.items()
    }


@pytest.mark.parametrize("continuous", [True, False])
def test_rules_come_in_their_known_order_above_the_bound(continuous):
    task, found = scores()
    assert task.optimum().value < found["strips"] < found["greedy"] < found["random"]
    assert (task.unit, task.higher_is_better, task.optimum().kind) == ("s", False, "lower")


def test_lloyd_covers_most_at_once_and_assignment_follows_targets():
    task, found = scores(mode="coverage", n_agents=8)
    assert found["random"] < found["lloyd"] <= task.optimum().value
    assert found["lloyd"] > 0.8 * task.optimum().value and task.higher_is_better
    task, found = scores(mode="observation", n_targets=3)
    assert found["assignment"] > 1.5 * max(found["random"], found["strips"], found["lloyd"])
    assert found["assignment"] <= task.optimum().value == 100.0


def test_a_series_and_a_picture():
    env = make_env("drones", 2, n_targets=2, mode="patrol", dead_agents=0.5, **QUICK)
    env.rollout(5)
    series = env.task.episode_series(env.state)
    assert [tuple(lines.shape) for lines in series.values()] == [(2, 2), (2, 1)]
    shown = env.render(index=1)
    assert shown.shape == (440, 420, 3) and shown.dtype == np.uint8
    env.state = env.state._replace(age=env.state.age + 20.0)
    assert not np.array_equal(shown, env.render(index=1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "x"}, "mode must be one of monitoring, observation, coverage, patrol; got 'x'"),
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"mode": "patrol"}, "n_targets must be at least 1 in mode 'patrol'; got 0"),
        ({"n_cells": 25}, "n_cells must be a multiple of 10; got 25"),
        ({"side": 0.0}, "side must be above 0; got 0"),
        ({"comm_radius": 200.0}, r"comm_radius must be in \(0, side\]; got 200"),
        ({"target_speed": -1.0}, "target_speed must be at least 0; got -1"),
        ({"sensing_radius": 1.0}, "at least a cell's side, 2, and at most side; got 1"),
        ({"drag": 3.0}, r"drag must be in \[0, 1 / step_time\]; got 3"),
        ({"message_dropout": 1.5}, r"message_dropout is a probability .* got 1.5"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("drones", **params)
