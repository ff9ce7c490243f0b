"""Tasks live on one device: constants, states and noise meet no other there, and no step waits for the host.

On a GPU itself: `test_gpu.py`, `test_contract.py`. Here, without one, see `tests/helpers/other_device.py`.
"""

import pytest
import torch
from other_device import OTHER, strict, there
from task_variants import ALL
from tensordict import TensorDict
from toy_tasks import Hunt, HuntParams

from marl_td.tasks import VectorEnv, make_task
from marl_td.tasks.base import Box
from marl_td.tasks.shield import ShieldedTask, shielded
from marl_td.tasks.vector_env import observed, outcome

each_variant = pytest.mark.parametrize("variant", ALL, ids=str)
BUILT_BY_NUMBERS = ("retail", "banking", "predator_prey", "mapf", "warehouse", "energy_grid")
"""Their classical policies are made from numbers of the task, which the other device has none of."""
N_ENVS = 3


def elsewhere(task):
    """The same task on the other device, and all random numbers of a start and a step."""
    rng = torch.Generator().manual_seed(0)
    noise = there((task.draw_reset(N_ENVS, rng), task.draw_step(N_ENVS, rng)))
    inner = task.task if isinstance(task, ShieldedTask) else task
    moved = type(inner)(inner.params, continuous=inner.continuous, device=OTHER)
    return shielded(moved), *noise


def some_actions(groups):
    """An action of every agent of ``groups``."""
    actions = {}
    for group, spec in groups.items():
        shape = (N_ENVS, spec.n_agents)
        if isinstance(spec.action, Box):
            actions[group] = torch.zeros((*shape, len(spec.action.low)), device=OTHER)
        else:
            actions[group] = torch.zeros(shape, dtype=torch.long, device=OTHER)
    return actions


@each_variant
def test_a_step_stays_on_the_task_s_device(variant):
    task, start, noise = elsewhere(variant.env(N_ENVS).task)
    with strict():
        state = task.reset(N_ENVS, start)
        step = task.step(state, some_actions(task.groups), noise)
        clock = torch.ones(N_ENVS, dtype=torch.long, device=OTHER)
        found = observed(task, step.state, step.info) | outcome(task, step, clock)
    assert {value.device for value in found.values()} == {OTHER}
    assert {value.device for value in (*state, *step.state)} == {OTHER}


@pytest.mark.parametrize("variant", [v for v in ALL if not v.continuous], ids=str)
def test_so_do_the_specs_of_its_environment(variant, monkeypatch):
    task, *_ = elsewhere(variant.env(N_ENVS).task)
    generator = torch.Generator()  # there are none of the other device
    monkeypatch.setattr("marl_td.tasks.vector_env.torch.Generator", lambda device: generator)
    env = VectorEnv(task, N_ENVS)
    assert env.device == OTHER
    for specs in (env.full_observation_spec, env.full_action_spec, env.full_reward_spec):
        assert {spec.device for spec in specs.values(True, True)} == {OTHER}
    assert {spec.device for spec in env.full_done_spec.values(True, True)} == {OTHER}


@pytest.mark.parametrize("variant", [v for v in ALL if v.task not in BUILT_BY_NUMBERS], ids=str)
def test_classical_policies_stay_on_the_task_s_device(variant):
    task, start, noise = elsewhere(variant.env(N_ENVS).task)
    for name, policy in task.baselines().items():
        if name in task.slow_baselines:  # plans on the host, and says so
            continue
        with strict():
            step = task.step(task.reset(N_ENVS, start), some_actions(task.groups), noise)
            data = policy(TensorDict(observed(task, step.state, step.info), [N_ENVS], OTHER))
        for group in task.groups:
            assert data[group, "action"].device == OTHER, name


class Stray(Hunt):
    """A task with a constant on the CPU."""

    def observe(self, state):
        return {group: value + torch.ones(1) for group, value in super().observe(state).items()}


class Waiting(Hunt):
    """A task that asks on the host whether anything happened."""

    def observe(self, state):
        seen = super().observe(state)
        return {group: value * 2 if (value > 0).any() else value for group, value in seen.items()}


@pytest.mark.parametrize(("kind", "message"), [(Stray, "two devices"), (Waiting, "dense")])
def test_a_constant_elsewhere_and_a_question_on_the_host_are_noticed(kind, message):
    task = kind(HuntParams(), device=OTHER)
    start = there(task.draw_reset(N_ENVS, torch.Generator()))
    with strict(), pytest.raises(RuntimeError, match=message):
        task.observe(task.reset(N_ENVS, start))


def test_a_shield_stays_on_the_task_s_device():
    joint = {"scope": "joint", "weights": {"agents": [1.0, 0.0]}, "limit": 1.5}
    own = {"scope": "own", "weights": {"agents": [1.0, 1.0]}, "limit": 0.6}
    safety = {"linear": [joint, own], "penalty": 1.0}
    task, start, noise = elsewhere(make_task("retail", safety=safety))
    with strict():
        state = task.reset(N_ENVS, start)
        step = task.step(state, some_actions(task.groups), noise)
        found = observed(task, step.state, step.info)
    assert {value.device for value in found.values()} == {OTHER}
    assert any(name.startswith("shield") for name in task.info_keys)
