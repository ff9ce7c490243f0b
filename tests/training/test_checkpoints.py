"""Checkpoints: whole or not there, checked when read, the last good one never removed first."""

import json

import pytest
import torch
from faults import flip

from marl_td.training.checkpoint_folder import (
    MANIFEST_FILE,
    Checkpoint,
    Damaged,
    Summary,
    manifest_bytes,
)
from marl_td.training.checkpoints import Checkpoints


def save(checkpoints, frames, score=None, state=None, share=None):
    new = checkpoints.begin()
    new.add_state({"frames": frames, "x": torch.arange(4.0)} if state is None else state)
    if share is not None:
        new.share(Checkpoint(share), "rows.safetensors")
    else:
        new.add_tensors("rows.safetensors", {"0": torch.full((3,), float(frames))})
    return checkpoints.publish(new, Summary(frames, frames // 10, score))


def names(checkpoints):
    return [path.name.removeprefix("checkpoint_") for path in checkpoints.files()]


def rewrite(path, **changes):
    """Change a manifest as somebody who knows the format would."""
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    manifest.update(changes)
    del manifest["digest"]
    (path / MANIFEST_FILE).write_bytes(manifest_bytes(manifest))


def test_what_was_saved_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=None)
    path = save(checkpoints, 20, score=1.5)
    found = Checkpoint(path)
    assert found.summary == Summary(20, 2, 1.5)
    assert found.state()["frames"] == 20
    assert torch.equal(found.tensors("rows.safetensors")["0"], torch.full((3,), 20.0))
    assert found.versions["torch"] == torch.__version__
    assert sorted(p.name for p in path.iterdir()) == [
        "manifest.json",
        "rows.safetensors",
        "state.json",
        "state.safetensors",
    ]


def test_the_newest_are_kept_whatever_process_wrote_them(tmp_path):
    first = Checkpoints(tmp_path / "c", keep=2)
    for frames in (5, 10, 100):
        save(first, frames)
    assert names(first) == ["10", "100"]
    later = Checkpoints(tmp_path / "c", keep=2)
    save(later, 200)
    assert names(later) == ["100", "200"]


def test_the_best_are_kept_beside_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_best=2)
    for frames, score in ((10, 3.0), (20, 9.0), (30, None), (40, 5.0), (50, 1.0)):
        save(checkpoints, frames, score)
    assert names(checkpoints) == ["20", "40", "50"]


def test_a_run_that_went_back_keeps_its_checkpoint_and_forgets_its_old_future(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for frames in (40, 100, 200):
        save(checkpoints, frames)
    save(checkpoints, 50)
    assert names(checkpoints) == ["50"]


def test_everything_is_kept_on_request(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=None)
    for frames in range(5):
        save(checkpoints, frames)
    assert len(checkpoints.files()) == 5


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 0), r"keep_checkpoints_num must be at least 1.*got 0"),
        ((1, -1), r"keep_best_checkpoints must be at least 0; got -1"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, numbers, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path, *numbers)


def test_one_of_the_same_frames_is_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 10, state={"x": 1})
    path = save(checkpoints, 10, state={"x": 2})
    assert Checkpoint(path).state() == {"x": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_10"]


def test_one_that_was_set_aside_when_the_process_died_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 10).rename(tmp_path / ".old-checkpoint_10")
    (tmp_path / ".tmp-1-checkpoint").mkdir()
    checkpoints.sweep()
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_10"]


def test_shared_files_are_not_written_twice(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=None)
    first = save(checkpoints, 10)
    second = save(checkpoints, 20, share=first)
    files = [path / "rows.safetensors" for path in (first, second)]
    assert files[0].stat().st_ino == files[1].stat().st_ino
    for file in first.iterdir():  # the first may go
        file.unlink()
    first.rmdir()
    assert float(Checkpoint(second).tensors("rows.safetensors")["0"][0]) == 10.0


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE = {
    "flipped bit": lambda path: flip(path, 3),
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("file", ["manifest.json", "state.json", "state.safetensors", "rows.safe"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path, file, damage):
    checkpoints = Checkpoints(tmp_path, keep=None)
    for frames in (10, 20):
        path = save(checkpoints, frames)
    file = file.replace("rows.safe", "rows.safetensors")
    damage(path / file)
    found, complaints = checkpoints.newest_intact()
    assert found.summary.frames == 10
    assert len(complaints) == 1
    assert f"checkpoint '{path}' is damaged: {file}" in complaints[0]


def test_nothing_intact_names_every_one(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=None)
    for frames in (10, 20):
        cut(save(checkpoints, frames) / "state.json")
    found, complaints = checkpoints.newest_intact()
    assert found is None
    message = checkpoints.nothing_to_resume(complaints)
    assert message.startswith(f"no checkpoint of '{tmp_path}' is intact")
    assert "checkpoint_10" in message and "checkpoint_20" in message


def test_another_format_is_named_with_the_version_that_wrote_it(tmp_path):
    path = save(Checkpoints(tmp_path, keep=None), 10)
    rewrite(path, format=99, versions={"marl_td": "9.9"})
    with pytest.raises(Damaged, match=r"has format 99, .* reads 2; it was written by marl_td 9\.9"):
        Checkpoint(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": "20"},
        {"iteration": -1},
        {"score": "best"},
        {"versions": None},
        {"files": []},
        {"files": {"state.json": 3}},
        {"files": {"state.json": {"bytes": "1", "sha256": ""}}},
        {"format": True},
    ],
)
def test_fields_of_another_kind_are_refused(tmp_path, changes):
    path = save(Checkpoints(tmp_path, keep=None), 10)
    rewrite(path, **changes)
    with pytest.raises(Damaged, match=r"is damaged: manifest\.json cannot be used"):
        Checkpoint(path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ""])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    path = save(Checkpoints(tmp_path, keep=None), 10)
    rewrite(path, files={name: {"bytes": 1, "sha256": ""}})
    with pytest.raises(Damaged, match="which is not a plain file name"):
        Checkpoint(path)


def test_a_state_that_cannot_be_saved_leaves_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=None)
    new = checkpoints.begin()
    with pytest.raises(TypeError, match=r"state\.x is a object, which a checkpoint cannot hold"):
        new.add_state({"x": object()})
    checkpoints.abandon(new)
    assert list(tmp_path.iterdir()) == []


def test_those_of_earlier_versions_are_named(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "checkpoint_60.pt").write_bytes(b"")
    checkpoints = Checkpoints(folder, keep=None)
    assert checkpoints.files() == []
    assert "checkpoint_60.pt' was written by an earlier version" in checkpoints.nothing_to_resume(
        []
    )
