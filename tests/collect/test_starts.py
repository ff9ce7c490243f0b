"""Start states of a batch: picked by environment and turn, and as many as its episodes need."""

from __future__ import annotations

import pytest
import torch
from hunting import N_ENVS, N_STEPS, batches, make_policy, make_transforms
from torchrl.envs import TransformedEnv
from toy_tasks import Hunt, HuntParams

from marl_td.collect.chunk import WIDE, Starts
from marl_td.collect.collector import CompiledCollector
from marl_td.tasks.vector_env import VectorEnv


def short_lived(**changes):
    """A collector whose episodes last a step or two: more than usual end in a batch."""
    env = VectorEnv(Hunt(HuntParams(max_steps=8, prey_life=0.5)), N_ENVS, seed=4)
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
    assert grows.n_starts == 3  # 10 steps, in which episodes usually last at least 4
    first, second = batches(grows, 2)
    ends = first["next", "done"].sum(1)
    assert 3 < ends.max() <= grows.n_starts
    enough = short_lived(n_starts=grows.n_starts)
    for one, two in zip((first, second), batches(enough, 2), strict=True):
        for key, value in two.items(True, True):
            assert torch.equal(one.get(key), value), key
    starts = first["hunter", "observation"][first["is_init"].squeeze(-1)]
    assert len(starts.unique(dim=0)) == len(starts)


def test_what_it_grew_to_is_saved():
    one, two = short_lived(), short_lived()
    batches(one, 1)
    two.restore(one.snapshot())
    assert two.n_starts == one.n_starts > 3
    ours, theirs = (batches(collector, 1)[0] for collector in (one, two))
    assert torch.equal(ours["hunter", "observation"], theirs["hunter", "observation"])


def test_a_given_number_of_start_states_is_kept():
    collector = short_lived(n_starts=1)
    batch = batches(collector, 1)[0]
    starts = batch["hunter", "observation"][batch["is_init"].squeeze(-1)]
    assert collector.n_starts == 1
    assert len(starts) > 2 * N_ENVS >= len(starts.unique(dim=0))


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
