"""What every batched task promises, checked on every one in the registry."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from task_variants import ALL, PLAIN, plain_env
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from marl_td.collect.collector import CompiledCollector
from marl_td.models.compiling import CompileWarning
from marl_td.tasks import VectorEnv, make_task, task_class
from marl_td.tasks.base import Box
from marl_td.tasks.registry import TASKS
from marl_td.tasks.vector_env import observed

WITHOUT_PICTURE = ("matrix_game", "two_step", "sharing_game")
"""A payoff table is all there would be to see."""
ABSOLUTE = {"energy_grid": 5e-3}
"""How far rounding may take a quantity (1e-4 elsewhere): megawatts, of sums of thousands in another order."""
each_variant = pytest.mark.parametrize("variant", ALL, ids=str)
each_kind = pytest.mark.parametrize("variant", PLAIN, ids=str)
each_task = pytest.mark.parametrize("name", TASKS)


def after_some_steps(env, n_steps):
    """The environment's data after random steps, at which no episode ended."""
    data = env.reset()
    for _ in range(n_steps):
        data = env.step(env.rand_action(data))["next"]
        data = env.reset(data.set("_reset", data["done"].clone())) if data["done"].any() else data
    return data


def random_actions(env, data):
    """An action for every group, drawn among the available ones."""
    data = env.rand_action(data.clone())
    return {group: data[group, "action"] for group in env.task.groups}


def one_row(parts, row):
    """Row ``row`` of a dictionary or a tuple of tensors, as a batch of one."""
    if isinstance(parts, dict):
        return {key: value[row : row + 1] for key, value in parts.items()}
    return type(parts)(*(value[row : row + 1] for value in parts))


@each_variant
def test_specs_hold(variant):
    torch.manual_seed(0)
    check_env_specs(variant.env(3))


@each_variant
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16), n_steps=st.integers(0, 6))
def test_an_environment_alone_does_what_it_does_among_others(variant, seed, n_steps):
    torch.manual_seed(seed)
    env = variant.env(5, seed)
    near = {"rtol": 1e-4, "atol": ABSOLUTE.get(variant.task, 1e-4)}
    task = env.task
    data = after_some_steps(env, n_steps)
    state, noise = env.state, task.draw_step(5, env.rng)
    action = random_actions(env, data)
    many = task.step(state, action, noise)
    alone = task.step(one_row(state, 3), one_row(action, 3), one_row(noise, 3))
    for found, expected in zip(alone.state, one_row(many.state, 3), strict=True):
        torch.testing.assert_close(found, expected, **near)
    for group, reward in many.reward.items():
        assert torch.isfinite(reward).all()
        assert reward.shape == (5, task.groups[group].n_agents)
        torch.testing.assert_close(alone.reward[group], reward[3:4], **near)
    assert many.terminated.dtype == torch.bool
    assert torch.equal(alone.terminated, many.terminated[3:4])
    assert set(many.info) == set(task.info_keys)
    shown = observed(task, alone.state, alone.info)
    among = observed(task, many.state, many.info)
    for key, value in among.items():
        torch.testing.assert_close(shown[key], value[3:4], **near)
        if value.is_floating_point():
            assert torch.isfinite(value).all(), key


@each_kind
def test_actions_that_are_none_are_refused_and_change_nothing(variant):
    env = variant.env(3)
    data = env.rand_action(env.reset())
    for group, spec in env.task.groups.items():
        action = data[group, "action"]
        if isinstance(spec.action, Box):
            wrong = [action.long(), *(torch.full_like(action, x) for x in (torch.nan, torch.inf))]
        else:
            wrong = [action.float(), action == 0, action - spec.action.n, action + spec.action.n]
        for values in wrong:
            state, drawn = env.state, env.rng.get_state()
            place = "" if values.dtype != action.dtype else ".* from agent 0 of environment 0"
            with pytest.raises(
                (TypeError, ValueError), match=f"of group '{group}' must hold{place}"
            ):
                env.step(data.clone().set((group, "action"), values))
            assert env.state is state and env.rng.get_state().equal(drawn)
            assert not env.step_count.any()
    env.step(data)


@pytest.mark.parametrize("variant", [kind for kind in PLAIN if kind.continuous], ids=str)
@pytest.mark.parametrize("far", [-1.0, 1.0])
def test_numbers_outside_of_their_box_are_clipped(variant, far):
    env = variant.env(3)
    data = env.rand_action(env.reset())
    start = env.snapshot()
    reached = []
    for beyond in (0.0, 5.0):
        env.restore(start)
        for group, spec in env.task.groups.items():
            bound = torch.tensor(spec.action.high if far > 0 else spec.action.low)
            data[group, "action"] = (bound + far * beyond).expand_as(data[group, "action"]).clone()
        reached.append(env.step(data.clone())["next"])
    for key, value in reached[0].items(True, True):
        torch.testing.assert_close(reached[1][key], value, equal_nan=True)


@each_variant
def test_a_partial_reset_starts_its_rows_anew_and_touches_no_other(variant):
    torch.manual_seed(1)
    env = variant.env()
    data = after_some_steps(env, 2)
    before, counted = env.state, env.step_count
    at = torch.Generator().manual_seed(5)
    env.rng.set_state(at.get_state())
    env.reset(data.set("_reset", torch.tensor([[False], [True], [False], [True]])))
    fresh = env.task.reset(4, env.task.draw_reset(4, at))
    for old, new, first in zip(before, env.state, fresh, strict=True):
        assert torch.equal(old[[0, 2]], new[[0, 2]])
        assert torch.equal(first[[1, 3]], new[[1, 3]])
    assert torch.equal(env.step_count[[0, 2]], counted[[0, 2]])
    assert env.step_count[[1, 3]].tolist() == [0, 0]


