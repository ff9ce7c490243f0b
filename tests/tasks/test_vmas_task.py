"""VMAS scenarios as pure functions: VMAS's own numbers, and what cannot be one."""

from __future__ import annotations

import warnings

import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, TransformedEnv

pytest.importorskip("vmas", reason="needs the extra `vmas`")

from vmas.scenarios.mpe.simple_spread import Scenario as SimpleSpread

from marl_td.collect.collector import CompiledCollector, make_collector
from marl_td.models.compiling import CompileWarning
from marl_td.tasks.adapters import from_vmas
from marl_td.tasks.adapters.tracing import Untraceable


class Small(SimpleSpread):
    """Two agents only: it is written down fast."""

    def make_world(self, batch_dim, device, **kwargs):
        return super().make_world(batch_dim, device, n_agents=2, **kwargs)


class Counting(Small):
    steps = 0

    def post_step(self):
        self.steps += 1


class Doubting(Small):
    def reward(self, agent):
        near = super().reward(agent)
        return near if near.mean() > 0 else -near


class Remembering(Small):
    """It keeps its steps where nobody looks for numbers."""

    def make_world(self, batch_dim, device, **kwargs):
        self.steps = ["start"]
        return super().make_world(batch_dim, device, **kwargs)

    def post_step(self):
        self.steps.append("step")

    def reward(self, agent):
        return super().reward(agent) + len(self.steps)


class Noisy(Small):
    def observation(self, agent):
        seen = super().observation(agent)
        return seen + torch.rand_like(seen)


def beside(name, n_envs=3, **options):
    """A task, a state of it, and VMAS in the same state."""
    task = from_vmas(name, n_envs=n_envs, max_steps=20, seed=2, **options).as_batched_task().task
    state = task.reset(n_envs, task.draw_reset(n_envs, torch.Generator()))
    return task, state, task._draws[n_envs].env


def random_actions(task, n_envs):
    """Actions of all groups, and as VMAS takes them."""
    action = {}
    for group, spec in task.groups.items():
        if task.continuous:
            low, high = torch.tensor(spec.action.low), torch.tensor(spec.action.high)
            share = torch.rand(n_envs, spec.n_agents, len(high))
            action[group] = low + share * (high - low)
        else:
            action[group] = torch.randint(spec.action.n, (n_envs, spec.n_agents))
    seats = {seat: action[g][:, i] for g, s in task._seats.items() for i, seat in enumerate(s)}
    return action, [seats[seat].clone() for seat in range(len(seats))]


# ------------------------------------------------------------------------------ the numbers of VMAS
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simple_tag", {"num_good_agents": 1, "num_adversaries": 1, "num_landmarks": 1}),
        ("transport", {"n_agents": 2}),
        ("wheel", {"n_agents": 2}),
        ("balance", {"n_agents": 2, "continuous_actions": False}),
    ],
)
def test_a_step_is_that_of_vmas(name, options):
    torch.manual_seed(0)
    task, state, env = beside(name, **options)
    ended, moved, n_steps = 0, 0, 150 if name == "balance" else 30
    for _ in range(n_steps):
        action, by_agent = random_actions(task, 3)
        before = state
        step = task.step(state, action, {})
        state = step.state
        seen, rewards, done, infos = env.step(by_agent)
        for group, seats in task._seats.items():
            close = {"rtol": 1e-4, "atol": 1e-4}
            expected = torch.stack([seen[seat] for seat in seats], 1)
            torch.testing.assert_close(task.observe(state)[group], expected, **close)
            # wheel gives each agent's rewards as a column, the others as a vector
            expected = torch.stack([rewards[seat].reshape(3) for seat in seats], 1)
            torch.testing.assert_close(step.reward[group], expected, **close)
            for info, values in task.agent_info(state).items():
                expected = torch.stack([infos[seat][info].float() for seat in seats], 1)
                torch.testing.assert_close(values[group].reshape(expected.shape), expected, **close)
        assert torch.equal(step.terminated, done)
        ended += int(done.sum())
        moved += any(not torch.equal(*pair) for pair in zip(before, state, strict=True))
    assert moved > 20 and (ended > 0) == (name == "balance")


def test_a_penalty_does_not_depend_on_other_copies():
    """VMAS forgets a pair's penalty unless it overlaps in some copy; in the graph it never does."""
    task, state, env = beside("navigation", n_envs=2, n_agents=2, collisions=True)
    fields = dict(zip(task._step.paths, task._fields, strict=True))
    pos = [fields[p] for p in task._step.paths if p[-1] == "_pos" and "_agents" in p]
    still = {"agents": torch.zeros(2, 2, 2)}

    def penalties(second_copy):
        places = torch.tensor([[[0.0, 0.0], [0.202, 0.0]], [[0.0, 0.0], [second_copy, 0.0]]])
        near = state._replace(**{pos[0]: places[:, 0], pos[1]: places[:, 1]})
        ours = task.agent_info(task.step(near, still, {}).state)["agent_collisions"]
        for agent, place in zip(env.agents, places.unbind(1), strict=True):
            agent.state.pos, agent.state.vel = place.clone(), torch.zeros(2, 2)
        theirs = env.step([torch.zeros(2, 2)] * 2)[3]
        return ours["agents"][0, 0].item(), theirs[0]["agent_collisions"][0].item()

    assert penalties(1.0) == (-1.0, 0.0)
    assert penalties(0.0) == (-1.0, -1.0)


