"""Environments and collectors as tensors and plain values, and back; what cannot be so is found out."""

import random

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from toy_parallel import Toy

from marl_td.collect.collector import CompiledCollector
from marl_td.collect.nested import from_snapshot, snapshot_of
from marl_td.collect.rng import rng_restore, rng_snapshot
from marl_td.collect.saving import (
    collector_restore,
    collector_snapshot,
    env_restore,
    env_snapshot,
    restart_reason,
)
from marl_td.tasks import make_env
from marl_td.tasks.adapters import from_numpy, from_pettingzoo
from marl_td.training.tensor_files import pack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:vmas")


class Saved(Toy):
    """One that can say where it is."""

    def state_dict(self):
        return {
            "generator": self.generator.bit_generator.state,
            "count": self.count,
            "agents": list(self.agents),
        }

    def load_state_dict(self, state):
        self.generator.bit_generator.state = state["generator"]
        self.count, self.agents = state["count"], list(state["agents"])


class Forgets(Saved):
    """One that forgets its random stream."""

    def load_state_dict(self, state):
        self.count, self.agents = state["count"], list(state["agents"])


class Odd(Saved):
    """One whose state no file of ours can hold."""

    def state_dict(self):
        return {**super().state_dict(), "generator": self.generator}


class Refuses(Saved):
    def load_state_dict(self, state):
        raise RuntimeError("not today")


ENDS = {"cat_0": (2, "terminated")}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Saved, None),
        (Toy, "the environment Toy offers no way to save its state"),
        (Forgets, "the environment Forgets does not go on alike after its state is restored"),
        (Odd, r"of the environment Odd, state\.envs\.0\.generator is a Generator, which a check"),
        (Refuses, r"the state of the environment Refuses cannot be restored \(not today\)"),
    ],
)
def test_whether_a_parallel_environment_goes_on_is_tried(kind, reason):
    def make():
        return from_pettingzoo(lambda: kind(ENDS), n_envs=2, groups="name")

    torch.manual_seed(5)
    before = torch.get_rng_state()
    env = make()
    env.reset()
    found = restart_reason(make, env, pack)
    assert torch.equal(before, torch.get_rng_state())
    assert found is None if reason is None else __import__("re").match(reason, found)


def test_a_trial_that_fails_does_not_end_the_run():
    env = from_pettingzoo(lambda: Saved(ENDS), n_envs=1)
    env.reset()

    def make():
        raise MemoryError("no room for two more")

    assert restart_reason(make, env) == (
        "the environment Saved could not be tried (MemoryError: no room for two more)"
    )


class Counter:
    """A NumPy environment of two agents that can say where it is."""

    def reset(self):
        self.count = 0
        return np.zeros((2, 1))

    def step(self, actions):
        self.count += 1
        over = np.array([self.count >= 2, self.count >= 4])
        return np.full((2, 1), self.count), np.asarray(actions, dtype=float), over, {}

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_numpy_environment_goes_on():
    def make():
        return from_numpy(Counter, n_actions=3, n_envs=2, seed=None)

    env = make()
    env.reset()
    assert restart_reason(make, env) is None


@pytest.mark.parametrize("scenario", ["navigation", "football", "flocking", "simple_adversary"])
def test_vmas_goes_on(scenario):
    from_vmas = pytest.importorskip("marl_td.tasks.adapters.vmas").from_vmas

    def make():
        return from_vmas(scenario, n_envs=2, seed=1, max_steps=9)

    assert restart_reason(make, make(), pack) is None


@pytest.mark.parametrize("name", ["simple_reference_v3", "simple_line_v1", "collect_treasure_v1"])
def test_mpe_goes_on(name):
    """Goals that are other agents; arrays in the scenario; a generator of the world's own."""
    from_mpe = pytest.importorskip("marl_td.tasks.adapters.mpe").from_mpe

    def make():
        return from_mpe(name, n_envs=2, seed=1, max_steps=9)

    env = make()
    env.reset()
    assert restart_reason(make, env, pack) is None


