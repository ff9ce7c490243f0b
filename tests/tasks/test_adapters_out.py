"""Our tasks as PettingZoo environments, and what importing the adapters costs."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo.test import parallel_api_test, parallel_seed_test
from tensordict import TensorDict
from toy_tasks import Hunt, HuntParams

from marl_td.tasks import TASKS, VectorEnv, adapters, make_task
from marl_td.tasks.adapters import from_pettingzoo, to_pettingzoo

SMALL = {"max_steps": 12}


def hunt(**params):
    return to_pettingzoo(Hunt(HuntParams(**params)))


def kinds():
    """Every registered task with every kind of actions that it has."""
    for name in TASKS:
        task = make_task(name)
        yield from ((name, True),) * task.has_continuous_actions
        yield from ((name, False),) * task.has_discrete_actions


# ----------------------------------------------------------------------------- PettingZoo's tests
@pytest.mark.parametrize(("name", "continuous"), list(kinds()))
def test_every_task_passes_pettingzoo_s_tests(name, continuous, capsys):
    def make():
        return to_pettingzoo(name, continuous=continuous, **SMALL)

    parallel_api_test(make(), num_cycles=30)
    parallel_seed_test(make, num_cycles=30)
    assert "Passed" in capsys.readouterr().out


@pytest.mark.parametrize("params", [{"max_steps": 12}, {"max_steps": 50, "prey_life": 1000.0}])
def test_groups_masks_and_deaths_pass_them_too(params):
    parallel_api_test(hunt(**params), num_cycles=60)
    parallel_seed_test(lambda: hunt(**params), num_cycles=60)


# ------------------------------------------------------------------------------------ one episode
def test_spaces():
    env = hunt()
    assert env.possible_agents == ["hunter_0", "hunter_1", "hunter_2", "prey_0"]
    assert env.action_space("hunter_1") == spaces.Discrete(3)
    assert env.action_space("prey_0").low.tolist() == [-1.0, -2.0]
    assert env.action_space("prey_0").high.tolist() == [1.0, 2.0]
    seen = env.observation_space("hunter_0")
    assert seen["observation"].shape == (4,) and seen["action_mask"].shape == (3,)
    assert env.observation_space("prey_0").shape == (2,)
    assert env.state_space.shape == (4,)
    first, infos = env.reset(seed=1)
    assert set(first) == set(infos) == set(env.possible_agents)
    for agent, value in first.items():
        assert env.observation_space(agent).contains(value)
    assert env.state_space.contains(env.state())


def batched(hunters, prey):
    """One environment's joint action for the vector environment."""
    hunter = TensorDict({"action": torch.tensor([hunters])}, [1, 3])
    return TensorDict(
        {"hunter": hunter, "prey": TensorDict({"action": torch.tensor([[prey]])}, [1, 1])}, [1]
    )


def test_an_episode_equals_the_vector_environment_s():
    """The same seed and actions, number by number, until the end; a hunter dies on the way."""
    batch, env = VectorEnv(Hunt(HuntParams()), 1, seed=5), hunt()
    td, (seen, infos) = batch.reset(), env.reset(seed=5)
    for t in range(6):
        for agent in env.agents:
            group, i = agent.split("_")[0], int(agent[-1])
            here = td[group, "observation"][0, i].tolist()
            if group == "prey":
                assert seen[agent].tolist() == here
                continue
            assert seen[agent]["observation"].tolist() == here
            mask = td["hunter", "action_mask"][0, i].int().tolist()
            assert seen[agent]["action_mask"].tolist() == mask
        assert env.state().tolist() == td["state"][0].tolist()
        hunters, prey, acted = [t % 2, 1, 0], [0.5, 1.0], list(env.agents)
        actions = {f"hunter_{i}": action for i, action in enumerate(hunters)}
        seen, rewards, ended, cut, infos = env.step({**actions, "prey_0": np.float32(prey)})
        td = batch.step(td.update(batched(hunters, prey)))["next"].clone()
        for agent in acted:
            group, i = agent.split("_")[0], int(agent[-1])
            assert rewards[agent] == td[group, "reward"][0, i, 0].item()
            assert infos[agent] == {"damage": td["info", "damage"].item()}
            dead = group == "hunter" and not td["hunter", "mask"][0, i].item()
            assert (ended[agent], cut[agent]) == (dead, t == 5 and not dead)
    assert env.agents == [] and td["truncated"].item() and not td["hunter", "mask"].all()


