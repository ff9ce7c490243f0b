"""What all particle tasks have in common: mpe2's own numbers, one graph, rows that do not mix."""

import mpe_episodes
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.base import Discrete

TASKS = ["simple_spread", "simple_speaker_listener", "simple_tag", "simple_adversary"]
KINDS = [(name, continuous) for name in TASKS for continuous in (True, False)]
LARGER = [
    ("simple_spread", {"n_agents": 1}),
    ("simple_spread", {"n_agents": 5}),
    ("simple_tag", {"n_adversaries": 1, "n_good": 2, "n_obstacles": 0}),
    ("simple_tag", {"n_adversaries": 4, "n_good": 3, "n_obstacles": 3}),
    ("simple_adversary", {"n_good": 1}),
    ("simple_adversary", {"n_good": 4}),
]


# ---------------------------------------------------------------------------------- mpe2's numbers
def beside_mpe2(name, n_episodes, continuous, theirs_at=None, **ours):
    """Our task beside mpe2's, sums of raw quantities."""
    options = {"continuous": continuous, "n_episodes": n_episodes, **(theirs_at or {})}
    if name == "simple_speaker_listener":
        reads = {"moving": slice(1, None), "goal": lambda w: w.landmarks.index(w.agents[0].goal_b)}
        theirs = mpe_episodes.played(f"{name}_v4", **options, **reads)
    elif name == "simple_adversary":
        goal = {"goal": lambda w: w.landmarks.index(w.agents[0].goal_a)}
        theirs = mpe_episodes.played(f"{name}_v3", **options, **goal)
    else:
        theirs = mpe_episodes.played(f"{name}_v3", **options)

    def start(dtype):
        width = 0.9 if name == "simple_tag" else 1.0
        position, landmark = theirs.position[0].to(dtype), theirs.landmark[0].to(dtype)
        places = {"position": (position + 1) / 2, "landmark": (landmark / width + 1) / 2}
        return {**places, "goal": theirs.goal}

    return mpe_episodes.compare(make_task(name, continuous=continuous, **ours), theirs, start)


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("name", TASKS[1:])
def test_steps_are_those_of_mpe2(name, continuous):
    compared = beside_mpe2(name, 8, continuous)
    assert set(compared) == set(make_task(name).info_keys)


@pytest.mark.parametrize("continuous", [True, False])
def test_any_number_of_agents_is_that_of_mpe2(continuous):
    theirs = {"num_adversaries": 5, "num_good": 3, "num_obstacles": 4}
    ours = {"n_adversaries": 5, "n_good": 3, "n_obstacles": 4}
    found = beside_mpe2("simple_tag", 8, continuous, theirs, **ours)
    assert found["touches"] > 10 and found["outside"] > 50
    beside_mpe2("simple_adversary", 4, continuous, {"N": 4}, n_good=4)
    beside_mpe2("simple_adversary", 4, continuous, {"N": 1}, n_good=1)


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("name", TASKS[1:])
def test_200_episodes_are_those_of_mpe2(name, continuous):
    found = beside_mpe2(name, 200, continuous)
    assert found.get("touches", 101) > 100
    assert found.get("reached", 21) > 20


# ------------------------------------------------------------------------------------ the contract
@pytest.mark.parametrize(("name", "continuous"), KINDS)
def test_specs_hold(name, continuous):
    check_env_specs(make_env(name, 3, continuous=continuous))


@pytest.mark.parametrize(("name", "params"), LARGER)
def test_specs_hold_for_any_number_of_agents(name, params):
    check_env_specs(make_env(name, 2, continuous=False, **params))


def random_action(task, n_envs, generator):
    """A random action of every group."""
    action = {}
    for group, spec in task.groups.items():
        shape = (n_envs, spec.n_agents)
        if isinstance(spec.action, Discrete):
            action[group] = torch.randint(spec.action.n, shape, generator=generator)
        else:
            action[group] = torch.rand((*shape, len(spec.action.low)), generator=generator)
    return action


def random_step(task, n_envs, seed=0):
    """A state some steps after the start, and a random action."""
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, generator))
    for _ in range(3):
        state = task.step(state, random_action(task, n_envs, generator), {}).state
    return state, random_action(task, n_envs, generator)


def rows(values, index):
    """Some environments of a state."""
    return type(values)(*(part[index] for part in values))


@pytest.mark.parametrize("name", TASKS)
def test_the_global_state_is_everything(name):
    task = make_task(name)
    state, _ = random_step(task, 4)
    expected = torch.cat([part.reshape(4, -1) for part in state], -1)
    assert torch.equal(task.team_state(state), expected)
    assert task.d_state == expected.shape[-1]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("name", "continuous"), KINDS)