def test_an_mpe_scenario_that_keeps_something_else_is_not_taken_for_exact():
    from_mpe = pytest.importorskip("marl_td.tasks.adapters.mpe").from_mpe
    env = from_mpe("simple_v3", n_envs=1, seed=1)
    env.reset()
    env.copies[0].env.raw.scenario.memory = {1, 2}
    reason = restart_reason(lambda: env, env, pack)
    assert reason == "of the environment DirectMpe, 'memory' is a set, which is not understood."


def test_vmas_objects_that_refer_to_each_other_otherwise_are_noticed():
    from_vmas = pytest.importorskip("marl_td.tasks.adapters.vmas").from_vmas
    one, other = (from_vmas("simple_tag", n_envs=2, seed=1) for _ in range(2))
    one._env.scenario.favourite = one._env.agents[0]
    other._env.scenario.favourite = other._env.agents[1]
    state = one.snapshot()
    with pytest.raises(ValueError, match="objects refer to each other otherwise"):
        other.restore(state)
    other._env.scenario.favourite = other._env.agents[0]
    other.restore(state)
    del state["simulation"]["numbers"][0]
    state["simulation"]["numbers"].append([["nowhere"], 1])
    with pytest.raises(ValueError, match="the saved simulation has 'nowhere', this one has not"):
        other.restore(state)


def test_a_batched_task_goes_on_and_refuses_another():
    env = make_env("simple_spread", n_envs=3, seed=0)
    now = env.reset()
    for _ in range(4):
        _, now = env.step_and_maybe_reset(env.rand_action(now))
    state = env_snapshot(env)
    other = make_env("simple_spread", n_envs=3, seed=9)
    env_restore(other, state)
    rows = []
    for one in (env, other):
        torch.manual_seed(0)
        following, seen = now.clone(), []
        for _ in range(40):  # past the time limit: fresh episodes are the same, too
            row, following = one.step_and_maybe_reset(one.rand_action(following))
            seen.append(row.clone())
        rows.append(torch.stack(seen))
    assert rows[0]["next", "done"].any()
    assert (rows[0] == rows[1]).all()
    with pytest.raises(ValueError, match="not one of 2 copies of 'simple_spread' with these param"):
        env_restore(make_env("simple_spread", n_envs=2, seed=0), state)


def test_a_compiled_collector_goes_on():
    """Uncompiled here (backend eager): what it carries is the same."""

    def make(seed):
        env = make_env("simple_spread", n_envs=3, seed=seed)
        return CompiledCollector(env, env.rand_action, frames_per_batch=12, backend="eager")

    one, other = make(0), make(7)
    one.init_random_frames = other.init_random_frames = 1000  # the few random steps need no graph
    batches = iter(one)
    next(batches)
    state = collector_snapshot(one)
    collector_restore(other, state, None)
    rows = []
    for each in (batches, iter(other)):
        torch.manual_seed(3)
        rows.append([next(each), next(each)])
    for a, b in zip(*rows, strict=True):
        assert (a == b).all()
    assert other._frames == 36 and other._iter == 2
    fresh = make(1)
    collector_restore(fresh, state, 5)  # other episodes, same counters
    assert fresh._frames == 12 and fresh._carry is None


def test_every_global_stream_goes_on():
    def draw():
        return torch.rand(1).item(), np.random.normal(), random.gauss(0, 1)  # noqa: NPY002

    draw()
    np.random.normal()  # noqa: NPY002 - the second of a pair is kept for the next call
    state = rng_snapshot()
    expected = draw()
    draw()
    packed, tensors = pack(state)
    from pathlib import Path

    from marl_td.training.tensor_files import unpack

    rng_restore(unpack(packed, tensors, Path("x")))
    assert draw() == expected


def test_a_tensordict_comes_back_with_the_same_order_and_shapes():
    inner = TensorDict({"b": torch.ones(2, 3, 1)}, [2, 3])
    data = TensorDict({"z": torch.zeros(2), "g": inner, "a": torch.zeros(2, 5)}, [2])
    data.set(("next", "g"), TensorDict({"r": torch.ones(2, 3)}, [2, 3]))
    data.set("empty", TensorDict({}, [2]))
    again = from_snapshot(snapshot_of(data), "cpu")
    assert list(again.keys(True, True)) == list(data.keys(True, True))
    assert again["next", "g"].batch_size == again["g"].batch_size == torch.Size([2, 3])
    assert (again == data).all() and "empty" in again.keys()
