"""Files are the old version or the new one, never something in between."""

import os

import pytest

from marl_td.training.files import sweep, write_atomic


def test_content_is_replaced(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_in_the_middle_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    (tmp_path / ".tmp-123-weights").write_bytes(b"half")
    (tmp_path / ".tmp-124-checkpoint").mkdir()
    (tmp_path / ".tmp-124-checkpoint" / "state.json").write_bytes(b"half")
    (tmp_path / "whole").write_bytes(b"whole")
    sweep(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["whole"]