def test_real_ends_terminate():
    env = hunt(prey_life=2.0)
    env.reset(seed=0)
    strike = {f"hunter_{i}": 2 for i in range(3)} | {"prey_0": np.zeros(2, np.float32)}
    _, rewards, ended, cut, _ = env.step(strike)
    assert all(ended.values()) and not any(cut.values()) and env.agents == []
    assert rewards == {"hunter_0": 1.0, "hunter_1": 1.0, "hunter_2": 1.0, "prey_0": -3.0}


def test_the_dead_leave_and_need_no_action():
    env = hunt(max_steps=100, prey_life=1000.0)
    env.reset(seed=0)
    gone = {}
    while len(env.agents) > 1:
        acted = list(env.agents)
        actions = {a: env.action_space(a).sample() for a in acted}
        seen, _, ended, cut, _ = env.step(actions)
        assert set(seen) == set(ended) == set(acted)
        gone.update({a: True for a in acted if ended[a]})
        assert set(env.agents) == set(env.possible_agents) - set(gone)
        assert not any(cut.values())
    assert env.agents == ["prey_0"]


def test_a_reset_without_a_seed_goes_on():
    env = hunt()
    first = env.reset(seed=3)[0]["prey_0"].tolist()
    second = env.reset()[0]["prey_0"].tolist()
    env.reset(seed=3)
    assert env.reset()[0]["prey_0"].tolist() == second != first
    assert hunt().reset()[0]["prey_0"].tolist() != hunt().reset()[0]["prey_0"].tolist()


def test_the_global_generators_are_left_alone():
    before = torch.get_rng_state()
    env = hunt()
    env.reset(seed=3)
    env.step({f"hunter_{i}": 1 for i in range(3)} | {"prey_0": np.zeros(2, np.float32)})
    assert torch.equal(torch.get_rng_state(), before)


def test_there_and_back_again():
    """Through PettingZoo and back: the same groups, masks, deaths, state and ends."""
    env = from_pettingzoo(lambda: hunt(max_steps=12, prey_life=1000.0), n_envs=2)
    direct = VectorEnv(Hunt(HuntParams(max_steps=12, prey_life=1000.0)), 2)
    td = env.rollout(12)
    expected = direct.rollout(12)
    assert td.shape == expected.shape == (2, 12)
    names = set(expected.keys(True, True)) - {("info", "damage"), ("next", "info", "damage")}
    assert names < set(td.keys(True, True))
    assert torch.equal(td["next", "truncated"], expected["next", "truncated"])
    mask, seen = td["next", "hunter", "mask"], td["next", "hunter", "observation"]
    assert not mask.all() and ((seen[..., 1] > 0) == mask).all()


# ------------------------------------------------------------------------------ pictures, messages
def test_rendering():
    env = to_pettingzoo(Hunt(HuntParams()), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (4, 5, 3) and env.metadata["render_modes"] == ["rgb_array"]
    silent = hunt()
    silent.reset()
    assert silent.render() is None
    with pytest.raises(ValueError, match=r"render modes \['rgb_array'\]; got 'human'"):
        to_pettingzoo(Hunt(HuntParams()), render_mode="human")
    with pytest.raises(ValueError, match=r"'matrix_game' has the render modes \[\]; got 'rgb"):
        to_pettingzoo("matrix_game", render_mode="rgb_array")


def test_messages():
    env = hunt()
    env.reset(seed=0)
    prey = {"prey_0": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match="no action for agent 'hunter_1', which is still there"):
        env.step({"hunter_0": 0, **prey})
    with pytest.raises(ValueError, match=r"'prey_0' must have shape \(2,\); got \(3,\)"):
        env.step({f"hunter_{i}": 0 for i in range(3)} | {"prey_0": np.zeros(3)})
    with pytest.raises(ValueError, match=r"unknown task 'rettail'\. Did you mean 'retail'"):
        to_pettingzoo("rettail")
    with pytest.raises(ValueError, match="belong to a task given by name"):
        to_pettingzoo(Hunt(HuntParams()), max_steps=3)
    no_state = to_pettingzoo(type("Blind", (Hunt,), {"d_state": None})(HuntParams()))
    assert not hasattr(no_state, "state_space")


# ---------------------------------------------------------------------------------------- imports
def test_importing_the_adapters_loads_no_third_party():
    code = (
        "import sys; before = set(sys.modules); import marl_td.tasks.adapters as adapters; "
        "loaded = {'vmas', 'mpe2', 'pettingzoo', 'pygame'} & set(sys.modules); "
        "assert not loaded, loaded; assert 'from_mpe' in dir(adapters)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_a_function():
    for name in adapters.__all__:
        assert callable(getattr(adapters, name))
    with pytest.raises(AttributeError, match="has no attribute 'from_nowhere'"):
        _ = adapters.from_nowhere
