"""simple_spread: mpe2's own numbers, step by step, and what the task adds to them."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.particle import SpreadState, physics
from marl_td.tasks.particle.assignment import Assignment, keep_apart, match

STEPS = 25


def played_in_mpe2(n_episodes, n_agents, continuous, local_ratio):
    """Random episodes of ``mpe2``: start, actions, and what it says at every step."""
    simple_spread_v3 = pytest.importorskip("mpe2.simple_spread_v3")
    env = simple_spread_v3.parallel_env(
        N=n_agents, max_cycles=STEPS, continuous_actions=continuous, local_ratio=local_ratio
    )
    random = np.random.default_rng(0)
    if continuous:  # float64, as the simulator computes; some beyond the limits, which it clips
        action = random.uniform(-0.2, 1.2, (STEPS, n_episodes, n_agents, 5))
    else:
        action = random.integers(0, 5, (STEPS, n_episodes, n_agents))
    seen: dict[str, list] = {key: [] for key in ("position", "velocity", "landmark", "obs", "rew")}
    for episode in range(n_episodes):
        observation, _ = env.reset(seed=episode)
        world = env.unwrapped.world
        track: dict[str, list] = {key: [] for key in seen}
        for t in range(STEPS + 1):
            track["position"].append([a.state.p_pos.copy() for a in world.agents])
            track["velocity"].append([a.state.p_vel.copy() for a in world.agents])
            track["landmark"].append([a.state.p_pos.copy() for a in world.landmarks])
            track["obs"].append(list(observation.values()))
            if t < STEPS:
                given = {f"agent_{i}": action[t, episode, i] for i in range(n_agents)}
                observation, reward, *_ = env.step(given)
                track["rew"].append(list(reward.values()))
        for key, values in track.items():
            seen[key].append(np.array(values))
    env.close()
    played = {key: torch.tensor(np.stack(values, 1)) for key, values in seen.items()}
    return played | {"action": torch.tensor(action)}


def compare(n_episodes, n_agents, continuous, local_ratio=0.5):
    """All episodes at once beside mpe2's, free from the start on; how many collisions there were."""
    theirs = played_in_mpe2(n_episodes, n_agents, continuous, local_ratio)
    task = make_task(
        "simple_spread", continuous=continuous, n_agents=n_agents, local_ratio=local_ratio
    )
    collisions = 0.0
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 1e-4)):
        close = {"rtol": 0.0, "atol": tolerance}
        start = {key: (theirs[key][0].to(dtype) + 1) / 2 for key in ("position", "landmark")}
        state = task.reset(n_episodes, start)
        for t in range(STEPS + 1):
            seen = task.observe(state)["agents"]
            assert seen.dtype == dtype
            torch.testing.assert_close(
                seen, theirs["obs"][t].to(dtype), rtol=0.0, atol=tolerance + 1e-6
            )
            torch.testing.assert_close(state.position, theirs["position"][t].to(dtype), **close)
            torch.testing.assert_close(
                state.velocity, theirs["velocity"][t].to(dtype), rtol=0.0, atol=10 * tolerance
            )
            if t < STEPS:
                action = theirs["action"][t]
                action = action.to(dtype) if continuous else action
                step = task.step(state, {"agents": action}, {})
                state, reward = step.state, step.reward["agents"]
                torch.testing.assert_close(reward, theirs["rew"][t].to(dtype), **close)
                collisions += float(step.info["collisions"].sum())
    return collisions


@pytest.mark.parametrize("continuous", [True, False])
def test_steps_are_those_of_mpe2(continuous):
    assert compare(12, 3, continuous) > 10  # the contact forces have been at work


def test_any_number_of_agents_and_weight_is_that_of_mpe2():
    compare(2, 1, False, local_ratio=0.2)
    assert compare(3, 6, True, local_ratio=0.8) > 10


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [True, False])
def test_200_episodes_are_those_of_mpe2(continuous):
    assert compare(200, 3, continuous) > 200


def state_of(position, landmark, velocity=None):
    """One environment as a state."""
    rows = [position, velocity or [[0.0, 0.0]] * len(position), landmark]
    return SpreadState(*(torch.tensor([row]) for row in rows))


