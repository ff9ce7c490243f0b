"""A full disk, an environment, logger or callback that raises: the last checkpoint stays usable."""

import errno
import os
import sys

import pytest
from faults import FileFaults
from short_runs import short_experiment
from survival import differences, outcome

from marl_td.training.checkpoints import Checkpoints
from marl_td.training.experiment import Experiment
from marl_td.training.metrics import read_metrics
from marl_td.training.stopping import RunStopped

needs_faults = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="pathlib of Python 3.10 cannot be made to fail from outside"
)
OVERRIDES = ("experiment.checkpoint_interval=20", "experiment.keep_checkpoints_num=1")


@needs_faults
@pytest.mark.parametrize("at", [12, 26, 38, 51])
def test_a_full_disk_stops_the_run_and_leaves_what_was_there(tmp_path, at):
    folder = tmp_path / "run"
    experiment = short_experiment(folder, *OVERRIDES)
    with FileFaults(folder, at).active(), pytest.raises(RunStopped) as error:
        experiment.run()
    assert "(No space left on device)" in str(error.value)
    assert f"Make room, then go on with `marl-td resume {folder}`" in str(error.value)
    assert not list((folder / "checkpoints").glob(".tmp-*"))
    saved = experiment.checkpoints.files()
    assert bool(saved) == (at > 26)
    if saved:
        assert f"the last checkpoint is {saved[-1]}" in str(error.value)
        again = Experiment.resume(folder)
        assert again.total_frames == int(saved[-1].name.split("_")[1])
        again.close()


@needs_faults
def test_there_are_faults_to_inject(tmp_path):
    """The harness sees the writes of a run: without this the tests above could pass for nothing."""
    experiment = short_experiment(tmp_path / "run", *OVERRIDES)
    with FileFaults(tmp_path / "run").active() as faults:
        experiment.run()
        assert os.fsync.__qualname__ != "fsync"
    assert os.fsync.__qualname__ == "fsync"
    assert 55 < faults.count < 120


@needs_faults
def test_rows_are_on_the_disk_before_the_checkpoint_after_them(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    experiment = short_experiment(folder, *OVERRIDES)
    publish, seen = Checkpoints.publish, []

    def watched(self, new, summary):
        path = folder / "metrics.csv"
        seen.append((faults.power.safe[str(path)], path.stat().st_size))
        return publish(self, new, summary)

    monkeypatch.setattr(Checkpoints, "publish", watched)
    with FileFaults(folder).active() as faults:
        experiment.run()
    assert len(seen) == 3
    assert [safe for safe, _ in seen] == [size for _, size in seen]


def test_metrics_that_cannot_be_written_stop_the_run(tmp_path, monkeypatch):
    experiment = short_experiment(tmp_path / "run", *OVERRIDES)
    write = experiment.logger.metrics.write

    def full(row):
        if experiment.n_iters_performed == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(row)

    monkeypatch.setattr(experiment.logger.metrics, "write", full)
    with pytest.raises(RunStopped, match=r"metrics\.csv could not be written .*No space left"):
        experiment.run()
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == 2


@pytest.mark.parametrize("where", ["callback", "environment", "logger", "evaluation"])
def test_what_raises_does_not_lose_the_checkpoint(tmp_path, where, monkeypatch):
    experiment = short_experiment(tmp_path / "run", *OVERRIDES)
    owner, name = {
        "callback": (experiment, "_on_train_end"),
        "environment": (experiment.collector.env.base_env.task, "step"),
        "logger": (experiment.logger, "log_training"),
        "evaluation": (experiment, "_evaluation_loop"),
    }[where]
    real = getattr(owner, name)

    def fail(*args, **kwargs):
        if experiment.n_iters_performed == 2:
            raise RuntimeError("mine")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(RuntimeError, match="mine"):
        experiment.run()
    saved = tmp_path / "run" / "checkpoints" / "checkpoint_40"
    remedy = f"go on from it with `marl-td resume {tmp_path / 'run'}`"
    log = (tmp_path / "run" / "run.log").read_text()
    assert (
        f"stopped by RuntimeError in iteration 2; the last checkpoint is {saved}; {remedy}" in log
    )
    whole = outcome(short_experiment(tmp_path / "whole" / "run", *OVERRIDES))
    assert differences(whole[0], outcome(Experiment.resume(tmp_path / "run"))[0]) == []
