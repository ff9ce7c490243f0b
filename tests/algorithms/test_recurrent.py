"""Minibatches of sequences and steps: every pass over a batch reads each of them once."""

from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU
from discrete_teams import teams_task
from tensordict import TensorDict
from update_runs import both, tensors, update_of

from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.recurrent import chunk_buffer

pytestmark = IGNORED


def settings(n_envs: int, frames: int, minibatch: int):
    """What a buffer asks of the experiment's settings."""
    return SimpleNamespace(
        n_envs_per_worker=lambda on_policy: n_envs,
        collected_frames_per_batch=lambda on_policy: frames,
        train_batch_size=lambda on_policy: frames,
        train_minibatch_size=lambda on_policy: minibatch,
    )


@pytest.mark.parametrize(
    ("minibatch", "sizes"),
    [
        (13, [1, 1, 1, 2]),  # 4 minibatches of 5 chunks
        (17, [1, 2, 2]),
        (25, [2, 3]),
        (50, [5]),
        (10, [1, 1, 1, 1, 1]),
    ],
)
def test_each_pass_reads_each_chunk_once(minibatch, sizes):
    buffer = chunk_buffer(settings(5, 50, minibatch), "agents", 10, "cpu")
    for _ in range(2):  # a collected batch, and the next one
        rows = TensorDict({"index": torch.arange(5).unsqueeze(-1).expand(5, 10)}, [5, 10])
        buffer.extend(rows)
        for _ in range(3):
            read = [buffer.sample()["index"][:, 0].tolist() for _ in sizes]
            assert [len(part) for part in read] == sizes
            assert sorted(chain(*read)) == [0, 1, 2, 3, 4]


def test_a_pass_goes_on_where_it_was_saved():
    one, two = (chunk_buffer(settings(5, 50, 13), "agents", 10, "cpu") for _ in range(2))
    for buffer in (one, two):
        buffer.extend(TensorDict({"index": torch.arange(5).unsqueeze(-1).expand(5, 10)}, [5, 10]))
    first = [one.sample()["index"][:, 0].tolist() for _ in range(2)]
    two.sampler.load_state_dict(one.sampler.state_dict())
    rest = [two.sample()["index"][:, 0].tolist() for _ in range(2)]
    assert [len(part) for part in rest] == [1, 2]
    assert sorted(chain(*first, *rest)) == [0, 1, 2, 3, 4]


def test_more_minibatches_than_chunks_are_refused(small_experiment):
    message = (
        r"on_policy_minibatch_size=2 makes 12 minibatches of 24 frames.*only 8 sequences of 3 steps.*"
        r"on_policy_minibatch_size=3 or more, or a smaller chunk_length"
    )
    with pytest.raises(ValueError, match=message):
        small_experiment(
            MappoConfig(chunk_length=3),
            teams_task(),
            model=STATEFUL,
            on_policy_minibatch_size=2,
        )


@pytest.mark.parametrize("model", [STATEFUL, THEIR_GRU], ids=["stateful", "theirs"])
@pytest.mark.parametrize(("length", "minibatch"), [(2, 5), (0, 9)], ids=["chunks", "rows"])
def test_an_epoch_of_a_run_reads_each_sequence_once(length, minibatch, model, small_experiment):
    """24 frames: 12 chunks in 5 minibatches, or 4 rows in 3."""
    experiment = small_experiment(
        MappoConfig(chunk_length=length),
        teams_task(blue=0),
        model=model,
        on_policy_minibatch_size=minibatch,
    )
    n_minibatches, n_sequences = (5, 12) if length else (3, 4)
    assert_epochs(experiment, n_minibatches, n_sequences)


def assert_epochs(experiment, n_minibatches: int, n_items: int) -> None:
    """Run; each pass over the batch of group red reads each of its items once."""
    seen, buffer = [], experiment.replay_buffers["red"]
    sample = buffer.sampler.sample

    def recorded(storage, batch_size):
        index, info = sample(storage, batch_size)
        seen.append(index.tolist())
        return index, info

    buffer.sampler.sample = recorded
    experiment.run()
    assert len(buffer) == n_items
    assert len(seen) == 2 * 2 * n_minibatches
    for first in range(0, len(seen), n_minibatches):
        epoch = seen[first : first + n_minibatches]
        assert sorted(chain(*epoch)) == list(range(n_items))


@pytest.mark.filterwarnings("ignore:frames_per_batch .* is not exactly divisible:UserWarning")
@pytest.mark.parametrize(
    ("model", "length", "frames", "minibatch", "n_minibatches", "n_items"),
    [
        (None, 0, 22, 12, 2, 24),  # 22 frames of 4 environments: 6 steps of each
        (None, 0, 10, 3, 4, 12),
        (STATEFUL, 0, 9, 3, 3, 4),  # 3 rows were asked for, there are 4
        (THEIR_GRU, 0, 9, 5, 2, 4),
        (STATEFUL, 2, 9, 3, 3, 8),
    ],
)
def test_frames_that_environments_do_not_divide(
    model, length, frames, minibatch, n_minibatches, n_items, small_experiment
):
    """All that was collected is learnt from, in as many minibatches; BenchMARL's buffer overwrites some."""
    experiment = small_experiment(
        MappoConfig(chunk_length=length),
        teams_task(blue=0),
        model=model,
        on_policy_collected_frames_per_batch=frames,
        on_policy_minibatch_size=minibatch,
    )
    assert_epochs(experiment, n_minibatches, n_items)


@pytest.mark.filterwarnings("ignore:frames_per_batch .* is not exactly divisible:UserWarning")
def test_more_minibatches_than_rows_of_frames_that_are_not_divided(small_experiment):
    """5 frames of 4 environments are 4 rows of 2 steps; 5 minibatches were asked for, of a row each."""
    experiment = small_experiment(
        MappoConfig(),
        teams_task(blue=0),
        model=STATEFUL,
        on_policy_collected_frames_per_batch=5,
        on_policy_minibatch_size=1,
    )
    experiment.run()
    buffer = experiment.replay_buffers["red"]
    assert len(buffer) == 4
    assert buffer.sample().batch_size == (1, 2)


def test_compiled_updates_have_one_graph_for_each_size(tmp_path):
    """8 chunks in 3 minibatches, of 2, 3 and 3; metrics and parameters are those of BenchMARL's loop."""
    settings = {"model": STATEFUL, "on_policy_minibatch_size": 9}
    ours, theirs = both(tmp_path, MappoConfig(chunk_length=4), **settings)
    torch.manual_seed(7)
    expected = torch.stack([theirs._optimizer_loop("agents") for _ in range(6)])
    torch.manual_seed(7)
    update = update_of(ours)
    found = update.run(6)
    assert [len(graph.graphs) for graph in update._graphs.values()] == [2]
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value.float(), rtol=1e-3, atol=1e-5)
    after, wanted = tensors(ours), tensors(theirs)
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