def test_start_states_are_those_vmas_draws():
    env = from_vmas("navigation", n_envs=4, max_steps=20, n_agents=3)
    task = env.as_batched_task().task
    noise = task.draw_reset(500, torch.Generator().manual_seed(1))
    state = task.reset(500, noise)
    observation = task.observe(state)["agents"]
    assert observation.shape == (500, 3, env.reset()["agents", "observation"].shape[-1])
    places = observation[..., :2]
    gaps = torch.cdist(places, places) + 10 * torch.eye(3)
    assert gaps.min() >= task._draws[500].env.scenario.min_distance_between_entities
    assert places.unique(dim=0).shape == places.shape  # all different
    assert (observation[..., 2:4] == 0).all()  # at rest
    again = task.draw_reset(500, torch.Generator().manual_seed(1))
    assert all(torch.equal(noise[name], again[name]) for name in noise)


def test_copies_do_not_depend_on_each_other():
    torch.manual_seed(1)
    task, state, _ = beside(Small(), n_envs=3)
    action, _ = random_actions(task, 3)
    other = type(state)(*(torch.cat([value[:1], value[1:].flip(0)]) for value in state))
    one, two = (task.step(s, action, {}) for s in (state, other))
    assert torch.equal(one.reward["agents"][0], two.reward["agents"][0])
    assert not torch.equal(one.reward["agents"][1], two.reward["agents"][1])


def test_random_numbers_of_a_step_are_fresh():
    task, state, _ = beside(Noisy())
    action, _ = random_actions(task, 3)
    seen = [task.observe(task.step(state, action, {}).state)["agents"] for _ in range(2)]
    assert not torch.equal(*seen)
    assert (seen[0] - seen[1]).abs().max() < 1


def test_the_process_s_generators_are_left_alone():
    env = from_vmas(Noisy(), n_envs=2, max_steps=5)
    before, stream = torch.get_rng_state(), torch.Generator()
    task = env.as_batched_task().task
    task.draw_reset(2, stream)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------- what cannot be
@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("discovery", r"find_random_pos_for_entity \(utils.py, line \d+\) decides by the value"),
        ("simple_speaker_listener", r"a reset changes '_world._agents.0.goal_b', which all copies"),
        (Counting(), "a step changes 'steps', which all copies share"),
        (Doubting(), r"reward \(test_vmas_task.py, line \d+\) decides by the value of a tensor"),
    ],
)
def test_a_scenario_that_is_no_pure_function_is_named(scenario, message):
    with pytest.raises(Untraceable, match=message):
        from_vmas(scenario, n_envs=2, max_steps=5).as_batched_task()


def test_a_graph_that_does_something_else_is_refused():
    with pytest.raises(Untraceable, match=r"its graph differs from the scenario by \S+ in step 1"):
        from_vmas(Remembering(), n_envs=2, max_steps=5).as_batched_task()


# ------------------------------------------------------------------------------------- the collector
def make_env():
    env = from_vmas(Small(), n_envs=3, max_steps=4, seed=0)
    return TransformedEnv(env, RewardSum(reset_keys=["_reset"]))


def make_policy():
    linear = torch.nn.Sequential(torch.nn.Linear(10, 2), torch.nn.Tanh())
    return TensorDictModule(linear, [("agents", "observation")], [("agents", "action")])


def test_the_collector_yields_what_torchrl_s_yields():
    policy = make_policy()
    ours = CompiledCollector(make_env(), policy, frames_per_batch=30, backend="eager")
    theirs = Collector(make_env, policy, frames_per_batch=30, total_frames=-1)
    one, two = next(iter(ours)), next(iter(theirs))
    assert set(one.keys(True, True)) == set(two.keys(True, True))
    for key, value in two.items(True, True):
        assert one[key].shape == value.shape and one[key].dtype == value.dtype, key
    for done in ("done", "truncated", "terminated"):
        assert torch.equal(one["next", done], two["next", done])
    assert one["next", "truncated"].sum() == 6
    ours.set_seed(5)
    first = next(iter(ours))
    ours.set_seed(5)
    torch.testing.assert_close(next(iter(ours))["agents"], first["agents"])


def test_no_episode_starts_as_another_did():
    collector = CompiledCollector(make_env(), make_policy(), frames_per_batch=30, backend="eager")
    starts = []
    for _, batch in zip(range(8), collector, strict=False):
        seen, done = batch["agents", "observation"][:, 1:], batch["next", "done"][:, :-1, 0]
        starts.append(seen[done])
    starts = torch.cat(starts)
    assert len(starts.unique(dim=0)) == len(starts) > 40


def test_a_collector_that_was_saved_goes_on():
    """The start states that were drawn and not yet used are saved, too."""
    policy = make_policy()
    one, two = (
        CompiledCollector(make_env(), policy, frames_per_batch=15, backend="eager")
        for _ in range(2)
    )
    next(iter(one))
    two.restore(one.snapshot())
    for _ in range(2):
        ours, theirs = next(iter(one)), next(iter(two))
        assert ours["next", "done"].any()
        for key, value in ours.items(True, True):
            assert torch.equal(theirs[key], value), key


def test_a_scenario_that_is_no_pure_function_is_collected_uncompiled():
    build = lambda: from_vmas(Counting(), n_envs=2, max_steps=4)  # noqa: E731
    with pytest.warns(CompileWarning, match="rollout is not compiled: a step changes 'steps'"):
        collector = make_collector(
            build, make_policy(), device="cpu", frames_per_batch=4, total_frames=4
        )
    assert isinstance(collector, Collector)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(collector)).shape == (2, 2)
