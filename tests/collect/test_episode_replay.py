"""The replay buffer of whole episodes: assembly across batches, padding, saving, messages."""

import io
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from step_streams import stream
from torchrl.data import LazyTensorStorage
from torchrl.data.replay_buffers import RandomSampler

from marl_td.collect.episode_replay import EpisodeReplayBuffer


def buffer(max_length: int = 5, size: int = 200, batch_size: int = 4) -> EpisodeReplayBuffer:
    return EpisodeReplayBuffer(
        max_length=max_length,
        storage=LazyTensorStorage(size),
        sampler=RandomSampler(),
        batch_size=batch_size,
    )


def stored(replay: EpisodeReplayBuffer) -> list[list[int]]:
    """The real steps of every stored episode, sorted."""
    rows = replay[:]
    real = rows["step_mask"].squeeze(-1)
    return sorted(x[m].tolist() for x, m in zip(rows["x"], real, strict=True))


def finished(lengths: list[list[int]], n_steps: int) -> list[list[int]]:
    """What should be stored after ``n_steps``: every episode that has ended."""
    out = []
    for env, episodes in enumerate(lengths):
        end = 0
        for i, n in enumerate(episodes):
            end += n
            if end <= n_steps:
                out.append([10_000 * env + 100 * i + t for t in range(n)])
    return sorted(out)


@given(st.data())
def test_every_episode_is_stored_once_however_the_steps_are_cut(data):
    """Any lengths, any cuts into batches: each finished episode once, whole, in order."""
    n_steps = 24
    lengths = [
        data.draw(st.lists(st.integers(1, 5), min_size=n_steps, max_size=n_steps)) for _ in range(3)
    ]
    cuts = sorted({0, n_steps, *data.draw(st.lists(st.integers(1, n_steps - 1), max_size=5))})
    steps, replay = stream(lengths, n_steps), buffer()
    n_stored = 0
    for start, end in itertools.pairwise(cuts):
        n_stored += len(replay.extend(steps[:, start:end]))
        assert n_stored == len(replay) == len(finished(lengths, end))
    assert stored(replay) == finished(lengths, n_steps)


def test_padding_repeats_the_last_step_and_is_marked():
    replay = buffer()
    replay.extend(stream([[2, 5], [5, 2]], 7))
    row = next(r for r in replay[:] if int(r["x"][0]) == 0)
    assert row["x"].tolist() == [0, 1, 1, 1, 1]
    assert row["step_mask"].squeeze(-1).tolist() == [True, True, False, False, False]
    assert row["step_mask"].shape == (5, 1)


def test_samples_are_whole_episodes():
    replay = buffer(batch_size=6)
    replay.extend(stream([[3, 2, 5], [4, 4, 2]], 10))
    batch = replay.sample()
    assert batch.shape == (6, 5)
    assert batch["is_init"][:, 0].all()
    last = batch["step_mask"].sum(1, keepdim=True) - 1
    assert batch["next", "done"].gather(1, last).all()


def test_what_was_not_seen_from_its_start_is_dropped():
    steps, replay = stream([[5, 3, 2], [4, 4, 2]], 10), buffer()
    replay.extend(steps[:, 2:])
    assert stored(replay) == [
        [100, 101, 102],
        [200, 201],
        [10100, 10101, 10102, 10103],
        [10200, 10201],
    ]


def test_an_environment_that_starts_afresh_drops_what_was_open():
    """After a resume the environments are reset: the carried beginnings must not be continued."""
    steps, replay = stream([[5, 3], [4, 4]], 8), buffer()
    replay.extend(steps[:, :3])
    replay.extend(steps[:, :5])
    assert stored(replay) == [[0, 1, 2, 3, 4], [10000, 10001, 10002, 10003]]


def test_the_end_of_an_episode_starts_the_next_one_even_without_a_flag():
    steps = stream([[3, 2]], 5)
    steps["is_init"][0, 3] = False
    replay = buffer()
    replay.extend(steps)
    assert stored(replay) == [[0, 1, 2], [100, 101]]


def test_saved_and_loaded_it_goes_on_with_the_open_episodes():
    steps, replay, other = stream([[5, 3], [4, 4]], 8), buffer(), buffer()
    replay.extend(steps[:, :6])
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for target in (replay, other):
        target.extend(steps[:, 6:])
    assert stored(other) == stored(replay) == finished([[5, 3], [4, 4]], 8)


def test_old_episodes_give_way():
    replay = buffer(size=3)
    replay.extend(stream([[1, 1, 1, 1, 1]], 5))
    assert len(replay) == 3


def test_sampling_before_the_first_whole_episode_says_what_to_do():
    replay = buffer(max_length=50)
    with pytest.raises(RuntimeError, match="0 environments made 0 steps"):
        replay.sample()
    assert len(replay.extend(stream([[20], [20]], 4))) == 0
    with pytest.raises(
        RuntimeError,
        match=r"2 environments made 4 steps each, and an episode may take 50. Collect at least 100 "
        r"frames before the first update .*off_policy_collected_frames_per_batch",
    ):
        replay.sample()


@pytest.mark.parametrize("cut", [6, 3])
@pytest.mark.parametrize(("lengths", "longest"), [([[6, 1]], 6), ([[9]], 7)])
def test_an_episode_above_the_limit_is_refused(cut, lengths, longest):
    """Whether it ended or is still open, at once or over two batches."""
    replay, steps = buffer(), stream(lengths, 7)[:, :6]
    message = rf"an episode takes {longest} steps or more, above the limit max_length=5"
    with pytest.raises(ValueError, match=message):
        for part in (steps[:, :cut], steps[:, cut:]):
            if part.shape[1]:
                replay.extend(part)


def test_wrong_batches_are_refused():
    with pytest.raises(ValueError, match="max_length must be at least 1 step; got 0"):
        buffer(max_length=0)
    replay, steps = buffer(), stream([[5], [5]], 3)
    replay.extend(steps)
    with pytest.raises(ValueError, match=r"batches \[n_envs, T\]; got \(6,\)"):
        replay.extend(steps.reshape(-1))
    with pytest.raises(ValueError, match="open episodes of 2 environments; got a batch of 1"):
        replay.extend(steps[:1])
