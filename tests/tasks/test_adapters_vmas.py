"""VMAS scenarios: true time limits, and a random stream per environment."""

import random

import numpy as np
import pytest
import torch
from torchrl.envs.libs.vmas import VmasEnv
from torchrl.envs.utils import check_env_specs

pytest.importorskip("vmas", reason="needs the extra `vmas`")

from vmas.scenarios.debug.het_mass import Scenario as HetMass
from vmas.scenarios.mpe.simple_spread import Scenario as SimpleSpread
from vmas.simulator.environment import Environment

from marl_td.tasks.adapters import extras, from_vmas
from marl_td.tasks.adapters.vmas import draws_from_torch_alone


class EndsAt(SimpleSpread):
    """A scenario of one's own: copy `i` really ends after `i + 2` steps."""

    def make_world(self, batch_dim, device, **kwargs):
        self.count = torch.zeros(batch_dim, device=device)
        return super().make_world(batch_dim, device, **kwargs)

    def reset_world_at(self, env_index=None):
        super().reset_world_at(env_index)
        self.count[slice(None) if env_index is None else env_index] = 0

    def post_step(self):
        self.count += 1

    def done(self):
        return self.count >= torch.arange(len(self.count)) + 2


class Noisy(SimpleSpread):
    """A scenario that draws in every step."""

    def observation(self, agent):
        seen = super().observation(agent)
        return seen + torch.rand_like(seen)


def still(td, env):
    """Write zero actions: a policy without randomness."""
    for group, agents in env.group_map.items():
        width = env.full_action_spec[group, "action"].shape[-1]
        td[group, "action"] = torch.zeros(*env.batch_size, len(agents), width)
    return td


def starts(env, n, between=lambda: None):
    """The first observations of `n` resets, with something done in between."""
    out = []
    for _ in range(n):
        out.append(env.reset()["agents", "observation"].clone())
        between()
    return torch.stack(out)


# -------------------------------------------------------------------------------------- the specs
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("name", ["simple_spread", "simple_tag", "navigation"])
def test_specs_hold(name, continuous):
    env = from_vmas(name, n_envs=2, max_steps=3, continuous_actions=continuous)
    check_env_specs(env)
    assert env.rollout(7, break_when_any_done=False).shape == (2, 7)


def test_keys_of_our_layout_and_the_scenario_s_info():
    td = from_vmas("balance", n_envs=2, max_steps=3, n_agents=4).rollout(1)["next"]
    keys = set(td.keys(True, True))
    assert {"done", "terminated", "truncated"} < keys
    assert td["done"].shape == td["truncated"].shape == (2, 1, 1)
    assert td["agents", "reward"].shape == (2, 1, 4, 1)
    assert ("agents", "info", "pos_rew") in keys


def test_groups_follow_the_scenario():
    assert {g: len(a) for g, a in from_vmas("simple_tag", n_envs=1).group_map.items()} == {
        "adversary": 3,
        "agent": 1,
    }
    spread = from_vmas("simple_spread", n_envs=1)
    assert list(spread.group_map) == ["agents"]
    each = from_vmas("simple_spread", n_envs=1, groups="each")
    assert list(each.group_map) == ["agent_0", "agent_1", "agent_2"]


def test_differing_spaces_in_a_group_name_the_remedy():
    message = r"'adversary_0' and 'agent_0' are both in group 'agents' but their observation spaces"
    with pytest.raises(ValueError, match=message):
        from_vmas("simple_tag", n_envs=1, groups="all")


# ------------------------------------------------------------------------------------------- ends
def test_the_time_limit_truncates_and_does_not_terminate():
    env = from_vmas("simple_spread", n_envs=3, max_steps=4)
    td = env.rollout(9, break_when_any_done=False)["next"]
    expected = torch.tensor([False, False, False, True] * 2 + [False]).expand(3, -1)
    assert torch.equal(td["truncated"].squeeze(-1), expected)
    assert torch.equal(td["done"].squeeze(-1), expected)
    assert not td["terminated"].any()


def test_torchrl_s_own_wrapper_terminates_there():
    """Why the adapter is needed; without this difference it could go."""
    td = VmasEnv("simple_spread", num_envs=1, max_steps=2).rollout(5)["next"]
    assert td["terminated"][0, -1] and "truncated" not in td.keys()