def test_a_step_worked_out_by_hand():
    """Two agents far apart, one pushed right and up, one left alone and drifting."""
    task = make_task("simple_spread", n_agents=2, local_ratio=0.25)
    state = state_of([[0.0, 0.0], [1.0, 0.0]], [[0.0, 3.0], [1.2, 0.0]], [[0.0, 0.0], [2.0, 0.0]])
    action = torch.tensor([[[0.9, 0.2, 0.6, 0.0, 1.0], [1.0, 0.5, 0.5, 0.3, 0.3]]])
    step = task.step(state, {"agents": action}, {})
    torch.testing.assert_close(step.state.position, torch.tensor([[[0.0, 0.0], [1.2, 0.0]]]))
    torch.testing.assert_close(step.state.velocity, torch.tensor([[[0.2, 0.5], [1.5, 0.0]]]))
    torch.testing.assert_close(step.reward["agents"], torch.tensor([[-2.25, -2.25]]))
    assert step.info["distance"].item() == pytest.approx(3.0)
    assert step.info["covered"].item() == 1.0
    assert step.info["collisions"].item() == 0.0
    assert not step.terminated.any()


def test_touching_agents_push_each_other_apart_equally():
    task = make_task("simple_spread", n_agents=2, continuous=False)
    state = state_of([[0.0, 0.0], [0.2, 0.0]], [[0.0, 0.0], [0.2, 0.0]])
    step = task.step(state, {"agents": torch.zeros((1, 2), dtype=torch.long)}, {})
    expected = torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]])  # 100 * (0.3 - 0.2) * 0.1 s
    torch.testing.assert_close(step.state.velocity, expected)
    assert step.info["collisions"].item() == 1.0
    torch.testing.assert_close(step.reward["agents"], torch.tensor([[-0.5, -0.5]]))


def test_agents_in_one_place_give_no_nan():
    task = make_task("simple_spread", n_agents=2, continuous=False)
    state = state_of([[0.5, 0.5]] * 2, [[0.0, 0.0]] * 2)
    step = task.step(state, {"agents": torch.zeros((1, 2), dtype=torch.long)}, {})
    assert torch.isfinite(step.state.velocity).all()


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("n_agents", [1, 2, 5])
def test_specs_hold(continuous, n_agents):
    check_env_specs(make_env("simple_spread", 3, continuous=continuous, n_agents=n_agents))


def random_step(task, n_envs, seed=0):
    """A start state and a random action."""
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, generator))
    n = task.params.n_agents
    if task.continuous:
        return state, {"agents": torch.rand((n_envs, n, 5), generator=generator)}
    return state, {"agents": torch.randint(5, (n_envs, n), generator=generator)}


@pytest.mark.parametrize("continuous", [True, False])
def test_an_environment_alone_is_as_in_a_batch(continuous):
    task = make_task("simple_spread", continuous=continuous)
    state, action = random_step(task, 6)
    whole = task.step(state, action, {})
    one = SpreadState(*(part[4:5] for part in state))
    alone = task.step(one, {"agents": action["agents"][4:5]}, {})
    for a, b in zip(alone.state, whole.state, strict=True):
        torch.testing.assert_close(a, b[4:5])
    torch.testing.assert_close(alone.reward["agents"], whole.reward["agents"][4:5])
    seen = task.observe(whole.state)["agents"]
    torch.testing.assert_close(task.observe(alone.state)["agents"], seen[4:5])


