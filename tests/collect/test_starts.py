"""Start states of a batch: picked by environment and turn, and as many as its episodes need."""

from __future__ import annotations

import pytest
import torch
from hunting import N_ENVS, N_STEPS, batches, make_policy, make_transforms
from torchrl.envs import TransformedEnv
from toy_tasks import Hunt, HuntParams

from marl_td.collect import start_states
from marl_td.collect.chunk import WIDE, Starts
from marl_td.collect.collector import CompiledCollector
from marl_td.collect.start_states import DRAWN_AT_ONCE, StartStates
from marl_td.tasks.vector_env import VectorEnv

RNG = torch.Generator()


def short_lived(task=Hunt, **changes):
    """A collector whose episodes last a step or two: more than usual end in a batch."""
    env = VectorEnv(task(HuntParams(max_steps=8, prey_life=0.5)), N_ENVS, seed=4)
    torch.manual_seed(0)
    return CompiledCollector(
        TransformedEnv(env, make_transforms()),
        make_policy(),
        frames_per_batch=N_ENVS * N_STEPS,
        backend="eager",
        **changes,
    )


def test_a_batch_that_runs_out_of_start_states_is_collected_anew_with_more():
    grows = short_lived()
    assert grows.starts.number == 3  # 10 steps, in which episodes usually last at least 4
    first, second = batches(grows, 2)
    n_ends = first["next", "done"].sum(1)
    assert 3 < n_ends.max() <= grows.starts.number
    enough = short_lived(n_starts=grows.starts.number)
    for one, two in zip((first, second), batches(enough, 2), strict=True):
        for key, value in two.items(True, True):
            assert torch.equal(one.get(key), value), key
    starts = first["hunter", "observation"][first["is_init"].squeeze(-1)]
    assert len(starts.unique(dim=0)) == len(starts)


class SlowHunt(Hunt):
    """A hunt whose start states are kept until they are used."""

    draws_starts_slowly = True


def test_a_batch_that_is_collected_anew_gets_start_states_that_nobody_had(monkeypatch):
    monkeypatch.setattr(start_states, "DRAWN_AT_ONCE", 1)  # none is left over from the first try
    collector = short_lived(task=SlowHunt)
    batch = batches(collector, 1)[0]
    assert collector.starts.number > 3
    held = collector.starts.noise(collector.base.rng)["start"]
    assert len(held.unique(dim=0)) == len(held) == collector.starts.number * N_ENVS
    starts = batch["hunter", "observation"][batch["is_init"].squeeze(-1)]
    assert len(starts.unique(dim=0)) == len(starts)


@pytest.mark.parametrize("task", [Hunt, SlowHunt])
def test_a_batch_that_is_collected_anew_takes_the_same_steps(task, monkeypatch):
    """The random numbers of its steps are those that it was first collected with."""
    collector, seen = short_lived(task=task), []

    def recorded(at_random, chunk=collector._chunk):
        def run(carry, step, *rest):
            seen.append((torch.get_rng_state(), step["loss"].clone()))
            return chunk(at_random)(carry, step, *rest)

        return run

    monkeypatch.setattr(collector, "_chunk", recorded)
    batches(collector, 1)
    assert len(seen) == 2
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first, second)


def test_what_it_grew_to_is_saved():
    one, two = short_lived(), short_lived()
    batches(one, 1)
    two.restore(one.snapshot())
    assert two.starts.number == one.starts.number > 3
    ours, theirs = (batches(collector, 1)[0] for collector in (one, two))
    assert torch.equal(ours["hunter", "observation"], theirs["hunter", "observation"])


def test_a_given_number_of_start_states_is_kept():
    collector = short_lived(n_starts=1)
    batch = batches(collector, 1)[0]
    starts = batch["hunter", "observation"][batch["is_init"].squeeze(-1)]
    assert collector.starts.number == 1
    assert len(starts) > 2 * N_ENVS >= len(starts.unique(dim=0))


class Slow:
    """Draws start states 0, 1, 2, ... and says how many it has drawn."""

    draws_starts_slowly, terminates, usual_episode, device = True, True, 4, "cpu"
    drawn = 0

    def draw_reset(self, n_envs, generator):
        first, self.drawn = self.drawn, self.drawn + n_envs
        return {"number": torch.arange(first, self.drawn)}


