"""From a trained run to a policy that acts, on the command line."""

import json

import numpy as np
import pytest
from short_runs import SHORT

from marl_td.cli import main
from marl_td.deploy import load_bundle


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    command = ["train", "--out", str(folder), "--no-progress", "--episodes", "4", *SHORT]
    assert main(command) == 0
    return folder


def test_a_run_is_exported_and_acts(run, tmp_path, capsys):
    out = tmp_path / "bundle"
    assert main(["export", str(run), "--out", str(out), "--licence", "CC0"]) == 0
    text = capsys.readouterr().out
    assert "ONNX Runtime" in text and "deterministic actions" in text and str(out) in text
    bundle = load_bundle(out, verify=True)
    assert bundle.manifest["licence"] == "CC0"
    report = json.loads((out / "evaluation.json").read_text())["report"]
    assert report["task"] == "marl_td/matrix_game" and report["episodes"] == 4
    assert "95 % interval" in (out / "README.md").read_text()
    assert (out / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    for policy in bundle.agents.values():
        action, state = policy.act(np.zeros(policy.signature.observation[0].shape))
        assert action in range(policy.signature.n_actions) and state is None


def test_json(run, tmp_path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "b"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == {"folder", "mode", "agents", "max_difference", "bytes"}
    assert set(data["agents"].values()) == set(data["max_difference"])
    for found in data["max_difference"].values():
        assert set(found) == {"eager", "program", "onnx"} and max(found.values()) <= 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}", "--out", "{tmp}/b"], "is not a run folder"),
        (["{run}", "--out", "{run}"], "is not empty; choose another folder"),
        (["{run}", "--out", "{run}", "--overwrite"], "holds something else than a bundle"),
        (["{run}", "--out", "{tmp}/b", "--sample"], "no distribution to draw actions from"),
        (["{run}", "--out", "{tmp}/b", "--env", "a:b"], "takes no import path"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, capsys, words, message):
    words = [word.format(run=run, tmp=tmp_path) for word in words]
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(run, tmp_path, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(run), "--out", str(tmp_path / "b")]) == 2
    assert "the export needs the package onnxscript: pip install 'marl-td[export]'" in (
        capsys.readouterr().err
    )
