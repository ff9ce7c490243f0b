"""A run that goes on from a checkpoint ends as the one that was never stopped, to the last bit."""

import json
import os
import shutil
import signal

import pytest
import torch
from benchmarl.experiment.callback import Callback
from short_runs import short_experiment
from survival import (
    FEW,
    TAG,
    case,
    differences,
    every_case,
    everything,
    experiment_of,
    metrics_of,
    outcome,
)

from marl_td.tasks import VectorEnv
from marl_td.training.experiment import Experiment
from marl_td.training.metrics import read_metrics
from marl_td.training.stopping import StopSignals, Terminated

pytestmark = [
    pytest.mark.filterwarnings("ignore:The default behavior of TransformedEnv:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:vmas"),
]


def goes_on_exactly(overrides, tmp_path, frames=36):
    """Run whole; go on from a checkpoint in the middle in a copy; compare everything."""
    whole = experiment_of(overrides, tmp_path / "whole" / "run")
    expected, reachable = outcome(whole)
    again = tmp_path / "again" / "run"
    shutil.copytree(tmp_path / "whole" / "run", again)
    resumed = Experiment.reload_from_file(str(again / "checkpoints" / f"checkpoint_{frames}"))
    found, reached = outcome(resumed)
    assert differences(expected, found) == []
    assert differences(reachable, reached) == []  # whatever no snapshot knows of
    assert len(expected) > 60 and len(reachable) > 500
    assert (again / "run.log").read_text() == f"{frames} frames: resumed exactly\n"


IN_DEFAULT_TESTS = (
    "mappo gru",
    "qmix windows by priority",
    "maddpg by priority on disk",
    "benchmarl's vmas maddpg",
)
"""Every kind of state; the slow tests have the others."""


@pytest.mark.parametrize("name", IN_DEFAULT_TESTS)
def test_it_goes_on_exactly(tmp_path, name):
    goes_on_exactly(FEW[name], tmp_path)