def ends(*counts, n_steps=8):
    """``done`` ``[T, n_envs, 1]`` of environments whose episodes end so many times."""
    return (torch.arange(n_steps).unsqueeze(-1) < torch.tensor(counts)).unsqueeze(-1)


def test_start_states_that_are_drawn_slowly_are_kept_until_they_are_used():
    starts = StartStates(Slow(), n_envs=2, n_steps=8)
    assert starts.noise(RNG)["number"].tolist() == [0, 1, 2, 3]  # two turns of both
    starts.use(ends(0, 0), RNG)
    assert starts.noise(RNG)["number"].tolist() == [0, 1, 2, 3]
    starts.use(ends(1, 2), RNG)
    assert starts.noise(RNG)["number"].tolist() == [4, 5, 2, 6]
    starts.use(ends(5, 0), RNG)  # from the first again: all of them are used
    assert starts.noise(RNG)["number"].tolist() == [7, 5, 8, 6]
    assert starts.task.drawn == DRAWN_AT_ONCE


def test_no_start_state_is_given_out_twice():
    starts = StartStates(Slow(), n_envs=3, n_steps=8)
    seen, generator = set(starts.noise(RNG)["number"].tolist()), torch.Generator().manual_seed(0)
    for _ in range(200):
        before = starts.noise(RNG)["number"]
        done = ends(*torch.randint(3, (3,), generator=generator).tolist())
        starts.use(done, RNG)
        after = starts.noise(RNG)["number"]
        used = before != after
        assert used.reshape(2, 3).sum(0).tolist() == done.sum(0).flatten().tolist()
        fresh = set(after[used].tolist())
        assert len(fresh) == used.sum() and not fresh & seen
        seen |= fresh
    assert seen == set(range(len(seen)))


def test_a_batch_that_is_collected_anew_begins_with_the_same_start_states():
    starts = StartStates(Slow(), n_envs=2, n_steps=8)
    few = starts.noise(RNG)["number"]
    assert starts.run_out(ends(3, 0)) and starts.number == 4
    assert starts.noise(RNG)["number"].tolist() == [*few.tolist(), 4, 5, 6, 7]


def test_start_states_that_are_there_are_saved():
    one, two = (StartStates(Slow(), n_envs=2, n_steps=8) for _ in range(2))
    one.noise(RNG)
    one.use(ends(1, 0), RNG)
    two.restore(one.number, one.snapshot())
    for starts in (one, two):
        starts.use(ends(0, 1), RNG)
    assert torch.equal(one.noise(RNG)["number"], two.noise(RNG)["number"])
    assert two.task.drawn == 0
    two.forget()
    assert two.noise(RNG)["number"].tolist() == [0, 1, 2, 3]


def test_start_states_that_are_drawn_fast_are_drawn_for_every_batch():
    starts = StartStates(Slow(), n_envs=2, n_steps=8)
    starts.task.draws_starts_slowly = False
    for first in (0, 4):
        assert starts.noise(RNG)["number"].tolist() == list(range(first, first + 4))
        starts.use(ends(0, 0), RNG)


@pytest.mark.parametrize("width", [3, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("n_starts", [1, 3])
def test_start_states_are_picked_by_environment_and_turn(width, n_starts):
    number = torch.arange(n_starts * 4)
    fresh = {
        "x": torch.randn(n_starts * 4, width, 2),
        "number": number,
        "late": number.view(-1, 1) > 5,
    }
    starts = Starts(fresh, 4)
    turn = torch.tensor([0, 1, 2, 0]) % n_starts
    done = torch.tensor([True, True, True, False])
    place = (turn * 4 + torch.arange(4))[done]
    picked = starts.pick(turn, done)
    for name, value in fresh.items():
        assert picked[name].shape == (4, *value.shape[1:])
        assert torch.equal(picked[name][done], value[place])
    assert starts.after(turn, done).tolist() == [*((turn + 1) % n_starts).tolist()[:3], 0]
