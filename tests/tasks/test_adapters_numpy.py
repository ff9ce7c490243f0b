"""Plain NumPy environments as TorchRL environments."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Categorical
from torchrl.envs.utils import check_env_specs

from marl_td.tasks.adapters import from_numpy


class Plain:
    """Three agents, each sees two random numbers; what a step returns is set by the test.

    Args:
        dones: step to what `dones` is then (else false); info: step to the info of that step.
    """

    def __init__(self, dones=None, info=None, reward=None):
        self.dones, self.info = dones or {}, info or {}
        self.reward = np.array([1.0, 2.0, 3.0]) if reward is None else reward
        self.generator = np.random.default_rng()
        self.received, self.seeds = [], []

    def seed(self, seed):
        self.seeds.append(seed)
        self.generator = np.random.default_rng(seed)

    def reset(self):
        self.count = 0
        return self.generator.normal(size=(3, 2))

    def step(self, actions):
        self.received.append(actions)
        self.count += 1
        done = self.dones.get(self.count, False)
        return self.generator.normal(size=(3, 2)), self.reward, done, self.info.get(self.count, {})


class SeededReset(Plain):
    seed = 5  # an attribute of that name must not be called

    def reset(self, seed=None):
        if seed is not None:
            self.seeds.append(seed)
            self.generator = np.random.default_rng(seed)
        return super().reset()


class Unseedable(Plain):
    seed = 5


def play(env, steps, action=1):
    td, out = env.reset(), []
    actions = TensorDict({"action": torch.full((env.n_envs, 3), action)}, [env.n_envs, 3])
    for _ in range(steps):
        td = env.step(td.update(TensorDict({"agents": actions}, [env.n_envs])))["next"].clone()
        out.append(td)
    return out


def flags(steps, key):
    return [bool(step[key].item()) for step in steps]


@pytest.mark.parametrize(
    "settings", [{"n_actions": 4}, {"action_low": [-1.0, 0.0], "action_high": [1.0, 2.0]}]
)
def test_specs_hold(settings):
    env = from_numpy(Plain, n_envs=2, max_steps=4, **settings)
    check_env_specs(env)
    assert env.rollout(9, break_when_any_done=False).shape == (2, 9)
    assert env.group_map == {"agents": ["agents_0", "agents_1", "agents_2"]}


def test_actions_have_the_bounds_given():
    spec = from_numpy(Plain(), n_actions=4).full_action_spec["agents", "action"]
    assert isinstance(spec, Categorical) and spec.space.n == 4 and spec.shape == (1, 3)
    box = from_numpy(Plain(), action_low=[-1.0, 0.0], action_high=[1.0, 2.0])
    spec = box.full_action_spec["agents", "action"]
    assert isinstance(spec, Bounded) and spec.shape == (1, 3, 2)
    assert spec.space.low[0, 0].tolist() == [-1, 0] and spec.space.high[0, 0].tolist() == [1, 2]


def test_actions_observations_and_rewards_pass_through():
    plain = Plain()
    env = from_numpy(plain, n_actions=4, seed=1)
    first = env.reset()
    twin = Plain()
    twin.seed(plain.seeds[-1])
    np.testing.assert_array_equal(first["agents", "observation"][0], np.float32(twin.reset()))
    step = play(env, 1, action=3)[0]
    assert plain.received[0].tolist() == [3, 3, 3] and plain.received[0].dtype == np.int64
    assert step["agents", "reward"].flatten().tolist() == [1, 2, 3]


def test_one_reward_for_all_is_given_to_each():
    step = play(from_numpy(Plain(reward=2.5), n_actions=2), 1)[0]
    assert step["agents", "reward"].flatten().tolist() == [2.5, 2.5, 2.5]


@pytest.mark.parametrize("kind", [Plain, SeededReset])
def test_copies_get_distinct_seeds(kind):
    env = from_numpy(kind, n_actions=2, n_envs=5, seed=1)
    first = env.reset()
    assert len({copy.env.seeds[-1] for copy in env.copies}) == 5
    assert (from_numpy(kind, n_actions=2, n_envs=5, seed=1).reset() == first).all()
    assert not (env.reset() == first).all()
    assert all(len(copy.env.seeds) == 1 for copy in env.copies)


def test_an_environment_without_seeds_is_left_to_itself():
    env = from_numpy(Unseedable, n_actions=2, n_envs=2, seed=1)
    env.reset()
    assert all(copy.env.seeds == [] for copy in env.copies)


# ------------------------------------------------------------------------------------------ ends
@pytest.mark.parametrize("done", [True, [True, True, True], np.ones((3, 1), dtype=bool)])
def test_done_terminates(done):
    steps = play(from_numpy(Plain(dones={2: done}), n_actions=2), 2)
    assert flags(steps, "terminated") == flags(steps, "done") == [False, True]
    assert not any(flags(steps, "truncated"))


@pytest.mark.parametrize("key", ["TimeLimit.truncated", "truncated"])
@pytest.mark.parametrize("done", [True, False, [True, False, True]])
def test_a_time_limit_in_the_info_truncates(key, done):
    plain = Plain(dones={2: done}, info={2: {key: True}})
    steps = play(from_numpy(plain, n_actions=2), 2)
    assert flags(steps, "truncated") == flags(steps, "done") == [False, True]
    assert not any(flags(steps, "terminated"))
    assert steps[-1]["agents", "mask"].all()


def test_a_false_flag_in_the_info_is_a_real_end():
    plain = Plain(dones={2: True}, info={2: {"TimeLimit.truncated": False}})
    steps = play(from_numpy(plain, n_actions=2), 2)
    assert flags(steps, "terminated") == [False, True] and not any(flags(steps, "truncated"))


def test_our_time_limit_truncates():
    steps = play(from_numpy(Plain(), n_actions=2, max_steps=2), 2)
    assert flags(steps, "truncated") == [False, True] and not any(flags(steps, "terminated"))
    dones = {1: [True, False, False]}
    last = play(from_numpy(Plain(dones=dones), n_actions=2, max_steps=2), 2)[-1]
    assert last["agents", "truncated"].flatten().tolist() == [False, True, True]
    td = from_numpy(Plain(), n_actions=2, max_steps=2).rollout(4, break_when_any_done=False)
    assert td["next", "agents", "truncated"][0, :, 0].flatten().tolist() == [False, True] * 2


def test_agents_that_are_done_early_are_masked():
    plain = Plain(dones={1: [True, False, False], 2: [False, True, False], 3: [False, False, True]})
    env = from_numpy(plain, n_actions=2)
    steps = play(env, 3)
    alive = [step["agents", "mask"][0].tolist() for step in steps]
    assert alive == [[False, True, True], [False, False, True], [False, False, False]]
    rewards = [step["agents", "reward"].flatten().tolist() for step in steps]
    assert rewards == [[1, 2, 3], [0, 2, 3], [0, 0, 3]]
    for key in ("terminated", "done"):
        ended = [step["agents", key].flatten().tolist() for step in steps]
        assert ended == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert not any(step["agents", "truncated"].any() for step in steps)
    assert flags(steps, "terminated") == [False, False, True]
    assert env.reset()["agents", "mask"].all()


def test_without_a_mask_they_are_an_error_with_the_remedy():
    env = from_numpy(Plain(dones={1: [True, False, False]}), n_actions=2, mortal=False)
    with pytest.raises(ValueError, match=r"agents \[0\] were done before.*mortal=True"):
        play(env, 1)


def test_info_keys():
    env = from_numpy(Plain(info={1: {"cost": 4}}), n_actions=2, info_keys=["cost"])
    assert [step["info", "cost"].item() for step in play(env, 2)] == [4.0, 0.0]


# -------------------------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_actions": 2, "action_low": 0.0, "action_high": 1.0},
        {"action_low": 0.0},
        {"n_actions": 2, "action_high": 1.0},
    ],
)
def test_the_action_space_must_be_one_of_two_kinds(settings):
    with pytest.raises(ValueError, match=r"give either n_actions .* or both action_low and"):
        from_numpy(Plain(), **settings)


def broken(**methods):
    env = Plain()
    for name, method in methods.items():
        setattr(env, name, method)
    return env


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(3), r"reset\(\) must return an array \[n_agents, d_obs\]; got shape \(3,\)"),
        ((np.zeros((3, 2)), {}), r"what reset\(\) returns must be an array of numbers; got tuple"),
        ("hello", r"what reset\(\) returns must be an array of numbers; got str"),
    ],
)
def test_a_wrong_reset_is_described(value, message):
    with pytest.raises(ValueError, match=message):
        from_numpy(broken(reset=lambda: value), n_actions=2)


OBS = np.zeros((3, 2))
NAN = np.array([[0.0, 0.0], [0.0, np.nan], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ((np.zeros((2, 2)), 0.0, False, {}), r"observation must have shape \(3, 2\); got \(2, 2\)"),
        ((NAN, 0.0, False, {}), r"observation of agent 'agents_1' is nan at index \[1\] \(copy 0"),
        ((OBS, [1.0, 2.0], False, {}), r"rewards must be one value or one per agent, 3; got.*\(2,"),
        ((OBS, [0, 0, np.inf], False, {}), r"reward of agent 'agents_2' is inf"),
        ((OBS, 0.0, [False], {}), r"dones must be one value or one per agent, 3; got shape \(1,\)"),
        ((OBS, 0.0, False), r"must return \(obs, rewards, dones, info\); got 3 value"),
        ((OBS, 0.0, False, False, {}), r"must return \(obs, rewards, dones, info\); got 5 value"),
        (OBS, r"must return \(obs, rewards, dones, info\); got ndarray"),
        ((OBS, 0.0, False, []), r"info must be a dict; got list"),
    ],
)
def test_a_wrong_step_is_described(result, message):
    env = from_numpy(broken(step=lambda actions: result), n_actions=2)
    with pytest.raises(ValueError, match=message):
        play(env, 1)


def test_something_without_reset_and_step_is_refused():
    with pytest.raises(TypeError, match=r"a function that returns one; got builtins\.int"):
        from_numpy(3, n_actions=2)
    with pytest.raises(ValueError, match="n_envs=2 copies need a function that builds"):
        from_numpy(Plain(), n_actions=2, n_envs=2)
