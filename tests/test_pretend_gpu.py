"""Tasks and trainings on a GPU that is none (`scripts/pretend_gpu`), and their runs without even that."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from on_pretended_gpu import RUNS, checks
from source_tree import ROOT

from marl_td.evaluation.judge import judge_run
from marl_td.training.experiment import Experiment
from marl_td.training.metrics import read_metrics

COMMAND = ROOT / "scripts" / "pretend_gpu"
CHECKS = ROOT / "tests" / "helpers" / "on_pretended_gpu.py"


def load_build() -> ModuleType:
    """`scripts/pretend_gpu/build.py` as a module."""
    spec = importlib.util.spec_from_file_location("pretend_gpu_build", COMMAND / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_command(*words, **environment) -> subprocess.CompletedProcess[str]:
    """`python scripts/pretend_gpu WORDS`."""
    return subprocess.run(
        [sys.executable, COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def build() -> ModuleType:
    return load_build()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the checks left: one process for all of them, with a library that it compiles."""
    build = load_build()
    try:
        build.check()
    except build.CannotPretend as reason:
        pytest.skip(str(reason))
    out = tmp_path_factory.mktemp("pretended")
    done = run_command("--cache", out / "cache", CHECKS, out)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.parametrize("name", checks(Path()))
def test_on_the_device(name, folder):
    said = json.loads((folder / "checks.json").read_text())[name]
    assert not said, said


@pytest.mark.parametrize("name", RUNS)
def test_its_run_is_judged_without_the_device(name, folder):
    assert not torch.cuda.is_available()
    assert "train_device: cuda" in (folder / name / "config.yaml").read_text()
    assert all(row["eval/score_mean"] for row in read_metrics(folder / name / "metrics.csv"))
    report = judge_run(folder / name, 4)
    assert report.frames == 60
    assert report.mean_return.low <= report.mean_return.value <= report.mean_return.high


def test_its_run_is_resumed_without_the_device(folder, tmp_path):
    run = shutil.copytree(folder / "qmix", tmp_path / "qmix")
    devices = {"train_device": "cpu", "sampling_device": "cpu"}
    resumed = Experiment.resume(run, {**devices, "max_n_frames": 80})
    assert resumed.total_frames == 60
    resumed.run()
    assert read_metrics(run / "metrics.csv")[-1]["counters/total_frames"] == "80"
    log = (run / "run.log").read_text()
    assert "experiment.train_device is cpu instead of cuda, which has other random numbers" in log


# --------------------------------------------------------------------------------- the command itself
def test_the_library_is_compiled_once(folder, build):
    (made,) = (folder / "cache").iterdir()
    when = made.stat().st_mtime_ns
    assert build.library(folder / "cache") == made
    assert made.stat().st_mtime_ns == when


def test_another_source_is_compiled_anew(build, tmp_path, monkeypatch):
    try:
        build.check()
    except build.CannotPretend as reason:
        pytest.skip(str(reason))
    monkeypatch.setattr(build, "HERE", tmp_path)
    for name, text in {"device.h": "", "device.cpp": "int x;"}.items():
        (tmp_path / name).write_text(text)
    first = build.library(tmp_path / "cache")
    (tmp_path / "device.h").write_text("// changed")
    second = build.library(tmp_path / "cache")
    assert {first, second} == set((tmp_path / "cache").iterdir()) and first != second
    (tmp_path / "device.cpp").write_text("int x")
    with pytest.raises(build.CannotPretend, match=r"failed:\n.*expected"):
        build.library(tmp_path / "cache")


def torch_of(folder: Path, version: str, cuda: str | None) -> Path:
    """A folder with the version of some torch."""
    folder.joinpath("version.py").write_text(f"__version__ = {version!r}\ncuda = {cuda!r}\n")
    return folder


@pytest.mark.parametrize(
    ("version", "cuda", "message"),
    [
        ("2.13.0+cu130", "13.0", "is a build for CUDA 13.0, which needs no pretending: `make gpu`"),
        ("1.0.0+cpu", None, r"torch 1\.0\.0\+cpu is here, and this is written for torch 2"),
    ],
)
def test_another_torch_is_refused(build, tmp_path, monkeypatch, version, cuda, message):
    monkeypatch.setattr(build.platform, "system", lambda: "Linux")
    monkeypatch.setattr(build, "torch_folder", lambda: torch_of(tmp_path, version, cuda))
    with pytest.raises(build.CannotPretend, match=message):
        build.check()


def test_another_system_and_a_missing_compiler_are_refused(build, tmp_path, monkeypatch):
    monkeypatch.setattr(
        build, "torch_folder", lambda: torch_of(tmp_path, f"{build.WRITTEN_FOR}.1", None)
    )
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.platform, "system", lambda: "Linux")
    with pytest.raises(build.CannotPretend, match=r"no C\+\+ compiler found .*CXX"):
        build.check()
    monkeypatch.setattr(build.platform, "system", lambda: "Darwin")
    with pytest.raises(build.CannotPretend, match="on Linux only; this is Darwin"):
        build.check()


def test_the_reason_is_one_line_and_help_says_what_is_not_shown(tmp_path):
    done = run_command("--cache", tmp_path, "-m", "this", PATH=str(tmp_path), CXX="")
    assert done.returncode == 1
    assert done.stderr.startswith("[pretend_gpu] ") and done.stderr.count("\n") == 1
    assert "It does not show how fast anything is" in run_command("--help").stdout
