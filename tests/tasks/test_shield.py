"""The safety shield: no policy breaks it, one that obeys does not feel it, and what it did is counted."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from short_runs import short_experiment
from tensordict import TensorDictBase
from torchrl.envs.utils import check_env_specs
from toy_tasks import Hunt, HuntParams

from marl_td.collect.collector import CompiledCollector
from marl_td.collect.last_action import LastAction
from marl_td.models.compiling import CompileWarning
from marl_td.tasks import TASKS, VectorEnv, make_env, make_task, task_class
from marl_td.tasks.base import Box
from marl_td.tasks.shield import Linear, Shield, ShieldedTask, shielded_env
from marl_td.training.metrics import read_metrics

ORDERS = {"scope": "joint", "weights": {"agents": [1.0, 0.0]}, "limit": 1.5}
"""Retail: the order-up-to levels of all five sites add up to 1.5 at most."""
OWN = {"scope": "own", "weights": {"agents": [1.0, 1.0]}, "limit": 0.6}
RAMP = {"scope": "joint", "weights": {"agents": [1.0]}, "limit": 0.5}


class Watched(ShieldedTask):
    """Keeps what reaches the task itself."""

    def __init__(self, task, shield):
        super().__init__(task, shield)
        self.taken = []
        inner = task.step

        def step(state, action, noise):
            self.taken.append({name: value.clone() for name, value in action.items()})
            return inner(state, action, noise)

        task.step = step

    def all(self, group="agents"):
        return torch.stack([action[group] for action in self.taken])


def watched_env(name, shield, n_envs=8, **options):
    return VectorEnv(Watched(make_task(name, **options), Shield.of(shield)), n_envs)


def greedy(group, value):
    """A policy that asks for one and the same action."""

    def act(tensordict: TensorDictBase):
        agents = tensordict[group, "observation"].shape[:-1]
        action = torch.tensor(value).expand(*agents, len(value)).clone()
        return tensordict.set((group, "action"), action)

    return act


# ------------------------------------------------------------------ continuous actions
@pytest.mark.parametrize("constraints", [[ORDERS], [ORDERS, OWN]], ids=["joint", "joint and own"])
def test_no_policy_of_retail_orders_more_than_the_limit(constraints):
    torch.manual_seed(0)
    env = watched_env("retail", {"linear": constraints})
    for policy in (None, greedy("agents", [1.0, 1.0])):
        env.task.taken.clear()
        batch = env.rollout(30, policy)
        taken = env.task.all().double()
        assert (taken[..., 0].sum(-1) <= 1.5).all()
        if len(constraints) > 1:
            assert (taken.sum(-1) <= 0.6).all()
        wanted = batch["agents", "action"].transpose(0, 1)
        torch.testing.assert_close(
            batch["next", "info", "shield_size"][..., 0].T.double(),
            (taken - wanted).norm(dim=-1).sum(-1),
        )


def test_generators_of_the_energy_grid_together_raise_their_output_no_faster_than_allowed():
    torch.manual_seed(1)
    env = watched_env("energy_grid", {"linear": [RAMP]}, level="easy")
    batch = env.rollout(20, greedy("agents", [1.0]))
    taken = env.task.all()
    assert (taken.double().sum((-1, -2)) <= 0.5).all()
    torch.testing.assert_close(taken, torch.full_like(taken, 0.1), atol=1e-4, rtol=0)  # 0.5 / 5
    assert (batch["next", "info", "shield_changed"] == 5).all()


def test_an_obedient_policy_does_not_feel_the_shield():
    free = make_env("retail", n_envs=4, seed=3)
    held = make_env("retail", n_envs=4, seed=3, safety={"linear": [ORDERS, OWN], "penalty": 1.0})
    policy = greedy("agents", [0.3, 0.1])  # 5 x 0.3 = 1.5: on the limit itself
    free, held = free.rollout(20, policy), held.rollout(20, policy)
    for key in (("next", "agents", "reward"), ("next", "agents", "observation"), "state"):
        assert torch.equal(free[key], held[key])
    assert (held["next", "info", "shield_changed"] == 0).all()
    assert (held["next", "info", "shield_size"] == 0).all()


def test_the_penalty_is_each_agents_own_correction():
    torch.manual_seed(4)
    own = {"linear": [{**OWN, "weights": {"agents": [[1, 1]] + [[0, 0]] * 4}}]}
    plain, fined = (
        make_env("retail", n_envs=2, seed=5, safety={**own, "penalty": penalty})
        for penalty in (0.0, 2.0)
    )
    policy = greedy("agents", [0.8, 0.4])  # 0.6 too much along (1, 1): 0.3 each, 0.3 * sqrt(2) long
    plain, fined = plain.rollout(3, policy), fined.rollout(3, policy)
    cost = (plain["next", "agents", "reward"] - fined["next", "agents", "reward"]).squeeze(-1)
    expected = torch.tensor([2 * 0.3 * 2**0.5, 0.0, 0.0, 0.0, 0.0]).expand_as(cost)
    torch.testing.assert_close(cost, expected, atol=1e-4, rtol=0)
    assert (fined["next", "info", "shield_changed"] == 1).all()


def test_weights_are_per_agent_where_given_so():
    env = watched_env(
        "retail", {"linear": [{**ORDERS, "weights": {"agents": [[2, 0]] + [[0, 0]] * 4}}]}
    )
    env.rollout(2, greedy("agents", [1.0, 0.0]))
    taken = env.task.all()[..., 0]
    torch.testing.assert_close(
        taken[..., 0], torch.full_like(taken[..., 0], 0.75), atol=1e-4, rtol=0
    )
    assert (taken[..., 1:] == 1).all()


def test_an_override_is_followed_by_the_constraints():
    def stop(seen, action):
        assert seen["agents"].shape[:2] == action["agents"].shape[:2]
        return {"agents": torch.zeros_like(action["agents"]) + 0.5}

    env = VectorEnv(Watched(make_task("retail"), Shield((Linear(**ORDERS),), override=stop)), 3)
    env.rollout(2)
    taken = env.task.all()
    torch.testing.assert_close(
        taken[..., 0], torch.full_like(taken[..., 0], 0.3), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        taken[..., 1], torch.full_like(taken[..., 1], 0.5), atol=1e-4, rtol=0
    )


# ------------------------------------------------------------------ discrete actions
def test_forbidden_actions_are_masked_and_replaced():
    torch.manual_seed(6)
    task = Watched(Hunt(HuntParams(), continuous=False), Shield(forbidden={"hunter": [1, 2]}))
    env = VectorEnv(task, 16)
    check_env_specs(env)
    task.taken.clear()
    data = env.reset()
    assert data["hunter", "action_mask"].tolist() == [[[True, False, False]] * 3] * 16
    data["hunter", "action"] = torch.tensor([0, 1, 2]).expand(16, 3).clone()
    data["prey", "action"] = torch.zeros(16, 1, 2)
    stepped = env.step(data)
    assert (task.all("hunter") == 0).all()
    assert (stepped["hunter", "action"] == torch.tensor([0, 1, 2])).all()  # what was wanted stays
    assert (stepped["next", "info", "shield_changed"] == 2).all()
    assert (stepped["next", "info", "shield_size"] == 2).all()


def test_a_function_narrows_the_mask_and_the_fallback_is_taken_where_nothing_is_left():
    def calm(seen):
        ok = torch.zeros((*seen["hunter"].shape[:-1], 3), dtype=torch.bool)
        ok[:, 0, 1] = True
        return {"hunter": ok}

    shield = Shield(allowed=calm, fallback={"hunter": 2})
    env = VectorEnv(ShieldedTask(Hunt(HuntParams(), continuous=False), shield), 2)
    mask = env.reset()["hunter", "action_mask"]
    assert mask[:, 0].tolist() == [[False, True, False]] * 2
    assert mask[:, 1:].tolist() == [[[False, False, True]] * 2] * 2


def test_where_the_fallback_is_not_available_another_allowed_action_is_taken():
    shield = Shield(forbidden={"hunter": [1]}, fallback={"hunter": 2})
    task = Watched(Hunt(HuntParams(), continuous=False), shield)
    env = VectorEnv(task, 2)
    data = env.reset()
    data["hunter", "action"] = torch.full(
        (2, 3), 2
    )  # they strike, and must not strike again at once
    data["prey", "action"] = torch.zeros(2, 1, 2)
    data = env.step(data)["next"]
    assert not data["hunter", "action_mask"][..., 1:].any()
    data["hunter", "action"] = torch.ones(2, 3, dtype=torch.long)
    data["prey", "action"] = torch.zeros(2, 1, 2)
    env.step(data)
    assert (task.all("hunter")[-1] == 0).all()


def everywhere(task):
    """A shield that every task can keep: half of the range, or all discrete actions but the last."""
    linear, forbidden = [], {}
    for name, spec in task.groups.items():
        if isinstance(spec.action, Box):
            low, high = sum(spec.action.low), sum(spec.action.high)
            weights = {name: [1.0] * len(spec.action.low)}
            linear.append(Linear(weights, (low + high) / 2 + 0.1, "own"))
        elif spec.action.n > 1:
            forbidden[name] = [spec.action.n - 1]
    return Shield(linear, forbidden)


KINDS = [
    (name, continuous)
    for name in TASKS
    for continuous in (True, False)
    if getattr(task_class(name), f"has_{'continuous' if continuous else 'discrete'}_actions")
]


@pytest.mark.parametrize(("name", "continuous"), KINDS)
def test_every_task_has_a_shield(name, continuous):
    torch.manual_seed(9)
    task = make_task(name, continuous=continuous)
    shield = everywhere(task)
    env = VectorEnv(Watched(task, shield), 2)
    data = env.reset()
    for _ in range(3):
        data = env.step(env.rand_action(data))["next"]
    for group, spec in task.groups.items():
        taken = env.task.all(group)
        if isinstance(spec.action, Box):
            limit = next(c.limit for c in shield.linear if group in c.weights)
            assert (taken.double().sum(-1) <= limit).all()
        elif spec.action.n > 1:
            assert (taken < spec.action.n - 1).all()


# ------------------------------------------------------------------ training
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("constraints", [[ORDERS], [ORDERS, OWN]], ids=["joint", "joint and own"])
def test_shielded_rollouts_are_compiled_and_equal_those_step_by_step(constraints, backend):
    torch._dynamo.reset()
    policy = greedy("agents", [0.9, 0.7])
    one, other = (make_env("retail", 3, seed=7, safety={"linear": constraints}) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompileWarning)
        collector = CompiledCollector(one, policy, frames_per_batch=12, backend=backend)
        batch = next(iter(collector))
    start = other.reset()
    expected = other.rollout(4, policy, auto_reset=False, tensordict=start)
    for key in (("next", "info", "shield_size"), ("next", "agents", "observation")):
        assert batch[key].shape == expected[key].shape
    size = batch["next", "info", "shield_size"]
    torch.testing.assert_close(size, expected["next", "info", "shield_size"], atol=1e-4, rtol=0)


def test_a_training_behind_a_shield_from_settings_keeps_it_and_logs_it(tmp_path):
    limit = "{linear:[{weights:{agents:[1,0]},limit:1.5}],penalty:0.1}"
    experiment = short_experiment(
        tmp_path / "run",
        "algorithm=marl_td/iddpg",
        "task=marl_td/retail",
        "task.max_steps=5",
        f"task.safety={limit}",
        "experiment.compile=off",
    )
    experiment.run()
    for row in read_metrics(tmp_path / "run" / "metrics.csv"):
        for key in ("collection/info/shield_changed", "eval/shield_changed_mean"):
            assert 0 <= float(row[key]) <= 5
        assert float(row["eval/shield_size_mean"]) >= 0
    env = VectorEnv(Watched(make_task("retail"), Shield.of({"linear": [ORDERS]})), 4)
    with torch.no_grad():
        env.rollout(10, experiment.policy, break_when_any_done=False)
    assert (env.task.all()[..., 0].double().sum(-1) <= 1.5).all()


def test_an_adapted_environment_is_shielded_by_the_same_settings():
    pytest.importorskip("vmas")
    torch.manual_seed(8)
    own = {"linear": [{"scope": "own", "weights": {"agents": [1.0, 0.0]}, "limit": 0.25}]}
    env = make_vmas(safety={**own, "penalty": 3.0})
    check_env_specs(env)
    batch = env.rollout(5)
    size = (batch["agents", "action"][..., 0] - 0.25).clamp_min(0).sum(-1, keepdim=True)
    torch.testing.assert_close(batch["next", "info", "shield_size"], size, atol=1e-4, rtol=0)
    assert (batch["agents", "action"][..., 0] > 0.25).any()  # the data keep what was wanted
    free = make_vmas(safety=None).rollout(5)
    assert ("next", "info", "shield_size") not in free.keys(True)


def make_vmas(safety):
    from marl_td.tasks.adapters.by_name import adapted_env

    return adapted_env("vmas", 4, scenario="balance", safety=safety)


def test_masks_of_an_adapted_environment_are_narrowed():
    from toy_parallel import Toy

    from marl_td.tasks.adapters import from_pettingzoo

    env = from_pettingzoo(Toy, n_envs=2)
    group = "cat"
    n_actions = int(env.full_action_spec[group, "action"].space.n)
    held = shielded_env(env, {"forbidden": {group: [0]}, "fallback": {group: n_actions - 1}})
    held.append_transform(LastAction({group: False}))
    check_env_specs(held)
    data = held.reset()
    assert not data[group, "action_mask"][..., 0].any()
    data[group, "action"] = torch.zeros_like(held.full_action_spec[group, "action"].zero())
    for other in set(env.group_map) - {group}:
        data[other, "action"] = held.full_action_spec[other, "action"].zero()
    after = held.step(data)["next"]
    assert (after["info", "shield_changed"] == len(env.group_map[group])).all()
    assert (after[group, "last_action"] == 0).all()  # other transforms see what was wanted


# ------------------------------------------------------------------ what is refused, what is said
@pytest.mark.parametrize(
    ("shield", "message"),
    [
        ("all", r"safety must be a mapping such as \{linear: \[...\]\}; got 'all'"),
        ({"liner": []}, "safety has no setting 'liner'; it has linear, forbidden"),
        ({"linear": [{"limit": 1}]}, "every entry of safety.linear needs weights and a limit"),
        ({"linear": [{**ORDERS, "scope": "team"}]}, "must be one of own, joint; got 'team'"),
        ({"linear": [{**ORDERS, "limit": "2"}]}, "the limit .* must be a number; got '2'"),
        ({"linear": [{**ORDERS, "weights": {"agents": [1]}}]}, r"must be 2 numbers .*; got \[1\]"),
        (
            {"linear": [{**ORDERS, "weights": {"sites": [1, 0]}}]},
            "names 'sites', which is no group",
        ),
        ({"linear": [{**ORDERS, "limit": -1}]}, "no action lies inside all linear constraints"),
        ({"forbidden": {"agents": [1]}}, r"safety.forbidden names 'agents', .*\(there are none\)"),
        ({"penalty": -1}, "safety.penalty must be a number of at least 0; got -1"),
        ({"override": "os:system"}, "no code is read from settings or files, got 'os:system'"),
    ],
)
def test_a_shield_that_does_not_fit_is_refused_with_a_sentence(shield, message):
    with pytest.raises(ValueError, match=message):
        make_task("retail", safety=shield)


@pytest.mark.parametrize(
    ("shield", "message"),
    [
        ({"forbidden": {"agents": [99]}}, "whole numbers from 0 to 32; got"),
        ({"forbidden": {"agents": [0]}}, "that is not forbidden; got 0"),
        ({"fallback": {"agents": 40}}, "an action from 0 to 32 that is not forbidden; got 40"),
    ],
)
def test_discrete_actions_that_do_not_exist_are_refused(shield, message):
    with pytest.raises(ValueError, match=message):
        make_task("retail", continuous=False, safety=shield)


def test_the_optimum_becomes_a_bound():
    plain = make_task("matrix_game", continuous=False)
    held = make_task("matrix_game", continuous=False, safety={"forbidden": {"agents": [1]}})
    known = plain.optimum()
    assert known.kind == "exact"
    assert held.optimum() == dataclasses.replace(
        known, kind="upper", how=f"{known.how}, without the shield"
    )
    assert np.isclose(held.optimum().value, known.value)
