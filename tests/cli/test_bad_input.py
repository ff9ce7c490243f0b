"""What cannot be is one sentence and exit code 2, and leaves everything as it was."""

import shutil
from pathlib import Path

import pytest
from short_runs import SHORT

from marl_td.cli import main
from marl_td.training import extras

CONTINUOUS = ("algorithm=marl_td/masac", "task=marl_td/retail", "task.n_agents=2", *SHORT[2:])


def refused(arguments, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "experiment.loggers=[wandb]",
            "experiment.loggers: 'wandb' needs the package 'wandb', which is not installed; get it with: "
            "pip install 'marl-td[track]'",
        ),
        (
            "experiment.loggers=[csv,mlflow]",
            "'mlflow' needs the package 'mlflow', which is not installed; get it with: pip install mlflow",
        ),
        (
            "experiment.loggers=[tensrboard]",
            "experiment.loggers: there is no logger 'tensrboard'; there are csv, mlflow, tensorboard, "
            "trackio, wandb. Did you mean 'tensorboard'?",
        ),
        (
            "algorithm.scale_mapping=foo",
            "algorithm.scale_mapping: there is no mapping 'foo'; there are biased_softplus, exp, expln, "
            "none, relu, softplus, and biased_softplus_BIAS with a number, such as "
            "biased_softplus_1.0.",
        ),
        ("algorithm.scale_mapping=biased_softplus_much", "there is no mapping 'biased_softplus_m"),
        ("algorithm.scale_mapping=biased_softplus_1_2_3", "there is no mapping 'biased_softplus_1"),
    ],
)
def test_a_setting_that_nothing_can_be_made_of(setting, message, tmp_path, monkeypatch, capsys):
    installed = extras.is_installed
    lacking = ("wandb", "mlflow")
    monkeypatch.setattr(extras, "is_installed", lambda p: p not in lacking and installed(p))
    arguments = ["train", "--out", str(tmp_path / "run"), "--no-report", *CONTINUOUS, setting]
    assert message in refused(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/xx", "/proc/xx/run", "file/run"])
def test_a_folder_that_cannot_be_written(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    err = refused(["train", "--out", place, "--no-report", *SHORT], capsys)
    assert f"--out '{place}' cannot be written (" in err and "give a folder in a place" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_mappings_and_loggers_that_there_are(tmp_path, capsys):
    run = str(tmp_path / "deep" / "run")
    settings = ["algorithm.scale_mapping=exp", "experiment.loggers=[csv]"]
    assert main(["train", "--out", run, "--no-report", *CONTINUOUS, *settings]) == 0


# -------------------------------------------------------------------------------------- resuming
def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_not_made_shorter(whole, capsys):
    before = content(whole)
    err = refused(["resume", str(whole), "--no-report", "experiment.max_n_frames=30"], capsys)
    assert f"'{whole}' already has 60 frames, more than experiment.max_n_frames=30: ask for" in err
    assert content(whole) == before


def test_loggers_are_checked_when_a_run_goes_on(whole, capsys):
    before = content(whole)
    err = refused(["resume", str(whole), "--no-report", "experiment.loggers=[tensrboard]"], capsys)
    assert "there is no logger 'tensrboard'" in err
    assert content(whole) == before


def test_the_run_s_own_length_may_be_said_again(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("max_n_frames: 60", "max_n_frames: 40"))
    same = ["resume", str(folder), "--no-report", "--no-progress", "experiment.max_n_frames=40"]
    assert main(same) == 0
    assert "(0 of them now)" in capsys.readouterr().out


def test_what_counts_is_the_newest_intact_checkpoint(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "checkpoints" / "checkpoint_60" / "state.json").write_text("{}")
    same = ["resume", str(folder), "--no-report", "--no-progress", "experiment.max_n_frames=40"]
    assert main(same) == 0
    assert "40 frames (0 of them now)" in capsys.readouterr().out
