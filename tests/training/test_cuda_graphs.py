"""Whole runs whose rollouts, advantages and updates are CUDA graphs.

Without a GPU the operations are recorded uncompiled, with the memory they work on (`tests/helpers/tape.py`):
what a graph would not notice (a number read on the host, a tensor that is replaced) makes another run of it.
"""

from __future__ import annotations

import pytest
import tape
import torch
from algorithm_cases import algorithm_cases
from benchmarl_runs import IGNORED
from short_runs import short_experiment

from marl_td.algorithms.ppo_family import PpoFamily
from marl_td.collect.nested import entries_of
from marl_td.models import compiling, cuda_graph
from marl_td.training.metrics import read_metrics

pytestmark = [
    *IGNORED,
    pytest.mark.filterwarnings("ignore:the update is not compiled. HATRPOLoss"),  # a line search
]

QUICK = (
    "mappo-continuous",
    "happo-discrete",
    "qmix-discrete",
    "matd3-continuous",
    "maddpg-discrete",
    "masac-continuous",
    "coma-discrete",
)
"""One of each kind of update; all the others are slow tests."""
CASES = algorithm_cases(lambda title: [] if title in QUICK else [pytest.mark.slow])
VARIANTS = {
    "memory": ("algorithm=marl_td/mappo", "model=layers/marl_td/gru", "algorithm.chunk_length=4"),
    "popart": ("algorithm=marl_td/mappo", "algorithm.value_norm=popart"),
    "priorities": (
        "algorithm=marl_td/qmix",
        "experiment.off_policy_use_prioritized_replay_buffer=true",
    ),
    "windows": (
        "algorithm=marl_td/qmix",
        "model=layers/marl_td/gru",
        "algorithm.sequence=window",
        "algorithm.window_length=2",
        "algorithm.burn_in=1",
    ),
    "shield": ("algorithm=marl_td/mappo", "task=marl_td/intersection"),
    "vmas": (
        "algorithm=marl_td/maddpg",
        "task=marl_td/vmas",
        "task.scenario=simple_spread",
        "experiment.prefer_continuous_actions=true",
    ),
}
LENGTH = (
    "experiment.compile=on",
    "experiment.evaluation=false",
    "experiment.max_n_frames=280",
    "experiment.on_policy_collected_frames_per_batch=40",
    "experiment.on_policy_n_envs_per_worker=10",
    "experiment.on_policy_minibatch_size=20",
    "experiment.on_policy_n_minibatch_iters=2",
    "experiment.off_policy_collected_frames_per_batch=40",
    "experiment.off_policy_n_envs_per_worker=10",
    "experiment.off_policy_init_random_frames=0",
)
"""Seven iterations: two as they are, one recorded, four more."""


@pytest.fixture
def uncompiled(monkeypatch):
    """What would be compiled runs as it is."""
    monkeypatch.setattr(compiling.torch, "compile", lambda function, **options: function)
    # TorchRL's own look at bounds, which graphs do not have.
    monkeypatch.setattr("torchrl.modules.distributions.continuous.is_compiling", lambda: True)


def run(folder, *settings):
    """A run in ``folder``."""
    recurrent = any(setting.startswith("model=") for setting in settings)
    without = ("model.num_cells", "critic_model.num_cells") if recurrent else ()
    folder.mkdir()
    experiment = short_experiment(folder, *LENGTH, *settings, without=without)
    experiment.run()
    return experiment


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are made."""
    found = []

    class Watched(cuda_graph.CudaGraph):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            found.append(self)

    monkeypatch.setattr(compiling, "CudaGraph", Watched)
    return found


@pytest.fixture
def both(uncompiled, graphs, monkeypatch, tmp_path):
    """``both(*settings)``: the same run without graphs and with them, recorded on the CPU."""

    def runs(*settings):
        expected = run(tmp_path / "plain", *settings)
        assert not graphs
        monkeypatch.setattr(cuda_graph, "record", tape.record)
        monkeypatch.setattr(compiling, "can_be_recorded", lambda args: True)
        return expected, run(tmp_path / "graphs", *settings)

    return runs


def told(experiment):
    """The rows of ``metrics.csv``, as text and without times."""
    rows = read_metrics(experiment.folder_name / "metrics.csv")
    return [{k: v for k, v in row.items() if not k.startswith("timers/")} for row in rows]


def learned(one, other):
    """Every tensor that losses hold, by name, in one experiment and in the other."""
    for group, loss in one.losses.items():
        theirs = other.losses[group].state_dict()
        for key, value in loss.state_dict().items():
            if torch.is_tensor(value):
                yield key, value, theirs[key]


def check(expected, found, graphs):
    """Each graph was recorded once; what was reported and learned is the same to the last bit."""
    assert [graph.what for graph in graphs if graph.n_recorded != 1] == []
    assert told(found) == told(expected)
    for key, theirs, ours in learned(expected, found):
        assert torch.equal(theirs, ours), key


def parts_of(experiment, name):
    """What of an algorithm's runs is compiled."""
    estimates = {"advantage estimate"} if isinstance(experiment.algorithm, PpoFamily) else set()
    updates = {"update"} if name != "hatrpo" else set()  # a line search of unknown length
    return {"rollout"} | estimates | updates


def settings_of(name, continuous):
    """Of an algorithm's run."""
    task = "simple_tag" if continuous else "simple_speaker_listener"
    prefer = f"experiment.prefer_continuous_actions={str(continuous).lower()}"
    return (f"algorithm=marl_td/{name}", f"task=marl_td/{task}", prefer)


@pytest.mark.parametrize(("name", "continuous"), CASES)
def test_a_run_of_graphs_is_the_run_without(name, continuous, both, graphs):
    expected, found = both(*settings_of(name, continuous))
    assert {graph.what for graph in graphs} == parts_of(expected, name)
    check(expected, found, graphs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_so_it_is_with(variant, both, graphs):
    expected, found = both("task=marl_td/recall", *VARIANTS[variant])
    assert {graph.what for graph in graphs} == parts_of(expected, "any")
    check(expected, found, graphs)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "continuous"), [("mappo", True), ("happo", False), ("matd3", True)]
)
def test_on_a_gpu_graphs_compute_what_their_kernels_do(
    name, continuous, graphs, monkeypatch, tmp_path
):
    devices = [f"experiment.{kind}_device=cuda" for kind in ("sampling", "train")]
    monkeypatch.setenv(cuda_graph.SWITCH, "0")
    expected = run(tmp_path / "plain", *settings_of(name, continuous), *devices)
    assert not graphs
    monkeypatch.setenv(cuda_graph.SWITCH, "1")
    found = run(tmp_path / "graphs", *settings_of(name, continuous), *devices)
    assert {graph.what for graph in graphs} == parts_of(expected, name)
    assert [graph.what for graph in graphs if graph.n_recorded != 1] == []
    for key, theirs, ours in learned(expected, found):
        # The order in which sums are taken there is not fixed.
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=key)
    _updates_do_not_wait(found)


def _updates_do_not_wait(experiment):
    """No update asks the GPU for anything; the beginning and the end of a batch's updates may."""
    update = next(iter(experiment._compiled_updates.values()))
    entries = entries_of(update.buffer.storage._storage)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            update._sample_and_step(entries)
    finally:
        torch.cuda.set_sync_debug_mode("default")
