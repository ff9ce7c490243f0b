"""`marl-td resume`: as a user types it."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
from short_runs import SHORT

from marl_td.cli import main
from marl_td.training.metrics import read_metrics


@pytest.fixture
def run(whole, tmp_path):
    """As if killed after its first checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for frames in (40, 60):
        shutil.rmtree(folder / "checkpoints" / f"checkpoint_{frames}")
    return folder


def untimed(folder):
    rows = read_metrics(folder / "metrics.csv")
    return [{k: v for k, v in row.items() if not k.startswith("timers/")} for row in rows]


def test_it_goes_on_and_reports(run, whole, capsys):
    assert main(["resume", str(run), "--episodes", "4", "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert "trained marl_td/qmix on marl_td/matrix_game: 60 frames (40 of them now)" in out
    assert "learned (qmix)" in out
    assert untimed(run) == untimed(whole)
    weights = [folder / "policy" / "weights.safetensors" for folder in (run, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (run / "run.log").read_text() == "20 frames: resumed exactly\n"
    assert (run / "report" / "report.md").exists()


def test_settings_of_the_experiment_can_be_changed(run, capsys):
    assert main(["resume", str(run), "--no-report", "experiment.max_n_frames=80"]) == 0
    out, err = capsys.readouterr()
    assert "80 frames (60 of them now)" in out
    assert "the report is" not in err, "there is none"


def test_a_report_of_the_run_as_it_was_is_named(run, capsys):
    (run / "report").mkdir()
    assert main(["resume", str(run), "--no-report"]) == 0
    assert "report is of the run as it was; `marl-td evaluate DIR` makes a new one" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("task.n_agents=3", "'task.n_agents' cannot be changed when a run goes on"),
        ("experiment.max_frames=80", "there is no setting 'experiment.max_frames'. Did you mean"),
        ("experiment.max_n_frames=many", "setting 'experiment.max_n_frames': Value 'many'"),
    ],
)
def test_other_settings_cannot(run, argument, message, capsys):
    assert main(["resume", str(run), argument]) == 2
    assert message in capsys.readouterr().err


def test_damaged_checkpoints_are_named(run, capsys):
    (run / "checkpoints" / "checkpoint_20" / "state.json").write_text("{}")
    assert main(["resume", str(run)]) == 2
    err = capsys.readouterr().err
    assert f"no checkpoint of '{run}' is intact" in err
    assert "checkpoint_20' is damaged: state.json has 2 bytes" in err


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main(["resume", str(tmp_path)]) == 2
    assert "is not a run folder: it has no config.yaml" in capsys.readouterr().err


def test_sigterm_ends_the_command_cleanly(tmp_path):
    """A process of its own: what a batch system does to a job."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "marl_td", "train", "--out", str(folder), "--no-report"]
    settings = [s for s in SHORT if "max_n_frames" not in s]
    process = subprocess.Popen(
        [*command, *settings, "experiment.max_n_frames=2000000", "experiment.compile=off"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert "SIGTERM: saving a checkpoint after this iteration" in err
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert (folder / "run.log").read_text().endswith("frames: stopped by SIGTERM\n")
    assert checkpoint.name.startswith("checkpoint_")
