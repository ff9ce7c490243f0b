"""Hostile files are refused in a sentence: nothing runs, memory stays small, the good ones still load."""

import os
import re
import resource
import shutil

import pytest
from benchmarl_runs import IGNORED
from hostile_files import (
    CASES,
    GOLDEN,
    MARKER,
    Payload,
    pickled,
    read_bundle,
    read_checkpoint,
    read_run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from short_runs import short_experiment
from tiny_bundle import write_bundle

from marl_td.cli import main

pytestmark = IGNORED


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run and a bundle."""
    folder = tmp_path_factory.mktemp("good")
    short_experiment(folder / "run", "experiment.compile=off").run()
    write_bundle(folder / "bundle", golden=GOLDEN)
    return folder


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory for payloads to leave their mark in."""
    place = tmp_path / "working"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def peak():
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_the_payload_of_these_tests_would_run(elsewhere):
    import pickle

    pickle.loads(pickled())
    assert (elsewhere / MARKER).is_dir() and Payload


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_in_a_sentence(good, tmp_path, elsewhere, case):
    folder = tmp_path / "copy"
    shutil.copytree(good / ("bundle" if case.of_bundle else "run"), folder)
    case.read(folder)  # the copy is good: a refusal is for the harm
    case.do(folder)
    before = peak()
    with pytest.raises(ValueError) as refused:
        case.read(folder)
    message = str(refused.value)
    assert re.search(case.message, message), message
    assert message.endswith((".", ")", "?")) or "\n" not in message
    assert len(message) < 2000
    assert peak() - before < 200
    assert os.listdir(elsewhere) == []


def test_the_command_line_says_it_in_one_line(good, tmp_path, elsewhere, capfd):
    shutil.copytree(good / "run", tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("!!python/object/apply:os.mkdir [here]")
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert said.startswith("marl-td: error: ") and said.count("\n") == 1
    assert os.listdir(elsewhere) == []


FILES = {
    "config.yaml": "run",
    "policy/weights.safetensors": "run",
    "metrics.csv": "run",
    "signature.json": "bundle",
    "manifest.json": "bundle",
    "golden.npz": "bundle",
    "actors/agents.onnx": "bundle",
}
READ = {"run": read_run, "bundle": read_bundle}


@pytest.mark.parametrize("name", FILES)
def test_whatever_bytes_are_changed_the_answer_is_a_refusal_or_a_good_run(
    good, tmp_path, elsewhere, name
):
    kind = FILES[name]
    shutil.copytree(good / kind, tmp_path / "copy")
    path = tmp_path / "copy" / name
    whole = path.read_bytes()

    @settings(max_examples=20, deadline=None)
    @given(data=st.data())
    def holds(data):
        at = data.draw(st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "replace"]))
        some = data.draw(st.binary(min_size=1, max_size=8))
        bit = bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))])
        path.write_bytes(
            {
                "flip": whole[:at] + bit + whole[at + 1 :],
                "cut": whole[:at],
                "insert": whole[:at] + some + whole[at:],
                "replace": whole[:at] + some + whole[at + len(some) :],
            }[how]
        )
        try:
            READ[kind](tmp_path / "copy")
        except ValueError as refused:
            assert str(refused)

    holds()
    assert os.listdir(elsewhere) == []


def test_every_changed_byte_of_a_checkpoint_is_noticed(good, tmp_path, elsewhere):
    shutil.copytree(good / "run", tmp_path / "copy")
    (folder,) = (tmp_path / "copy" / "checkpoints").glob("checkpoint_*")
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 6)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(ValueError, match=r"is intact|is damaged"):
                read_checkpoint(tmp_path / "copy")
        path.write_bytes(whole)
    assert read_checkpoint(tmp_path / "copy")
