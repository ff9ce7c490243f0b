"""The replay buffer of windows: what is cut, across batches, and what stands around it."""

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
from marl_td.collect.window_replay import WindowReplayBuffer

LENGTHS = [[7, 1, 4, 9], [3, 11, 2, 5]]
N_STEPS = 21


def buffer(length: int = 4, burn_in: int = 2, stride: int = 2) -> WindowReplayBuffer:
    return WindowReplayBuffer(
        length=length,
        burn_in=burn_in,
        stride=stride,
        storage=LazyTensorStorage(500),
        sampler=RandomSampler(),
        batch_size=4,
    )


def rows(replay: WindowReplayBuffer) -> list[list[tuple[int, bool, bool]]]:
    """Number, mask and start flag of every step of every item, sorted."""
    items = replay[:]
    columns = [items["x"], items["step_mask"].squeeze(-1), items["is_init"].squeeze(-1)]
    lists = [column.tolist() for column in columns]
    return sorted(list(zip(*row, strict=True)) for row in zip(*lists, strict=True))


def expected(
    lengths: list[list[int]], n_steps: int, length: int, burn_in: int, stride: int
) -> list[list[tuple[int, bool, bool]]]:
    """The same, by going through every episode."""
    out = []
    for env, episodes in enumerate(lengths):
        begin = 0
        for i, n in enumerate(episodes):
            seen = min(n, n_steps - begin)
            for window in range(0, n, stride):
                covered = window > 0 and window - stride + length >= n
                last = min(window + length, n) - 1
                if covered or last >= seen:
                    continue
                item = []
                for step in range(window - burn_in, window + length):
                    place = min(max(step, 0), last)
                    number = 10_000 * env + 100 * i + place
                    item.append((number, 0 <= step <= last, place == 0))
                out.append(item)
            begin += n
    return sorted(out)


@given(st.data())
def test_the_windows_are_those_of_every_episode_however_the_steps_are_cut(data):
    """Any lengths and cuts into batches: each window once, as soon as it is whole."""
    n_steps = 24
    length = data.draw(st.integers(1, 5))
    sizes = (length, data.draw(st.integers(0, 4)), data.draw(st.integers(1, length)))
    lengths = [
        data.draw(st.lists(st.integers(1, 9), min_size=n_steps, max_size=n_steps)) for _ in range(2)
    ]
    cuts = sorted({0, n_steps, *data.draw(st.lists(st.integers(1, n_steps - 1), max_size=5))})
    steps, replay = stream(lengths, n_steps), buffer(*sizes)
    n_stored = 0
    for start, end in itertools.pairwise(cuts):
        n_stored += len(replay.extend(steps[:, start:end]))
        assert n_stored == len(replay) == len(expected(lengths, end, *sizes))
        assert replay._open.shape[1] <= max(1, sizes[0] + sizes[1] - 1)
    if n_stored:
        assert rows(replay) == expected(lengths, n_steps, *sizes)


def test_windows_by_hand():
    """An episode of 7 steps, windows of 4 that overlap by half, 2 steps of burn-in."""
    replay = buffer()
    replay.extend(stream([[7, 9]], 7))
    found = [[(number, real) for number, real, _ in row] for row in rows(replay)]
    no, yes = False, True
    assert found == [
        [(0, no), (0, no), (0, yes), (1, yes), (2, yes), (3, yes)],
        [(0, yes), (1, yes), (2, yes), (3, yes), (4, yes), (5, yes)],
        [(2, yes), (3, yes), (4, yes), (5, yes), (6, yes), (6, no)],
    ]
    assert replay[:]["step_mask"].shape == (3, 6, 1)


def test_a_batch_shorter_than_a_window_waits_for_the_next():
    replay, steps = buffer(length=6), stream([[12], [12]], 12)
    assert len(replay.extend(steps[:, :3])) == 0
    with pytest.raises(
        RuntimeError,
        match=r"no window to learn from yet: 2 environments made 3 steps each, and a window takes 6. "
        "Collect at least 12 frames .*shorter windows",
    ):
        replay.sample()
    assert len(replay.extend(steps[:, 3:7])) == 2
    assert replay.sample().shape == (4, 8)


@pytest.mark.parametrize("cut", [5, 21])
def test_windows_as_long_as_the_longest_episode_are_the_episodes(cut):
    steps = stream(LENGTHS, N_STEPS)
    options = {"storage": LazyTensorStorage(500), "sampler": RandomSampler(), "batch_size": 4}
    episodes = EpisodeReplayBuffer(max_length=11, **options)
    windows = buffer(length=11, burn_in=0, stride=5)
    for replay in (episodes, windows):
        for start in range(0, N_STEPS, cut):
            replay.extend(steps[:, start : start + cut])
    assert len(episodes) == 8
    assert rows(windows) == rows(episodes)


def test_saved_and_loaded_it_goes_on_in_the_middle_of_an_episode():
    steps, replay, other = stream(LENGTHS, N_STEPS), buffer(), buffer()
    replay.extend(steps[:, :13])
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for target in (replay, other):
        target.extend(steps[:, 13:])
    assert rows(other) == rows(replay) == expected(LENGTHS, N_STEPS, 4, 2, 2)


def test_what_was_not_seen_from_its_start_is_dropped():
    steps, replay = stream(LENGTHS, N_STEPS), buffer()
    replay.extend(steps[:, 2:10])
    replay.extend(steps[:, 10:])
    whole = expected(LENGTHS, N_STEPS, 4, 2, 2)
    assert rows(replay) == [row for row in whole if row[0][0] % 10_000 >= 100]


def test_the_end_of_an_episode_starts_the_next_one_even_without_a_flag():
    """In the middle of a batch and at its beginning; the items are flagged."""
    for cut in (2, 3):
        steps, replay = stream([[3, 4]], 7), buffer(stride=4)
        steps["is_init"][0, 3] = False
        replay.extend(steps[:, :cut])
        replay.extend(steps[:, cut:])
        assert rows(replay) == expected([[3, 4]], 7, 4, 2, 4)


def test_environments_that_start_afresh_drop_what_was_open():
    steps, replay = stream([[9, 3], [9, 3]], 9), buffer()
    replay.extend(steps[:, :3])
    replay.extend(steps)
    assert rows(replay) == expected([[9], [9]], 9, 4, 2, 2)


@pytest.mark.parametrize(
    "sizes", [{"length": 0}, {"burn_in": -1}, {"stride": 0}, {"length": 3, "stride": 4}]
)
def test_lengths_out_of_range_are_refused(sizes):
    with pytest.raises(ValueError, match=r"burn_in at least 0 and stride in \[1, length\]; got"):
        buffer(**sizes)


def test_wrong_batches_are_refused():
    replay, steps = buffer(), stream([[5], [5]], 3)
    replay.extend(steps)
    with pytest.raises(ValueError, match=r"batches \[n_envs, T\]; got \(6,\)"):
        replay.extend(steps.reshape(-1))
    with pytest.raises(ValueError, match="open episodes of 2 environments; got a batch of 1"):
        replay.extend(steps[:1])


def test_more_windows_than_places():
    """The last ones are kept, as if those before them had been overwritten one by one."""
    replay = WindowReplayBuffer(
        length=4, stride=4, storage=LazyTensorStorage(5), sampler=RandomSampler(), batch_size=4
    )
    places = replay.extend(stream(LENGTHS, N_STEPS))
    assert sorted(places.tolist()) == [0, 1, 2, 3, 4]
    windows = expected(LENGTHS, N_STEPS, 4, 0, 4)
    assert len(windows) > 5
    assert rows(replay) == sorted(windows[-5:])
