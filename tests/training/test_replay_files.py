"""Rows of a replay: written once, in files of bounded size that checkpoints share; back as they were."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from marl_td.training import replay_files
from marl_td.training.replay_files import ReplayFiles

CAPACITY = 10


def buffer_of():
    return TensorDictReplayBuffer(storage=LazyTensorStorage(CAPACITY), batch_size=2)


def rows(first, count):
    """Rows that hold their own number; one entry is kept in another order of memory."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    turned = (
        number.reshape(-1, 1, 1).expand(count, 3, 2).transpose(1, 2).contiguous().transpose(1, 2)
    )
    group = TensorDict(
        {"observation": turned.clone(memory_format=torch.preserve_format)}, [count, 3]
    )
    return TensorDict({"agents": group, "reward": number.unsqueeze(-1)}, [count])


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(replay_files, "FILE_BYTES", 4 * 36)  # four rows: 7 numbers and an index
    monkeypatch.setattr(replay_files, "SMALL_FILES", 3)


@given(st.lists(st.integers(1, 14), min_size=1, max_size=12), st.data())
def test_what_is_put_together_is_what_was_there(counts, data):
    """After some extends a checkpoint that shares what it can; then a buffer from the last one's files."""
    buffer, disk = buffer_of(), {}
    files = ReplayFiles(buffer, "x")
    first = 0
    for count in counts:
        buffer.extend(rows(first, count))
        first += count
        if not data.draw(st.booleans(), label="save"):
            continue
        kept, new = files.plan(may_share=data.draw(st.integers(0, 4), label="share") > 0)
        assert {item.file for item in kept} <= set(disk)
        for item in new:
            assert item.file not in {old.file for old in kept}
            assert 1 <= item.stop - item.start <= 4
            disk[item.file] = files.tensors(item)
        files.rows = [*kept, *new]
        assert len(files.rows) <= 3 + 3 + 4  # small ones, full ones, what the last extends added
    kept, new = files.plan(may_share=True)
    disk.update({item.file: files.tensors(item) for item in new})
    state = files.snapshot([*kept, *new])

    other = buffer_of()
    ReplayFiles(other, "x").restore(state, disk.__getitem__)
    n = len(buffer)
    assert len(other) == n and other.writer._cursor == buffer.writer._cursor
    ours, theirs = buffer.storage._storage, other.storage._storage
    assert (ours[:n] == theirs[:n]).all()
    assert ours["agents", "observation"].stride() == theirs["agents", "observation"].stride()
    both = rows(1000, 3)
    buffer.extend(both.clone())
    other.extend(both.clone())
    n = len(buffer)
    assert (buffer.storage._storage[:n] == other.storage._storage[:n]).all()


def test_rows_are_written_once():
    """100 rows in ten checkpoints: the buffer holds 10, and hardly more than 100 are written."""
    buffer = buffer_of()
    files = ReplayFiles(buffer, "x")
    n_written = 0
    for step in range(25):
        buffer.extend(rows(4 * step, 4))
        kept, new = files.plan(may_share=True)
        n_written += sum(item.stop - item.start for item in new)
        files.rows = [*kept, *new]
    assert n_written == 100
    assert [item.start for item in files.rows] == [88, 92, 96]


def test_an_empty_buffer_comes_back_empty():
    files = ReplayFiles(buffer_of(), "x")
    assert files.plan(may_share=True) == ([], [])
    other = buffer_of()
    ReplayFiles(other, "x").restore(files.snapshot([]), {}.__getitem__)
    assert len(other) == 0


def test_another_size_is_refused():
    buffer = buffer_of()
    buffer.extend(rows(0, 3))
    state = ReplayFiles(buffer, "x").snapshot([])
    other = TensorDictReplayBuffer(storage=LazyTensorStorage(11), batch_size=2)
    with pytest.raises(ValueError, match=r"buffer 'x' holds 10 items, this run's 11; keep the mem"):
        ReplayFiles(other, "x").restore(state, {}.__getitem__)
