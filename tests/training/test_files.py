"""Files are the old version or the new one, never something in between."""

import pytest
import torch

from marl_td.training.checkpoints import Checkpoints, load_checkpoint
from marl_td.training.files import replace_atomic, save_atomic, sweep, write_atomic


def test_content_is_replaced(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_in_the_middle_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.pt"
    save_atomic(path, {"x": torch.ones(3)})

    def half(file):
        file.write(b"half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_atomic(path, half)
    assert torch.equal(load_checkpoint(path)["x"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    (tmp_path / ".tmp-123-checkpoint_5.pt").write_bytes(b"half")
    (tmp_path / "checkpoint_4.pt").write_bytes(b"whole")
    sweep(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint_4.pt"]


def names(checkpoints):
    return [file.stem for file in checkpoints.files()]


def test_the_newest_are_kept_whatever_process_wrote_them(tmp_path):
    first = Checkpoints(tmp_path / "c", keep=2)
    for frames in (5, 10, 100):
        first.save({"frames": frames}, frames)
    assert names(first) == ["checkpoint_10", "checkpoint_100"]
    later = Checkpoints(tmp_path / "c", keep=2)
    later.save({"frames": 200}, 200)
    assert names(later) == ["checkpoint_100", "checkpoint_200"]


def test_a_new_checkpoint_is_never_the_one_removed(tmp_path):
    """A run that went back to frame 50 must not lose its checkpoint to those of its old future."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for frames in (100, 200):
        checkpoints.save({}, frames)
    assert checkpoints.save({}, 50).exists()


def test_the_old_checkpoint_goes_only_after_the_new_one_is_written(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save({"frames": 1}, 1)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save({"frames": 2}, 2)
    assert names(checkpoints) == ["checkpoint_1"]
    assert load_checkpoint(tmp_path / "checkpoint_1.pt") == {"frames": 1}


def test_everything_is_kept_on_request(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=None)
    for frames in range(5):
        checkpoints.save({}, frames)
    assert len(checkpoints.files()) == 5


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"keep_checkpoints_num must be at least 1.*got 0"):
        Checkpoints(tmp_path, keep=0)


def test_code_in_a_checkpoint_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        load_checkpoint(tmp_path / "evil.pt")
