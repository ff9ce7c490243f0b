"""The compiled collector yields what TorchRL's yields, for the same random numbers."""

from __future__ import annotations

import warnings

import pytest
import torch
from hunting import KEYS, N_ENVS, N_STEPS, batches, make_policy, make_transforms
from tensordict.nn import (
    NormalParamExtractor,
    ProbabilisticTensorDictModule,
    TensorDictModule,
    TensorDictSequential,
)
from torch import nn
from torch.utils._pytree import tree_leaves
from torchrl.collectors import Collector
from torchrl.envs import (
    RewardScaling,
    SerialEnv,
    TransformedEnv,
)
from torchrl.envs.utils import ExplorationType
from torchrl.modules import IndependentNormal
from toy_tasks import Hunt, HuntParams

from marl_td.collect.bookkeeping import Bookkeeping
from marl_td.collect.chunk import Chunk, Layout, Rows, packed
from marl_td.collect.collector import CompiledCollector, make_collector
from marl_td.models.compiling import Compiled, CompileWarning, NotCompilable, is_worthwhile
from marl_td.models.heads import FiniteMaskedCategorical
from marl_td.tasks import make_env as make_task_env
from marl_td.tasks.vector_env import VectorEnv


class Recording(Hunt):
    """Keeps the noise it draws."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps, self.resets = [], []

    def draw_step(self, n_envs, generator):
        self.steps.append(super().draw_step(n_envs, generator))
        return self.steps[-1]

    def draw_reset(self, n_envs, generator):
        self.resets.append(super().draw_reset(n_envs, generator))
        return self.resets[-1]


class Replaying(Hunt):
    """Takes recorded noise: row t for step t, and for an environment's i-th reset in a batch start i."""

    def __init__(self, recording, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.first, *self.starts = recording.resets
        parts = recording.steps
        self.rows = {
            name: torch.cat([part[name] for part in parts]).split(N_ENVS) for name in parts[0]
        }
        self.clock = 0
        self.ended = torch.zeros(N_STEPS * len(self.starts), N_ENVS, dtype=torch.bool)

    def draw_step(self, n_envs, generator):
        self.clock += 1
        return {name: rows[self.clock - 1] for name, rows in self.rows.items()}

    def draw_reset(self, n_envs, generator):
        if self.clock == 0:
            return self.first
        batch = (self.clock - 1) // N_STEPS
        before = self.ended[batch * N_STEPS : self.clock - 1].sum(0)
        place = before * N_ENVS + torch.arange(N_ENVS)
        return {name: value[place] for name, value in self.starts[batch].items()}


class Watched(VectorEnv):
    """Tells a replaying task which environments are reset."""

    def _reset(self, tensordict=None, **kwargs):
        if self.task.clock:
            self.task.ended[self.task.clock - 1] = tensordict["_reset"].squeeze(-1)
        return super()._reset(tensordict, **kwargs)


def make_env(task, *more):
    """The task's environment under the transforms."""
    kind = Watched if isinstance(task, Replaying) else VectorEnv
    return TransformedEnv(kind(task, N_ENVS, seed=4), make_transforms(*more))


def assert_same(ours, theirs):
    """Same keys, shapes, types, batch sizes and (to float noise) values."""
    assert set(ours.keys(True, True)) == set(theirs.keys(True, True))
    for key in [None, "next", "hunter", "prey", ("next", "hunter"), "collector"]:
        one, two = (data if key is None else data.get(key) for data in (ours, theirs))
        assert one.batch_size == two.batch_size, key
    for key, value in theirs.items(True, True):
        torch.testing.assert_close(ours.get(key), value, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def recorded():
    """The task that recorded, and three of our batches (traced, run eagerly: the same random numbers)."""
    torch.manual_seed(0)
    policy = make_policy()
    task = Recording(HuntParams(max_steps=8, prey_life=4.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompileWarning)
        collector = CompiledCollector(
            make_env(task),
            policy,
            frames_per_batch=N_ENVS * N_STEPS,
            backend="eager",
        )
        return task, policy, collector, batches(collector, 3)


def test_batches_equal_those_of_torchrl(recorded):
    task, policy, _, ours = recorded
    env = make_env(Replaying(task, HuntParams(max_steps=8, prey_life=4.0)))
    theirs = batches(
        Collector(lambda: env, policy, frames_per_batch=N_ENVS * N_STEPS, total_frames=-1), 3
    )
    seen = torch.cat(theirs, dim=1)
    assert seen["next", "terminated"].any()
    assert seen["next", "truncated"].any()
    assert not seen["hunter", "mask"].all()
    for one, two in zip(ours, theirs, strict=True):
        assert_same(one, two)


def test_one_graph_serves_all_batches(recorded):
    _, _, collector, _ = recorded
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        next(iter(collector))
    assert len(collector._compiled.graphs) == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_a_single_environment_has_one_graph_too():
    env = TransformedEnv(VectorEnv(Hunt(HuntParams()), 1), make_transforms())
    collector = CompiledCollector(env, make_policy(), frames_per_batch=5, backend="eager")
    batches(collector, 3)
    assert len(collector._compiled.graphs) == 1


def test_the_environment_keeps_the_state_the_batch_ended_in(recorded):
    _, _, collector, _ = recorded
    batch = next(iter(collector))
    ended = batch["next", "done"][:, -1, 0]
    last = batch["next", "prey", "observation"][:, -1]
    now = collector.base.task.observe(collector.base.state)["prey"]
    torch.testing.assert_close(now[~ended], last[~ended])
    assert (collector.base.step_count[ended] == 0).all()


def test_trajectory_numbers_are_never_used_twice(recorded):
    _, _, _, ours = recorded
    ids = torch.cat([batch["collector", "traj_ids"] for batch in ours], dim=1)
    done = torch.cat([batch["next", "done"] for batch in ours], dim=1).squeeze(-1)
    for env in range(N_ENVS):
        assert torch.equal(ids[env, 1:] != ids[env, :-1], done[env, :-1])
    used = [set(row.tolist()) for row in ids]
    assert len(set().union(*used)) == sum(len(row) for row in used)


def test_random_frames_come_first_and_respect_masks_and_bounds():
    task = Hunt(HuntParams())
    collector = CompiledCollector(
        make_env(task),
        make_policy(),
        frames_per_batch=N_ENVS * N_STEPS,
        total_frames=4 * N_ENVS * N_STEPS,
        init_random_frames=2 * N_ENVS * N_STEPS,
        backend="eager",
    )
    drawn = list(collector)
    assert len(drawn) == 4
    assert ["log_prob" in batch["hunter"].keys() for batch in drawn] == [False, False, True, True]
    for batch in drawn[:2]:
        action = batch["hunter", "action"].unsqueeze(-1)
        assert batch["hunter", "action_mask"].gather(-1, action).all()
        assert batch["prey", "action"].abs().max() <= 2.0
        assert batch["prey", "action"].std() > 0.4


def test_a_seed_repeats_the_batches():
    collector = CompiledCollector(
        make_env(Hunt(HuntParams())), make_policy(), frames_per_batch=12, backend="eager"
    )
    collector.set_seed(3)
    first = batches(collector, 1)[0]
    second = batches(collector, 1)[0]
    collector.set_seed(3)
    again = batches(collector, 1)[0]
    torch.testing.assert_close(first["hunter", "observation"], again["hunter", "observation"])
    assert not torch.equal(first["hunter", "observation"], second["hunter", "observation"])


def test_state_dict_continues_the_counters():
    make = lambda: CompiledCollector(  # noqa: E731
        make_env(Hunt(HuntParams())),
        make_policy(),
        frames_per_batch=12,
        total_frames=24,
        backend="eager",
    )
    one, two = make(), make()
    next(iter(one))
    two.load_state_dict(one.state_dict())
    assert len(list(two)) == 1
    theirs, ours = two.policy.state_dict(), one.policy.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_other_environments_take_torchrls_collector_with_a_reason():
    env = make_env(Hunt(HuntParams()), RewardScaling(0.0, 2.0, in_keys=KEYS))
    with pytest.warns(
        CompileWarning, match=r"rollout is not compiled: .* transform RewardScaling\."
    ):
        collector = make_collector(
            lambda: env, make_policy(), device="cpu", frames_per_batch=6, total_frames=6
        )
    assert isinstance(collector, Collector)
    others = SerialEnv(1, lambda: make_env(Hunt(HuntParams())))
    with pytest.raises(NotCompilable, match="a SerialEnv, not a batched task of marl_td"):
        Bookkeeping(others)


def test_a_policy_that_cannot_be_traced_runs_as_it_is():
    policy = make_policy()

    def act(data):
        torch._dynamo.graph_break()
        return policy(data)

    collector = CompiledCollector(
        make_env(Hunt(HuntParams())), act, frames_per_batch=6, backend="eager"
    )
    with pytest.warns(CompileWarning, match=r"rollout is not compiled: .*graph_break"):
        batch = batches(collector, 1)[0]
    assert batch.batch_size == (N_ENVS, 2)


def test_wrong_numbers_are_refused():
    env = make_env(Hunt(HuntParams()))
    with pytest.raises(ValueError, match=r"frames_per_batch must be at least 1 .* got 0 and 0"):
        CompiledCollector(env, make_policy(), frames_per_batch=0)
    with pytest.raises(ValueError, match="compile must be one of auto, on, off; got 'yes'"):
        is_worthwhile("yes", 1, 1)


@pytest.mark.parametrize(
    ("mode", "n_calls", "expected"),
    [("on", 1, True), ("off", 10**9, False), ("auto", 99, False), ("auto", 100, True)],
)
def test_auto_compiles_what_is_called_often(mode, n_calls, expected):
    assert is_worthwhile(mode, n_calls, 100) is expected


def test_a_layout_restores_what_it_stores():
    x = torch.randn(4, 5, 6).permute(
        1, 2, 0
    )  # three orders are their own inverse; this is not one of them
    stored = Layout(x).store(x)
    assert stored.is_contiguous()
    assert torch.equal(Layout(x).restore(stored), x)
    assert Layout(x).restore(stored).stride() == x.stride()
    late = x > 0
    assert Layout(late).store(late).dtype == torch.uint8
    assert torch.equal(Layout(late).restore(Layout(late).store(late)), late)


def test_rows_give_bools_back_without_a_copy_and_leave_bytes_alone():
    image, done = torch.tensor([0, 7, 255], dtype=torch.uint8), torch.tensor([True, False, True])
    rows = Rows({("image",): image}, {("done",): packed(done)})
    entries = rows.entries()
    assert entries["image",] is image
    assert entries["done",].dtype == torch.bool
    assert entries["done",].tolist() == [True, False, True]
    assert entries["done",].data_ptr() == rows.truths["done",].data_ptr()


@pytest.mark.parametrize(
    "name", ["simple_spread", "simple_speaker_listener", "simple_tag", "simple_adversary"]
)
def test_the_loop_keeps_a_tasks_own_memory_layout(name):
    env = make_task_env(name, 4, continuous=True)  # its environments are last in memory

    def act(data):
        for group, spec in env.task.groups.items():
            observation = data[group, "observation"]
            data.set((group, "action"), observation[..., : len(spec.action.low)].sin())
        return data

    run = CompiledCollector(env, act, frames_per_batch=4 * 30, backend="eager")
    carry = run._start()
    assert carry.state[0].stride(0) == 1
    noise = (run._noise(), run.starts.noise(run.base.rng), run._clock)
    chunk = Chunk(run.bookkeeping, act, run.starts.number)
    expected, found = chunk(carry, *noise), Compiled("rollout", chunk, "eager")(carry, *noise)
    for one, two in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(one, two)
    assert [x.stride() for x in tree_leaves(found[0])] == [x.stride() for x in tree_leaves(carry)]
    assert found[1].entries()["next", "done"].any()


@pytest.mark.slow
def test_the_inductor_graph_computes_the_same_and_samples_afresh():
    make = lambda backend: CompiledCollector(  # noqa: E731
        make_env(Hunt(HuntParams())), policy, frames_per_batch=N_ENVS * 200, backend=backend
    )
    policy = make_policy()
    theirs, ours = make("eager"), make("inductor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledCollector, "exploration", ExplorationType.DETERMINISTIC)
        assert_same(batches(ours, 1)[0], batches(theirs, 1)[0])
    ours = make("inductor")
    one, two, again = (*batches(ours, 2), batches(make("inductor"), 1)[0])
    torch.testing.assert_close(one["prey", "action"], again["prey", "action"])
    noise = (
        torch.cat([one, two], dim=1)["prey", "action"] - torch.cat([one, two], dim=1)["prey", "loc"]
    )
    assert (
        noise.flatten().unique().numel() > noise.numel() - 9
    )  # float32: two may be alike by chance
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    logits, action = one["hunter", "logits"], one["hunter", "action"]
    chosen = FiniteMaskedCategorical(logits, one["hunter", "action_mask"])
    seen = torch.nn.functional.one_hot(action, 3).float() - chosen.probs
    assert seen.mean((0, 1, 2)).abs().max() < 0.05


def normal_policy(env):
    """A policy of the group ``agents`` that samples continuous actions."""
    d_obs = env.full_observation_spec["agents", "observation"].shape[-1]
    d_action = env.full_action_spec["agents", "action"].shape[-1]
    net = nn.Sequential(nn.Linear(d_obs, 2 * d_action), NormalParamExtractor())
    keys = [("agents", "loc"), ("agents", "scale")]
    return TensorDictSequential(
        TensorDictModule(net, in_keys=[("agents", "observation")], out_keys=keys),
        ProbabilisticTensorDictModule(
            in_keys=keys,
            out_keys=[("agents", "action")],
            distribution_class=IndependentNormal,
            default_interaction_type="random",
        ),
    )


@pytest.mark.slow
def test_the_inductor_graph_samples_what_uncompiled_code_samples():
    """Continuous actions of one group; `test_draws.py` has several draws in a step."""

    def batch(backend):
        torch.manual_seed(0)
        env = make_task_env("simple_spread", 4)
        collector = CompiledCollector(
            env, normal_policy(env), frames_per_batch=4 * 50, backend=backend
        )
        return batches(collector, 1)[0]["agents", "action"]

    torch.testing.assert_close(batch("inductor"), batch("eager"))


def test_a_task_without_noise_is_collected_too():
    env = make_task_env("two_step", 2)

    def act(data):
        data.set(("agents", "action"), torch.zeros(2, 2, dtype=torch.long))
        return data

    collector = CompiledCollector(env, act, frames_per_batch=8, backend="eager")
    (batch,) = batches(collector, 1)
    assert batch["next", "done"].squeeze(-1).tolist() == [[False, True] * 2] * 2


def test_start_states_may_have_entries_without_width():
    """Retail without a lead time has a pipeline of no periods."""
    env = make_task_env("retail", 2, lead_time=0, max_steps=3)

    def act(data):
        data.set(("agents", "action"), torch.full(env._action_shape["agents"], 0.5))
        return data

    collector = CompiledCollector(env, act, frames_per_batch=10, backend="eager")
    (batch,) = batches(collector, 1)
    assert batch["next", "done"].squeeze(-1).tolist() == [[False, False, True, False, False]] * 2