def test_a_difference_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("marl_td.training.resume.rng_restore", lambda state: None)
    with pytest.raises(AssertionError, match="metrics"):
        goes_on_exactly(FEW["masac discrete"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", every_case())
@pytest.mark.parametrize("frames", [18, 72])
def test_every_algorithm_goes_on_exactly(tmp_path, name, frames):
    goes_on_exactly(every_case()[name], tmp_path, frames)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["mappo", "matd3", "happo"])
def test_compiled_runs_go_on_exactly(tmp_path, algorithm):
    overrides = case(algorithm, x={"experiment.compile": "on"})
    goes_on_exactly(overrides, tmp_path)


TASKS = (
    "matrix_game",
    "two_step",
    "levers",
    "recall",
    "retail",
    "banking",
    "simple_speaker_listener",
    "pursuit",
    "predator_prey",
    "intersection",
    "traffic_junction",
    "pong",
    "pricing",
    "mapf",
    "warehouse",
    "market_making",
    "energy_grid",
    "drones",
)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_goes_on_exactly(tmp_path, task):
    goes_on_exactly(case("mappo", task={"task": f"marl_td/{task}"}), tmp_path)


# ---------------------------------------------------------------------- what cannot be exact is said
def parallel_env(n_envs):
    return {
        "task": "marl_td/mpe",
        "task.max_steps": "7",
        "experiment.on_policy_n_envs_per_worker": str(n_envs),
    }


def test_an_environment_that_cannot_be_saved_starts_fresh_and_the_log_says_so(
    tmp_path, monkeypatch
):
    mpe = pytest.importorskip("marl_td.tasks.adapters.mpe")
    monkeypatch.delattr(mpe.DirectMpe, "load_state_dict")
    overrides = case("mappo", task=parallel_env(3))
    experiment_of(overrides, tmp_path / "run").run()
    file = tmp_path / "run" / "checkpoints" / "checkpoint_36"
    starts = []

    class Watch(Callback):
        def on_batch_collected(self, batch):
            starts.append((self.experiment.total_frames, batch["collector", "traj_ids"][:, 0]))

    ends = []
    for folder in ("one", "two"):  # two resumes of one checkpoint are alike
        shutil.copytree(tmp_path / "run", tmp_path / folder / "run")
        place = tmp_path / folder / "run" / "checkpoints" / file.name
        resumed = Experiment.reload_from_file(str(place))
        watch = Watch()
        watch.experiment = resumed
        resumed.callbacks = [*resumed.callbacks, watch]
        ends.append(outcome(resumed)[0])
        log = (tmp_path / folder / "run" / "run.log").read_text()
        assert log.startswith("36 frames: resumed, not exactly: the environments start fresh episo")
        assert "DirectMpe offers no way to save its state" in log
    assert differences(*ends) == []
    assert len(metrics_of(tmp_path / "one" / "run")) == 5
    frames, first = starts[0]
    assert frames == 54 and len(first.unique()) == 3


def test_a_replay_that_was_kept_out_is_said(tmp_path):
    overrides = case("qmix", x={"experiment.exclude_buffer_from_checkpoint": "true"})
    experiment_of(overrides, tmp_path / "run").run()
    assert not list((tmp_path / "run").rglob("replay_*"))
    Experiment.reload_from_file(str(tmp_path / "run" / "checkpoints" / "checkpoint_36"))
    log = (tmp_path / "run" / "run.log").read_text()
    assert "not exactly: the replay of 'adversary' starts empty: experiment.exclude_buf" in log


def test_another_number_of_threads_is_said(tmp_path, monkeypatch):
    experiment_of(case("mappo"), tmp_path / "run").run()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    Experiment.reload_from_file(str(tmp_path / "run" / "checkpoints" / "checkpoint_36"))
    log = (tmp_path / "run" / "run.log").read_text()
    assert "36 frames: resumed, not exactly: 5 instead of 1 threads take sums" in log
    assert "(OMP_NUM_THREADS=1 goes on exactly)" in log


def test_another_device_is_said_and_its_generators_are_left_alone(tmp_path, monkeypatch):
    experiment_of(case("mappo"), tmp_path / "run").run()

    def unfit(self, state):
        raise RuntimeError("RNG state is wrong size")

    monkeypatch.setattr(VectorEnv, "restore", unfit)
    monkeypatch.setattr("marl_td.training.resume.device_kind", lambda config, name: "cuda")
    resumed = Experiment.reload_from_file(str(tmp_path / "run" / "checkpoints" / "checkpoint_36"))
    log = (tmp_path / "run" / "run.log").read_text()
    assert "fresh episodes: experiment.sampling_device is cuda instead of cpu, which has" in log
    assert "evaluation has other episodes: experiment.sampling_device is cuda" in log
    assert "experiment.train_device is cuda instead of cpu, which has other random" in log
    resumed.run()


# ------------------------------------------------------------------------------- stops and restarts
class Send(Callback):
    """Sends this process a signal in an iteration."""

    def __init__(self, number, iteration=1):
        super().__init__()
        self.number, self.iteration = number, iteration

    def on_train_end(self, training_td, group):
        if self.experiment.n_iters_performed == self.iteration:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "stop"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_ends_the_run_after_the_iteration_with_a_checkpoint(tmp_path, number, stop):
    handler = signal.getsignal(number)
    experiment = short_experiment(tmp_path / "run", callbacks=[Send(number)])
    with pytest.raises(stop) as error:
        experiment.run()
    assert signal.getsignal(number) is handler
    assert [file.name for file in experiment.checkpoints.files()] == ["checkpoint_40"]
    if stop is Terminated:
        assert error.value.code == 143
    whole = short_experiment(tmp_path / "whole" / "run")
    again = Experiment.resume(tmp_path / "run")
    assert differences(outcome(whole)[0], outcome(again)[0]) == []


def test_a_second_ctrl_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    class Try(Callback):
        def on_train_end(self, training_td, group):
            half = self.experiment.checkpoints.begin()  # what a running process has not finished
            with pytest.raises(
                ValueError, match=r"another process is training in '.*run'; wait for"
            ):
                Experiment.resume(tmp_path / "run")
            assert half.folder.exists()
            self.experiment.checkpoints.abandon(half)

    overrides = ("experiment.checkpoint_interval=20",)
    short_experiment(tmp_path / "run", *overrides, callbacks=[Try()]).run()
    Experiment.resume(tmp_path / "run").close()


def test_a_finished_run_is_left_as_it_is(tmp_path):
    short_experiment(tmp_path / "run").run()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    again = Experiment.resume(tmp_path / "run")
    again.run()
    assert again.total_frames == 60
    assert {path: path.read_bytes() for path in before} == before


def test_a_longer_run_goes_on_and_keeps_its_new_length(tmp_path):
    short_experiment(tmp_path / "run").run()
    Experiment.resume(tmp_path / "run", {"max_n_frames": 100}).run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/total_frames"] for row in rows] == ["20", "40", "60", "80", "100"]
    assert Experiment.resume(tmp_path / "run").config.max_n_frames == 100


def test_rows_and_evaluations_after_the_checkpoint_are_made_again(tmp_path):
    overrides = ("experiment.create_json=true", "experiment.checkpoint_interval=20")
    first = short_experiment(tmp_path / "run", *overrides, "experiment.loggers=[csv]")
    first.run()
    json_file, csv_file = tmp_path / "run" / "run.json", next((tmp_path / "run").rglob("scalars/*"))
    before = json.loads(json_file.read_text()), csv_file.read_text()
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("20,80,3,0.")  # cut short
    Experiment.reload_from_file(str(tmp_path / "run" / "checkpoints" / "checkpoint_20")).run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/iter"] for row in rows] == ["0", "1", "2"]
    assert (json.loads(json_file.read_text()), csv_file.read_text()) == before


def test_tensorboard_shows_each_iteration_of_a_resumed_run_once(tmp_path):
    """Its reader, on a run that went on from its first checkpoint after it had written all three rows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def shown():
        reader = EventAccumulator(str(tmp_path / "run" / "run"), size_guidance={"scalars": 0})
        reader.Reload()
        names = [name for name in reader.Tags()["scalars"] if not name.startswith("timers")]
        return {name: [(x.step, x.value) for x in reader.Scalars(name)] for name in names}

    overrides = ("experiment.loggers=[tensorboard]", "experiment.checkpoint_interval=20")
    first = short_experiment(tmp_path / "run", *overrides)
    first.run()
    before = shown()
    assert before["counters_iter"] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert any(name.startswith("train_agents_loss") for name in before)
    Experiment.reload_from_file(str(tmp_path / "run" / "checkpoints" / "checkpoint_20")).run()
    assert shown() == before


def test_the_phase_of_delayed_steps_goes_on(tmp_path):
    """Three optimiser steps an iteration, every second one moves the actor: iterations differ by turns."""
    overrides = case("matd3", task=TAG)
    first = experiment_of(overrides, tmp_path / "run")
    outcome(first)
    again = Experiment.reload_from_file(str(tmp_path / "run" / "checkpoints" / "checkpoint_18"))
    hooks = [
        hook
        for optimiser in again.optimizers["agent"].values()
        for hook in optimiser._optimizer_step_pre_hooks.values()
    ]
    assert [hook.updater for hook in hooks] == [again.target_updaters["agent"]]
    assert hooks[0].updater.n_steps == 3


def test_a_checkpoint_of_other_networks_is_refused_before_anything_changes(tmp_path):
    short_experiment(tmp_path / "run").run()
    other = short_experiment(tmp_path / "other", "model.num_cells=[9]")
    before = everything(other.losses["agents"])
    folder = tmp_path / "run" / "checkpoints" / "checkpoint_60"
    from marl_td.training.checkpoint_folder import Checkpoint

    with pytest.raises(ValueError, match=r"does not fit this run's settings: '.*' is float32 \[8"):
        other.resumable.restore(Checkpoint(folder))
    assert differences(before, everything(other.losses["agents"])) == []


def test_there_must_be_something_to_go_on_from(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run folder: it has no config\.yaml"):
        Experiment.resume(tmp_path)
    short_experiment(tmp_path / "run", "experiment.checkpoint_at_end=false").run()
    with pytest.raises(ValueError, match="has no checkpoint to go on from: it ended before the f"):
        Experiment.resume(tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"checkpoint '.*nothing' is damaged: manifest.json cannot"
    ):
        Experiment.reload_from_file(str(tmp_path / "run" / "checkpoints" / "nothing"))


def test_the_best_are_saved_when_they_come(tmp_path):
    """Returns of a matrix game that is made to get worse after the second evaluation."""
    scores = iter([1.0, 3.0, 2.0])

    class Score(Callback):
        def on_train_end(self, training_td, group):
            self.experiment.test_env.base_env.task.score = lambda totals: torch.full(
                (4,), next(scores)
            )

    overrides = ("experiment.keep_best_checkpoints=1", "experiment.keep_checkpoints_num=1")
    experiment = short_experiment(tmp_path / "run", *overrides, callbacks=[Score()])
    experiment.run()
    assert [path.name for path in experiment.checkpoints.files()] == [
        "checkpoint_40",
        "checkpoint_60",
    ]
    assert list(experiment.checkpoints.scores().values()) == [3.0, 2.0]


def test_other_numbers_of_copies_are_no_reason_to_fail(tmp_path):
    short_experiment(tmp_path / "run", "experiment.checkpoint_interval=20").run()
    patch = {"evaluation_episodes": 3, "off_policy_n_envs_per_worker": 5}
    file = tmp_path / "run" / "checkpoints" / "checkpoint_20"
    Experiment.reload_from_file(str(file), patch).run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["eval/episodes"] for row in rows] == ["4", "3", "3"]
    log = (tmp_path / "run" / "run.log").read_text()
    assert "fresh episodes: the saved state is not one of 5 copies of 'matrix_game'" in log
    assert "evaluation has other episodes: the saved state is not one of 3 copies" in log


def test_on_policy_batches_of_another_length(tmp_path):
    """Their buffer is filled anew by each of them."""
    experiment_of(case("mappo"), tmp_path / "run").run()
    file = tmp_path / "run" / "checkpoints" / "checkpoint_36"
    resumed = Experiment.reload_from_file(str(file), {"on_policy_collected_frames_per_batch": 9})
    resumed.run()
    assert [len(buffer) for buffer in resumed.replay_buffers.values()] == [9, 9]
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [int(row["counters/total_frames"]) for row in rows] == [18, 36, 45, 54, 63, 72, 81, 90]
    log = (tmp_path / "run" / "run.log").read_text()
    for group in ("adversary", "agent"):
        assert f"minibatches of '{group}' are drawn otherwise: a batch was 18 items and is 9" in log


def test_batches_of_another_length_make_another_number_of_iterations(tmp_path):
    short_experiment(tmp_path / "run", "experiment.checkpoint_interval=20").run()
    file = tmp_path / "run" / "checkpoints" / "checkpoint_20"
    Experiment.reload_from_file(str(file), {"off_policy_collected_frames_per_batch": 10}).run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [int(row["counters/total_frames"]) for row in rows] == [20, 30, 40, 50, 60]
    assert (tmp_path / "run" / "run.log").read_text() == "20 frames: resumed exactly\n"


def test_a_replay_of_another_size_is_refused(tmp_path):
    short_experiment(tmp_path / "run").run()
    file = tmp_path / "run" / "checkpoints" / "checkpoint_60"
    with pytest.raises(ValueError, match=r"holds 100 items, this run's 90; keep the memory size"):
        Experiment.reload_from_file(str(file), {"off_policy_memory_size": 90})


def test_the_clock_saves_too_but_not_all_the_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("marl_td.training.resume.time.monotonic", lambda: now[0])
    experiment = short_experiment(tmp_path / "run")
    resumable = experiment.resumable
    assert not resumable.is_due(2.0)
    now[0] = 120.0
    assert resumable.is_due(2.0) and not resumable.is_due(None)
    resumable._took = 60.0  # a minute for a checkpoint: then every twenty minutes at most
    assert not resumable.is_due(2.0)
    now[0] = 1200.0
    assert resumable.is_due(2.0)
    experiment.close()