def test_real_ends_terminate_and_only_those_copies_reset():
    env = from_vmas(EndsAt(), n_envs=3, max_steps=3)
    td = env.rollout(6, break_when_any_done=False)["next"]
    assert td["terminated"].squeeze(-1).int().tolist() == [
        [0, 1, 0, 1, 0, 1],
        [0, 0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ]
    assert td["truncated"].squeeze(-1).int().tolist() == [[0] * 6, [0] * 6, [0, 0, 1, 0, 0, 1]]
    assert torch.equal(td["done"], td["terminated"] | td["truncated"])


def test_without_a_limit_nothing_is_truncated():
    td = from_vmas("simple_spread", n_envs=1).rollout(5)["next"]
    assert td.shape == (1, 5) and not td["done"].any() and not td["truncated"].any()


# --------------------------------------------------------------------------------- random streams
def test_the_numbers_are_those_of_vmas():
    """Alone and with the same seed, an episode equals TorchRL's wrapper's, truncation aside."""
    env = from_vmas("simple_tag", n_envs=2, seed=5)
    plain = VmasEnv("simple_tag", num_envs=2, seed=5)
    a, b = env.reset(), plain.reset()
    for _ in range(4):
        a, b = still(a, env), still(b, plain)
        a, b = env.step(a)["next"].clone(), plain.step(b)["next"].clone()
        assert (a.exclude("truncated") == b).all()


def test_another_environment_does_not_change_the_start_states():
    alone = starts(from_vmas("simple_spread", n_envs=2, seed=1), 4)
    env, other = (from_vmas("simple_spread", n_envs=2, seed=seed) for seed in (1, 1))

    def disturb():
        other.set_seed(3)
        other.rollout(2)
        from_vmas("simple_spread", n_envs=1, seed=9).reset()

    assert torch.equal(starts(env, 4, disturb), alone)
    assert not torch.equal(alone[0], alone[1])


def test_another_environment_does_not_change_the_steps():
    def steps(env, between=lambda: None):
        td, out = env.reset(), []
        for _ in range(3):
            td = env.step(still(td, env))["next"].clone()
            out.append(td["agents", "observation"])
            between()
        return torch.stack(out)

    env, other = (from_vmas(Noisy(), n_envs=2, seed=1) for _ in range(2))
    shared = Environment.vmas_random_state[0].clone()
    alone = steps(from_vmas(Noisy(), n_envs=2, seed=1))
    assert torch.equal(steps(env, lambda: other.step(still(other.reset(), other))), alone)
    assert not torch.equal(alone[0], alone[1])
    assert torch.equal(Environment.vmas_random_state[0], shared)


def test_a_plain_environment_would_be_changed():
    """The trap in VMAS that the stream is for."""
    env, other = (VmasEnv("simple_spread", num_envs=2, seed=1) for _ in range(2))
    env.set_seed(1)
    alone = starts(env, 3)
    env.set_seed(1)
    assert not torch.equal(starts(env, 3, lambda: other.reset()), alone)


def test_plain_environments_do_not_change_ours_nor_ours_theirs():
    alone = starts(from_vmas("simple_spread", n_envs=2, seed=1), 3)
    plain = VmasEnv("simple_spread", num_envs=2, seed=1)
    env = from_vmas("simple_spread", n_envs=2, seed=1)
    assert torch.equal(starts(env, 3, lambda: plain.set_seed(1)), alone)
    plain.set_seed(4)
    theirs = starts(plain, 3)
    plain.set_seed(4)
    assert torch.equal(starts(plain, 3, lambda: env.reset()), theirs)


def global_streams():
    numpy = np.random.get_state()  # noqa: NPY002
    shared = Environment.vmas_random_state[0].tolist()
    return torch.get_rng_state().tolist(), numpy[1].tolist(), random.getstate(), shared


def test_the_process_s_generators_are_left_alone():
    before = global_streams()
    env = from_vmas("het_mass", n_envs=2, max_steps=3)  # draws from NumPy too
    env.rollout(7, lambda td: still(td, env), break_when_any_done=False)
    env.set_seed(3)
    env._env.reset()
    env._env.done()
    assert global_streams() == before


def test_they_are_put_back_after_an_error():
    env = from_vmas("simple_spread", n_envs=2)
    td = still(env.reset(), env)
    before = global_streams()
    td["agents", "action"] += 7.0
    with pytest.raises(AssertionError, match="out of its range"):
        env.step(td)
    assert global_streams() == before


def test_scenarios_that_draw_from_numpy_or_may_do_so_are_known():
    kinds = [SimpleSpread, HetMass, Noisy]  # the last one is not VMAS's
    assert [draws_from_torch_alone(kind) for kind in kinds] == [True, False, False]


def test_seeds():
    env = from_vmas("simple_spread", n_envs=2, seed=1)
    assert torch.equal(starts(env, 2), starts(from_vmas("simple_spread", n_envs=2, seed=1), 2))
    env.set_seed(1)
    first = starts(env, 2)
    env.set_seed(2)
    other = starts(env, 2)
    env.set_seed(1)
    assert torch.equal(starts(env, 2), first) and not torch.equal(other, first)
    free = [starts(from_vmas("simple_spread", n_envs=1, seed=None), 1) for _ in range(2)]
    assert not torch.equal(free[0], free[1])


# --------------------------------------------------------------------------------------- messages
def test_an_unknown_scenario_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"unknown VMAS scenario 'simple_spred'. Did you mean"):
        from_vmas("simple_spred", n_envs=1)


def test_numbers_are_checked():
    with pytest.raises(ValueError, match="n_envs must be at least 1; got 0"):
        from_vmas("simple_spread", n_envs=0)
    with pytest.raises(ValueError, match="max_steps must be at least 1; got 0"):
        from_vmas("simple_spread", n_envs=1, max_steps=0)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"package 'vmas'.*pip install 'marl-td\[vmas\]'"):
        extras.import_extra("vmas", extra="vmas")


def test_rewards_of_a_column_are_rewards():
    """The wheel's agents get a reward ``[n_envs, 1]``, others' ``[n_envs]``."""
    task = from_vmas("wheel", n_envs=3).as_batched_task().task
    generator = torch.Generator().manual_seed(0)
    state = task.reset(3, task.draw_reset(3, generator))
    action = {"agents": torch.zeros(3, 4, 2)}
    step = task.step(state, action, task.draw_step(3, generator))
    assert step.reward["agents"].shape == (3, 4)
