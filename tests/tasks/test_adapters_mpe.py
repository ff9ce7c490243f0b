"""The multi-particle environments of mpe2 by name."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from marl_td.tasks.adapters import alias_mpe, extras, from_mpe, from_pettingzoo

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
mpe2 = pytest.importorskip("mpe2", reason="needs the extra `mpe`")
NAMES = [
    name.removeprefix("mpe/")
    for name in importlib.import_module("mpe2.all_modules").mpe_environments
]


def raw_env(name, **options):
    """The environment as mpe2 itself offers it."""
    return importlib.import_module(f"mpe2.{name}").parallel_env(**options)


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_an_episode_equals_the_raw_environment_s(name, continuous):
    """Observations, rewards, ends and state of a whole episode, number by number."""
    env = from_mpe(name, max_steps=6, continuous_actions=continuous, seed=7)
    raw = raw_env(name, max_cycles=6, continuous_actions=continuous)
    seen, _ = raw.reset(seed=env._seeds[0])
    td = env.reset()
    for t in range(6):
        td = env.rand_action(td)
        actions = {}
        for group, agents in env.group_map.items():
            for seat, agent in enumerate(agents):
                assert td[group, "observation"][0, seat].numpy().tolist() == seen[agent].tolist()
                action = td[group, "action"][0, seat].numpy()
                actions[agent] = action if continuous else int(action)
        seen, rewards, terminations, truncations, _ = raw.step(actions)
        td = env.step(td)["next"].clone()
        for group, agents in env.group_map.items():
            expected = np.float32([rewards[agent] for agent in agents])
            assert td[group, "reward"][0, :, 0].numpy().tolist() == expected.tolist()
        assert td["state"][0].numpy().tolist() == raw.state().tolist()
        assert td["truncated"].item() == (t == 5) == all(truncations.values())
        assert not td["terminated"].item() and not any(terminations.values())
    for group, agents in env.group_map.items():
        for seat, agent in enumerate(agents):
            assert td[group, "observation"][0, seat].numpy().tolist() == seen[agent].tolist()


def test_actions_beyond_the_bounds_are_clipped_as_in_the_raw_environment():
    env = from_mpe("simple_spread_v3", continuous_actions=True, seed=7)
    raw = raw_env("simple_spread_v3", continuous_actions=True)
    raw.reset(seed=env._seeds[0])
    td = env.rand_action(env.reset())
    td["agent", "action"] = td["agent", "action"] * 3 - 1
    actions = {f"agent_{i}": td["agent", "action"][0, i].numpy() for i in range(3)}
    expected = raw.step(actions)[0]["agent_0"]
    assert env.step(td)["next", "agent", "observation"][0, 0].tolist() == expected.tolist()


def test_terminating_on_success_terminates_as_in_the_raw_environment():
    options = {"terminate_on_success": True, "N": 1, "continuous_actions": True}
    env = from_mpe("simple_spread_v3", seed=1, max_steps=200, **options)
    raw = raw_env("simple_spread_v3", max_cycles=200, **options)
    raw.reset(seed=env._seeds[0])
    td, over = env.reset(), False
    while not over:
        away = td["agent", "observation"][0, 0, 4:6].numpy()  # where the landmark is
        force = np.float32([0, away[0] < 0, away[0] > 0, away[1] < 0, away[1] > 0])
        force *= np.abs(away).repeat(2)[[0, 0, 1, 2, 3]].clip(0, 0.2)
        terminations = raw.step({"agent_0": force})[2]
        td["agent", "action"] = torch.from_numpy(force).reshape(1, 1, 5)
        td = env.step(td)["next"].clone()
        over = terminations["agent_0"] or td["done"].item()
    assert terminations["agent_0"] and td["terminated"].item() and not td["truncated"].item()


def test_a_batch_equals_its_environments_one_by_one():
    batch = from_mpe("simple_tag_v3", n_envs=3, max_steps=5, seed=2)
    seeds = list(batch._seeds)
    torch.manual_seed(1)
    td = batch.rollout(5)
    for i, seed in enumerate(seeds):
        raw = raw_env("simple_tag_v3", max_cycles=5)
        seen, _ = raw.reset(seed=seed)
        for t in range(5):
            assert td["agent", "observation"][i, t, 0].tolist() == seen["agent_0"].tolist()
            actions = {"agent_0": int(td["agent", "action"][i, t, 0])}
            for j in range(3):
                actions[f"adversary_{j}"] = int(td["adversary", "action"][i, t, j])
            seen, *_ = raw.step(actions)


@pytest.mark.parametrize("continuous", [True, False])
def test_specs_hold_and_episodes_are_truncated(continuous):
    env = from_mpe("simple_spread_v3", n_envs=2, continuous_actions=continuous, N=2)
    check_env_specs(env)
    assert env.group_map == {"agent": ["agent_0", "agent_1"]}
    td = env.rollout(30)
    assert td.shape == (2, 25) and td["next", "truncated"][:, -1].all()
    assert not td["next", "terminated"].any()
    assert ("agent", "mask") not in td.keys(True, True)


def test_the_detour_over_turns_gives_the_same():
    """The fast path of `from_mpe` against the public environment through the general adapter."""
    fast = from_mpe("simple_reference_v3", n_envs=2, seed=4)
    slow = from_pettingzoo(lambda: raw_env("simple_reference_v3"), n_envs=2, seed=4, mortal=False)
    torch.manual_seed(0)
    a = fast.rollout(40, break_when_any_done=False)
    torch.manual_seed(0)
    b = slow.rollout(40, break_when_any_done=False)
    assert (a == b).all()


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"unknown mpe2 environment 'simple_spred_v3'. Did you"):
        from_mpe("simple_spred_v3")


def test_the_time_limit_has_one_name():
    with pytest.raises(ValueError, match="called max_steps here, not max_cycles"):
        from_mpe("simple_spread_v3", max_cycles=3)
    with pytest.raises(ValueError, match="max_steps must be at least 1; got 0"):
        from_mpe("simple_spread_v3", max_steps=0)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"package 'mpe2'.*pip install 'marl-td\[mpe\]'"):
        from_mpe("simple_spread_v3")


def test_nothing_is_aliased_where_pettingzoo_has_mpe():
    pytest.importorskip("pettingzoo.mpe", reason="this PettingZoo has no mpe")
    assert alias_mpe() is False


def test_torchrl_s_by_name_route_works_where_pettingzoo_lacks_mpe():
    """In its own process: it changes what can be imported."""
    code = """
import sys, warnings
sys.modules["pettingzoo.mpe"] = None  # as PettingZoo 1.26: the import fails
from marl_td.tasks.adapters import alias_mpe
assert alias_mpe() is True
assert alias_mpe() is False
import mpe2.simple_tag_v3
import pettingzoo.mpe.simple_tag_v3 as found
assert found is mpe2.simple_tag_v3
warnings.simplefilter("ignore")
from torchrl.envs import PettingZooEnv
env = PettingZooEnv("simple_tag_v3", parallel=True)
assert sorted(env.group_map) == ["adversary", "agent"]
assert type(env._env.unwrapped).__module__.startswith("mpe2.")
assert env.rollout(3).shape == (3,)
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stdout.endswith("fine\n"), done.stdout + done.stderr
    assert "pygame" not in done.stdout  # its greeting would spoil a command's JSON
