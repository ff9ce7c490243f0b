"""The environment shell that every batched task runs in."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs
from toy_tasks import Hunt, HuntParams

from marl_td.tasks import VectorEnv, make_env
from marl_td.tasks.base import Box, GroupSpec
from marl_td.tasks.vector_env import where_state


def hunt(n_envs=4, seed=0, **params):
    return VectorEnv(Hunt(HuntParams(**params)), n_envs, seed=seed)


def joint_action(n_envs, seed=7, n_hunters=3):
    """Actions that depend on `seed` only."""
    generator = torch.Generator().manual_seed(seed)
    hunter = torch.randint(3, (n_envs, n_hunters), generator=generator)
    prey = torch.rand((n_envs, 1, 2), generator=generator) * 2 - 1
    return TensorDict(
        {
            "hunter": TensorDict({"action": hunter}, [n_envs, n_hunters]),
            "prey": TensorDict({"action": prey}, [n_envs, 1]),
        },
        [n_envs],
    )


def fixed_policy(td):
    """A policy without randomness: hunters on the right strike when they may, the prey stands."""
    right = td["hunter", "observation"][..., 0] > 0
    td["hunter", "action"] = (td["hunter", "action_mask"][..., 2] & right).long() * 2
    td["prey", "action"] = torch.zeros(*td.batch_size, 1, 2)
    return td


def same(a, b):
    return bool((a == b).all())


# ------------------------------------------------------------------------------------------ specs
def test_specs_hold():
    check_env_specs(hunt())


def test_keys_and_shapes():
    step = hunt().rollout(1)["next"]
    shapes = {
        ("hunter", "observation"): (4, 1, 3, 4),
        ("hunter", "action_mask"): (4, 1, 3, 3),
        ("hunter", "mask"): (4, 1, 3),
        ("hunter", "reward"): (4, 1, 3, 1),
        ("prey", "observation"): (4, 1, 1, 2),
        ("prey", "reward"): (4, 1, 1, 1),
        ("info", "damage"): (4, 1, 1),
        "state": (4, 1, 4),
        "done": (4, 1, 1),
        "terminated": (4, 1, 1),
        "truncated": (4, 1, 1),
    }
    found = {key: tuple(step[key].shape) for key in step.keys(True, True)}
    assert found == shapes


def test_group_map_names_every_agent():
    assert hunt().group_map == {"hunter": ["hunter_0", "hunter_1", "hunter_2"], "prey": ["prey_0"]}


def test_action_spec_has_the_bounds_of_the_box():
    spec = hunt().full_action_spec["prey", "action"]
    assert spec.space.low[0, 0].tolist() == [-1.0, -2.0]
    assert spec.space.high[0, 0].tolist() == [1.0, 2.0]


# ------------------------------------------------------------------------------------- randomness
def test_same_seed_same_rollout():
    first = hunt(seed=3).rollout(20, fixed_policy, break_when_any_done=False)
    second = hunt(seed=3).rollout(20, fixed_policy, break_when_any_done=False)
    other = hunt(seed=4).rollout(20, fixed_policy, break_when_any_done=False)
    assert same(first, second)
    assert not same(first, other)


def test_set_seed_starts_the_stream_again():
    env = hunt(seed=3)
    first = env.rollout(5, fixed_policy)
    env.set_seed(3)
    assert same(first, env.rollout(5, fixed_policy))


def test_environments_do_not_disturb_each_other():
    env, other = hunt(seed=0), hunt(seed=0)
    alone = hunt(seed=0).rollout(8, fixed_policy, break_when_any_done=False)
    rows, td = [], env.reset()
    for _ in range(8):
        other.rollout(3, fixed_policy)
        other.set_seed(11)
        step, td = env.step_and_maybe_reset(fixed_policy(td))
        rows.append(step)
    assert same(torch.stack(rows, 1), alone)


def test_reset_and_step_leave_the_global_generator_alone():
    env = hunt()
    before = torch.get_rng_state()
    env.rollout(10, fixed_policy, break_when_any_done=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_none_differs_between_environments():
    first, second = hunt(seed=None).reset(), hunt(seed=None).reset()
    assert not torch.equal(first["state"], second["state"])


def test_a_copy_continues_as_the_original_would():
    env = hunt()
    td = env.reset()
    twin = copy.deepcopy(env)
    action = joint_action(4)
    a = env.step(td.clone().update(action))
    b = twin.step(td.clone().update(action))
    assert same(a, b)


# ---------------------------------------------------------------------------- batch independence
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), n_envs=st.integers(2, 6), length=st.integers(1, 8))
def test_an_environment_evolves_alone_as_in_a_batch(seed, n_envs, length):
    task = Hunt(HuntParams())
    generator = torch.Generator().manual_seed(seed)
    start = task.draw_reset(n_envs, generator)
    noises = [task.draw_step(n_envs, generator) for _ in range(length)]
    row = seed % n_envs

    def play(n, pick):
        env = VectorEnv(task, n)
        td = env.reset()
        env.state = task.reset(n, {k: pick(v) for k, v in start.items()})
        steps = []
        for t, noise in enumerate(noises):
            env.inject_noise({k: pick(v) for k, v in noise.items()})
            td = env.step(td.update(joint_action(n_envs, seed + t).apply(pick, batch_size=[n])))
            steps.append(td["next"].clone())
            td = td["next"].clone()
        return torch.stack(steps)

    batch = play(n_envs, lambda x: x)
    alone = play(1, lambda x: x[row : row + 1])
    assert same(batch[:, row : row + 1], alone)


def test_injected_noise_serves_one_step():
    env = hunt()
    td = env.reset()
    env.inject_noise({"loss": torch.ones(4, 3)})
    life = env.step(td.update(joint_action(4)))["next", "hunter", "observation"][..., 1]
    torch.testing.assert_close(life, torch.full((4, 3), 0.7))
    again = env.step(td.update(joint_action(4)))["next", "hunter", "observation"][..., 1]
    assert (again > 0.4 + 1e-6).any()


# ------------------------------------------------------------------------- resets and both ends
def test_partial_reset_touches_only_its_rows():
    env = hunt()
    td = env.rollout(2, fixed_policy)[:, -1]["next"].clone()
    before, count = copy.deepcopy(env.state), env.step_count.clone()
    rows = torch.tensor([False, True, False, True])
    out = env.reset(td.clone().set("_reset", rows.unsqueeze(-1)))
    for old, new in zip(before, env.state, strict=True):
        assert torch.equal(new[~rows], old[~rows])
    assert not torch.equal(env.state.position[rows], before.position[rows])
    assert torch.equal(env.step_count, torch.where(rows, 0, count))
    kept = td.exclude(("hunter", "reward"), ("prey", "reward"))[~rows]
    assert same(out.select(*kept.keys(True, True))[~rows], kept)
    assert (out["info", "damage"][rows] == 0).all()


def test_long_rollout_matches_a_loop_over_the_pure_functions():
    """What TorchRL's collector sees, against twenty lines that call the task's functions."""
    env = hunt(n_envs=3, seed=5)
    found = env.rollout(15, fixed_policy, break_when_any_done=False)
    task, generator = Hunt(HuntParams()), torch.Generator().manual_seed(5)
    state = task.reset(3, task.draw_reset(3, generator))
    count = torch.zeros(3, dtype=torch.long)
    for t in range(15):
        torch.testing.assert_close(
            found["hunter", "observation"][:, t], task.observe(state)["hunter"]
        )
        strike = task.action_mask(state)["hunter"][..., 2] & (state.position > 0)
        action = {"hunter": strike.long() * 2, "prey": torch.zeros(3, 1, 2)}
        step = task.step(state, action, task.draw_step(3, generator))
        count = count + 1
        row = found["next"][:, t]
        torch.testing.assert_close(row["hunter", "observation"], task.observe(step.state)["hunter"])
        torch.testing.assert_close(row["hunter", "reward"].squeeze(-1), step.reward["hunter"])
        assert torch.equal(row["terminated"].squeeze(-1), step.terminated)
        assert torch.equal(row["truncated"].squeeze(-1), (count >= 6) & ~step.terminated)
        done = step.terminated | (count >= 6)
        state = step.state
        if done.any() and t < 14:
            fresh = task.reset(3, task.draw_reset(3, generator))
            state, count = where_state(done, fresh, state), torch.where(done, 0, count)
    assert found["next", "terminated"].any() and found["next", "truncated"].any()


def test_the_time_limit_truncates_and_does_not_terminate():
    last = hunt(max_steps=3, prey_life=100.0).rollout(10, fixed_policy)["next"]
    assert last.shape[1] == 3
    assert last["truncated"][:, -1].all() and last["done"][:, -1].all()
    assert not last["terminated"].any() and not last["truncated"][:, :-1].any()


def test_a_real_end_at_the_time_limit_terminates():
    env = hunt(max_steps=1, prey_life=1.0)
    strike = joint_action(4).apply(lambda x: torch.full_like(x, 2) if x.dtype == torch.long else x)
    last = env.step(env.reset().update(strike))["next"]
    assert last["terminated"].all() and last["done"].all()
    assert not last["truncated"].any()


# --------------------------------------------------------------------------- actions and messages
def test_random_actions_are_legal_and_reach_every_legal_one():
    torch.manual_seed(0)
    env = hunt(n_envs=64, prey_life=100.0)
    td = env.rollout(6)
    mask, action = td["hunter", "action_mask"], td["hunter", "action"]
    assert mask.gather(-1, action.unsqueeze(-1)).all()
    assert (~mask).any()
    free = mask.all(-1)
    assert torch.bincount(action[free], minlength=3).min() > free.sum() / 3 * 0.7


def test_a_wrong_action_shape_names_group_and_shapes():
    env = hunt()
    td = env.reset().update(joint_action(4))
    td["hunter"] = TensorDict({"action": torch.zeros(4, 3, 3)}, [4, 3])
    message = r"group 'hunter' must have shape \[4, 3\].*got \[4, 3, 3\]"
    with pytest.raises(ValueError, match=message):
        env.step(td)


def test_a_missing_action_is_named():
    env = hunt()
    with pytest.raises(ValueError, match=r"group 'hunter'.*key \('hunter', 'action'\); got none"):
        env.step(env.reset())


def test_a_step_before_the_first_reset_says_so():
    env = hunt()
    with pytest.raises(RuntimeError, match=r"call env\.reset\(\) first"):
        env.step(joint_action(4))
    with pytest.raises(RuntimeError, match=r"call env\.reset\(\) first"):
        env.rand_action()


def test_no_environments_is_an_error():
    with pytest.raises(ValueError, match="n_envs must be at least 1; got 0"):
        hunt(n_envs=0)


def test_moving_to_another_device_is_refused_with_the_remedy():
    env = make_env("matrix_game", n_envs=2)
    assert env.to("cpu") is env
    with pytest.raises(ValueError, match=r"cannot move to meta.*make_env\('matrix_game', n_envs=2"):
        env.to("meta")


def test_render_gives_the_task_s_picture():
    env = hunt()
    first = env.reset()["hunter", "observation"][:, 0, 0].clamp(-3, 3)
    assert env.render().shape == (4, 5, 3)
    assert [env.render(index=i)[0, 0, 0] for i in range(4)] == (128 + 40 * first).int().tolist()
    with pytest.raises(ValueError, match="render mode must be 'rgb_array'; got 'human'"):
        env.render("human")
    matrix = make_env("matrix_game", n_envs=1)
    matrix.reset()
    with pytest.raises(NotImplementedError, match="task 'matrix_game' has no renderer"):
        matrix.render()


def test_a_mask_needs_discrete_actions():
    class Wrong(Hunt):
        @property
        def groups(self):
            return {"hunter": GroupSpec(3, 4, Box((0.0,), (1.0,)), masked=True)}

    with pytest.raises(ValueError, match="an action mask needs discrete actions"):
        VectorEnv(Wrong(HuntParams()), 1)