def test_the_global_state_is_everything():
    task = make_task("simple_spread")
    state, action = random_step(task, 4)
    state = task.step(state, action, {}).state
    parts = task.team_state(state).unflatten(-1, (3, 3, 2)).unbind(1)
    for part, expected in zip(parts, state, strict=True):
        assert torch.equal(part, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("continuous", [True, False])
def test_step_and_observation_compile_to_one_graph(continuous):
    task = make_task("simple_spread", continuous=continuous)

    def both(state, action):
        step = task.step(state, action, {})
        return step, task.observe(step.state)["agents"]

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


def test_environments_lie_side_by_side_in_memory():
    """What the speed hangs on: in states, observations and rewards, fresh, stepped and reset."""
    env = make_env("simple_spread", 8, continuous=False)
    td = env.reset()
    td = env.step(env.rand_action(td))["next"]
    mask = torch.tensor([[True], [False]] * 4)
    env.reset(TensorDict({"_reset": mask}, [8]))
    for part in env.state:
        assert part.stride(0) == 1
    assert env.task.observe(env.state)["agents"].stride(0) == 1


def test_a_partial_reset_touches_its_rows_only():
    env = make_env("simple_spread", 3)
    td = env.reset()
    for _ in range(2):
        td = env.step(env.rand_action(td))["next"]
    before = env.state
    env.reset(td.set("_reset", torch.tensor([[False], [True], [False]])))
    for old, new in zip(before, env.state, strict=True):
        assert torch.equal(old[[0, 2]], new[[0, 2]])
        assert not torch.equal(old[1], new[1])
    assert env.state.velocity[1].eq(0).all()


def test_the_time_limit_truncates():
    td = make_env("simple_spread", 2, max_steps=4).rollout(9, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert not td["next", "terminated"].any()


def test_starts_fill_the_square():
    task = make_task("simple_spread")
    state, _ = random_step(task, 4000)
    for points in (state.position, state.landmark):
        assert points.min() < -0.99 and points.max() > 0.99
        assert points.mean((0, 1)).abs().max() < 0.03
        assert points.std((0, 1)).sub(3**-0.5).abs().max() < 0.02
    assert not torch.equal(state.position, state.landmark)


@pytest.mark.parametrize(
    ("continuous", "n_agents", "least"), [(True, 3, -7.0), (False, 3, -9.0), (True, 5, -13.0)]
)
def test_assignment_is_far_above_random(continuous, n_agents, least):
    task = make_task("simple_spread", continuous=continuous, n_agents=n_agents)
    random, assignment = baseline_table("t", task, 200, seed=0).rows
    assert assignment.policy == "assignment"
    assert random.value < 2 * least < least < assignment.value


def test_matching_takes_the_shortest_total():
    """The nearest pair first would cost 1 + 10; both matches of the best cost 3 + 2."""
    distance = torch.tensor([[[1.0, 3.0], [2.0, 10.0]]])
    assert match(distance).tolist() == [[1, 0]]


def test_many_agents_are_matched_pair_by_pair():
    distance = torch.full((1, 5, 5), 9.0)
    for agent, landmark in enumerate([3, 0, 4, 2, 1]):
        distance[0, agent, landmark] = 1.0 + agent
    assert match(distance).tolist() == [[3, 0, 4, 2, 1]]
    drawn = match(torch.rand(50, 7, 7, generator=torch.Generator().manual_seed(0)))
    assert (drawn.sort(-1).values == torch.arange(7)).all()


def test_goals_are_moved_apart_to_the_limit():
    goal = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [5.0, 0.0]]])
    moved = keep_apart(goal)
    torch.testing.assert_close(moved[0, :, 0], torch.tensor([-0.105, 0.205, 5.0]))
    assert (moved[0, 1, 0] - moved[0, 0, 0]).item() > 0.3


@pytest.mark.parametrize("continuous", [True, False])
def test_the_controller_pushes_towards_the_goal(continuous):
    env = make_env("simple_spread", 1, continuous=continuous, n_agents=1)
    td = env.reset()
    env.state = state_of([[0.5, 0.0]], [[-0.5, 0.1]])
    td["agents", "observation"] = env.task.observe(env.state)["agents"]
    action = Assignment(1, continuous)(td)["agents", "action"][0, 0]
    if continuous:
        assert action[1] == 1.0 and action[2] == 0.0 and action[4] > action[3]
    else:
        assert action == 1


def test_the_picture_shows_agents_and_landmarks():
    env = make_env("simple_spread", 2)
    env.reset()
    picture = env.render(index=1)
    assert picture.shape == (400, 400, 3) and picture.dtype == np.uint8
    assert not np.array_equal(picture, env.render(index=0))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"local_ratio": 1.5}, r"local_ratio is a weight and must be in \[0, 1\]; got 1.5"),
        ({"max_steps": 0}, "max_steps must be at least 1; got 0"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("simple_spread", **params)


def test_a_body_does_not_touch_itself():
    offset = physics.offsets(*[torch.zeros(2, 3, 1)] * 2)
    distance = physics.apart_from_itself(physics.distances(offset))
    assert distance.diagonal().eq(physics.APART).all()