@each_variant
def test_a_step_and_what_is_seen_of_it_are_one_graph(variant):
    torch.manual_seed(2)
    torch._dynamo.reset()  # the function below is one and the same for all tasks
    env = variant.env(4)
    task = env.task
    data = after_some_steps(env, 1)

    def everything(state, action, noise):
        step = task.step(state, action, noise)
        return step.state, step.reward, step.terminated, observed(task, step.state, step.info)

    arguments = (env.state, random_actions(env, data), task.draw_step(4, env.rng))
    found = torch.compile(everything, fullgraph=True, backend="aot_eager")(*arguments)
    torch.testing.assert_close(found, everything(*arguments))


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@each_kind
def test_rollouts_are_compiled(variant, backend):
    torch.manual_seed(7)
    torch._dynamo.reset()
    env = variant.env(3)
    shapes = {group: env.full_action_spec[group, "action"].shape for group in env.task.groups}

    def first_available(data):
        for group, spec in env.task.groups.items():
            if isinstance(spec.action, Box):
                action = torch.zeros(shapes[group])
            elif spec.masked:
                action = data[group, "action_mask"].float().argmax(-1)
            else:
                action = torch.zeros(shapes[group], dtype=torch.long)
            data.set((group, "action"), action)
        return data

    with warnings.catch_warnings():
        warnings.simplefilter("error", CompileWarning)
        collector = CompiledCollector(env, first_available, frames_per_batch=12, backend=backend)
        batch = next(iter(collector))
    assert batch.shape == (3, 4)
    for group in env.task.groups:
        assert torch.isfinite(batch["next", group, "reward"]).all()


@pytest.mark.gpu
@each_kind
def test_a_step_on_the_gpu_is_that_of_the_cpu(variant, device="cuda"):
    """States are handed over at each step: rounding may tell a ball or a cell at an edge apart."""
    torch.manual_seed(6)
    env = variant.env(64)
    cpu, data = env.task, env.reset()
    there = type(cpu)(cpu.params, continuous=cpu.continuous, device=device)
    for _ in range(20):
        state, action, noise = env.state, random_actions(env, data), cpu.draw_step(64, env.rng)
        env.inject_noise(noise)
        for group, value in action.items():
            data[group, "action"] = value
        data = env.step(data)["next"]
        moved = [{key: value.to(device) for key, value in part.items()} for part in (action, noise)]
        found = there.step(type(state)(*(part.to(device) for part in state)), *moved)
        seen = observed(there, found.state, found.info)
        expected = observed(cpu, env.state, {key: data["info", key][:, 0] for key in found.info})
        for key, value in expected.items():
            same = torch.isclose(seen[key].cpu().double(), value.double(), rtol=1e-4, atol=1e-4)
            assert same.double().mean() > 0.999, key
        data = env.reset(data.set("_reset", data["done"].clone()))


@each_variant
def test_masked_groups_always_have_an_action(variant):
    torch.manual_seed(3)
    env = variant.env(16)
    for n_steps in (0, 5):
        after_some_steps(env, n_steps)
        masks = env.task.action_mask(env.state)
        assert set(masks) == {group for group, spec in env.task.groups.items() if spec.masked}
        for mask in masks.values():
            assert mask.any(-1).all()


@each_variant
def test_classical_policies_play_by_the_rules(variant):
    torch.manual_seed(4)
    env = variant.env(3)
    for label, policy in env.task.baselines().items():
        data = env.reset()
        for _ in range(3):
            data = policy(data)
            for group, spec in env.task.groups.items():
                action = data[group, "action"]
                if isinstance(spec.action, Box):
                    low, high = torch.tensor(spec.action.low), torch.tensor(spec.action.high)
                    inside = (action >= low - 1e-5) & (action <= high + 1e-5)
                    assert inside.all(), (label, group)
                    continue
                assert ((action >= 0) & (action < spec.action.n)).all(), (label, group)
                if spec.masked:
                    chosen = data[group, "action_mask"].gather(-1, action.unsqueeze(-1))
                    assert chosen.all(), (label, group)
            data = env.step(data)["next"]
            data = env.reset(data.set("_reset", data["done"].clone()))


@each_task
def test_it_is_drawn(name):
    env = plain_env(name, 2)
    env.reset()
    if name in WITHOUT_PICTURE:
        with pytest.raises(NotImplementedError, match=f"task '{name}' has no renderer"):
            env.render()
        return
    picture = env.render(index=1)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[-1] == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    for lines in env.task.episode_series(env.state).values():
        assert lines.shape[0] == 2 and lines.ndim == 2


@each_task
def test_a_score_is_a_number_per_episode(name):
    task = plain_env(name).task
    names = (*task.info_keys, "return", "steps")
    totals = {key: torch.full((3,), 2.0) for key in names}
    score = task.score(totals)
    assert score.shape == (3,) and torch.isfinite(score).all()
    assert task.unit


@each_task
def test_every_level_starts(name):
    for level in task_class(name).levels:
        env = VectorEnv(make_task(name, level=level), 2)
        assert isinstance(env.reset(), TensorDict)