def test_step_and_observation_compile_to_one_graph(name, continuous):
    task = make_task(name, continuous=continuous)

    def both(state, action):
        step = task.step(state, action, {})
        return step, task.observe(step.state)

    compiled = torch.compile(both, fullgraph=True)
    state, action = random_step(task, 16)
    for _ in range(2):
        (expected, seen), (found, found_seen) = both(state, action), compiled(state, action)
        for a, b in zip(found.state, expected.state, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
            assert a.stride() == b.stride()  # or the second call would compile again
        torch.testing.assert_close(found.reward, expected.reward, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found_seen, seen, rtol=1e-4, atol=1e-5)
        state = expected.state


@pytest.mark.parametrize(("name", "continuous"), KINDS)
def test_environments_lie_side_by_side_in_memory(name, continuous):
    """What the speed hangs on: in states, observations and rewards, fresh, stepped and reset."""
    env = make_env(name, 8, continuous=continuous)
    td = env.reset()
    for part in env.state:
        assert part.stride(0) == 1
    td = env.step(env.rand_action(td))["next"]
    mask = torch.tensor([[True], [False]] * 4)
    env.reset(TensorDict({"_reset": mask}, [8]))
    for part in (*env.state, *env.task.observe(env.state).values()):
        assert part.stride(0) == 1


@pytest.mark.parametrize("name", TASKS)
def test_the_time_limit_truncates(name):
    td = make_env(name, 2, max_steps=4).rollout(9, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert not td["next", "terminated"].any()


@pytest.mark.parametrize("name", TASKS)
def test_starts_fill_the_square(name):
    task = make_task(name)
    state = task.reset(4000, task.draw_reset(4000, torch.Generator().manual_seed(0)))
    width = 0.9 if name == "simple_tag" else 1.0
    for points, far in ((state.position, 1.0), (state.landmark, width)):
        assert points.abs().max() <= far
        assert points.min() < -0.99 * far and points.max() > 0.99 * far
        assert points.mean((0, 1)).abs().max() < 0.03
        assert points.std((0, 1)).sub(far * 3**-0.5).abs().max() < 0.02
    assert state.velocity.eq(0).all()
    assert not torch.equal(state.position[:, :1], state.landmark[:, :1])


@pytest.mark.parametrize("name", ["simple_speaker_listener", "simple_adversary"])
def test_every_landmark_is_the_goal_equally_often(name):
    task = make_task(name)
    goal = task.reset(4000, task.draw_reset(4000, torch.Generator().manual_seed(0))).goal
    assert goal.sum(-1).eq(1).all()
    n = goal.shape[-1]
    assert goal.mean(0).sub(1 / n).abs().max() < 0.03


# ------------------------------------------------------------------------------------------- rules
@pytest.mark.parametrize(
    ("name", "continuous", "params", "between"),
    [
        ("simple_spread", True, {}, (-14.0, -7.0)),
        ("simple_spread", False, {}, (-18.0, -9.0)),
        ("simple_spread", True, {"n_agents": 5}, (-26.0, -13.0)),
        ("simple_speaker_listener", True, {}, (-25.0, -7.0)),
        ("simple_speaker_listener", False, {}, (-25.0, -9.0)),
        ("simple_tag", True, {}, (0.7, 2.0)),
        ("simple_tag", False, {}, (0.7, 2.0)),
        ("simple_tag", True, {"n_adversaries": 4, "n_good": 2}, (2.0, 5.0)),
        ("simple_adversary", True, {}, (9.5, 9.9)),
        ("simple_adversary", False, {}, (9.0, 9.5)),
    ],
)
def test_the_rules_are_far_above_random(name, continuous, params, between):
    task = make_task(name, continuous=continuous, **params)
    random, rule, *_ = baseline_table("t", task, 400, seed=0).rows
    assert random.value < between[0] < between[1] < rule.value


def test_who_is_deaf_ends_in_the_middle_of_the_landmarks():
    """The mean squared distance of one of three places in a square to their middle is 2/3 of 2/3."""
    env = make_env("simple_speaker_listener", 4000)
    rollout = env.rollout(25, env.task.baselines()["deaf"])
    last = rollout["next", "listener", "reward"][:, -1]
    assert last.mean().item() == pytest.approx(-4 / 9, abs=0.02)


@pytest.mark.parametrize("name", TASKS)
def test_the_picture_shows_the_world(name):
    env = make_env(name, 2)
    env.reset()
    picture = env.render(index=1)
    assert picture.shape == (400, 400, 3) and picture.dtype == np.uint8
    assert not np.array_equal(picture, env.render(index=0))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("simple_spread", {"n_agents": 0}, "n_agents must be at least 1; got 0"),
        (
            "simple_spread",
            {"local_ratio": 1.5},
            r"local_ratio is a weight and must be in \[0, 1\]; got 1.5",
        ),
        ("simple_spread", {"max_steps": 0}, "max_steps must be at least 1; got 0"),
        ("simple_speaker_listener", {"max_steps": 0}, "max_steps must be at least 1; got 0"),
        ("simple_tag", {"n_adversaries": 0}, "n_adversaries must be at least 1; got 0"),
        ("simple_tag", {"n_good": -1}, "n_good must be at least 1; got -1"),
        ("simple_tag", {"n_obstacles": -1}, "n_obstacles must be at least 0; got -1"),
        ("simple_adversary", {"n_good": 0}, "n_good must be at least 1; got 0"),
    ],
)
def test_a_bad_parameter_is_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, **params)
