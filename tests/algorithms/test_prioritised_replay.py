"""Prioritised replay in whole runs: the right priority reaches the sampler, weights reach the loss."""

import pytest
import torch
from benchmarl.experiment import Callback
from benchmarl_runs import IGNORED, STATEFUL, small_run
from short_runs import short_experiment
from torchrl.data import TensorDictReplayBuffer

from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.episode_replay import EpisodeReplayBuffer
from marl_td.collect.prioritised import ProportionalSampler
from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.losses.functional.priorities import sequence_priority
from marl_td.registry import ALGORITHMS, algorithm_config

# All runs are given ETA, those of single steps in vain, which is said (see test_idle_settings.py).
pytestmark = [*IGNORED, pytest.mark.filterwarnings("ignore:algorithm.priority_eta")]

ETA = 0.75
DISCRETE = {"prefer_continuous_actions": False}


class Watch(Callback):
    """Compares what the sampler holds after each optimiser step with the errors in the minibatch."""

    def __init__(self, sequences: bool, burn_in: int = 0) -> None:
        super().__init__()
        self.sequences = sequences
        self.burn_in = burn_in
        self.n_steps = 0
        self.weights: list[torch.Tensor] = []

    def on_train_step(self, batch, group):
        sampler = self.experiment.replay_buffers[group].sampler
        error = batch[group, "td_error"]
        index = batch["index"]
        if self.sequences:
            real = batch.get("step_mask", torch.ones(*batch.shape, 1, dtype=torch.bool))
            error = error.reshape(*batch.shape, -1).mean(-1)[:, self.burn_in :]
            expected = sequence_priority(error, real.squeeze(-1)[:, self.burn_in :], eta=ETA)
            index = index[:, 0]
        else:
            expected = error.reshape(*batch.shape, -1).mean(-1)
        mass = (expected.double() + sampler._eps) ** sampler.alpha
        # One of an item's own, where it was drawn twice (ROMA draws other roles each time).
        same = index.unsqueeze(-1) == index
        close = torch.isclose(sampler.priorities()[index].unsqueeze(-1), mass)
        assert (same & close).any(-1).all()
        self.weights.append(batch["priority_weight"])
        self.n_steps += 1


def prioritised_run(folder, name, callback, algorithm=None, **settings):
    options = {"priority_eta": ETA, **(algorithm or {})}
    return small_run(
        folder,
        algorithm_config(name)(**options),
        MarlTdTask.TWO_STEP.get_from_yaml(),
        callbacks=[callback],
        off_policy_use_prioritized_replay_buffer=True,
        **DISCRETE,
        **settings,
    )


RUNS = [
    *(
        pytest.param(name, {}, {}, id=name)
        for name in ALGORITHMS
        if not algorithm_config(name).on_policy()
    ),
    pytest.param("qmix", {"lmbda": 0.5}, {}, id="qmix, episodes"),
    pytest.param("iql", {}, {"model": STATEFUL}, id="iql, GRU"),
    pytest.param(
        "qmix",
        {"sequence": "window", "window_length": 1, "burn_in": 1},
        {"model": STATEFUL},
        id="qmix, GRU, windows",
    ),
    pytest.param("maddpg", {}, {"model": STATEFUL}, id="maddpg, GRU"),
]


@pytest.mark.parametrize(("name", "algorithm", "settings"), RUNS)
def test_the_priority_reaches_the_sampler(name, algorithm, settings, tmp_path):
    """In unchanged BenchMARL: after every optimiser step what was sampled has its own errors' priority."""
    sequences = bool(algorithm or settings)
    watch = Watch(sequences, algorithm.get("burn_in", 0))
    run = prioritised_run(tmp_path, name, watch, algorithm, **settings)
    buffer = run.replay_buffers["agents"]
    assert isinstance(buffer.sampler, ProportionalSampler)
    kind = TensorDictReplayBuffer
    if sequences and name != "maddpg":
        kind = WindowReplayBuffer if "sequence" in algorithm else EpisodeReplayBuffer
    assert type(buffer) is kind
    run.run()
    assert watch.n_steps == 4
    assert buffer.sampler.beta == 1.0
    assert watch.weights[-1].min() < 1.0 == watch.weights[-1].max()
    assert len(buffer.sampler.priorities().unique()) > 3


@pytest.mark.parametrize("name", ["qmix", "maddpg"])
def test_importance_weights_change_what_is_learned(name, tmp_path):
    """The same draws with and without weights: other parameters of the value, the same of MADDPG's actor."""
    after = []
    for beta in (0.0, 1.0):
        folder = tmp_path / str(beta)
        folder.mkdir()
        watch = Watch(sequences=False)
        options = {"off_policy_prb_beta": beta, "max_n_iters": 1}
        run = prioritised_run(folder, name, watch, {"priority_beta_end": beta}, **options)
        buffer = run.replay_buffers["agents"]
        batch = next(iter(run.collector))
        run._on_batch_collected(batch)
        buffer.extend(run.algorithm.process_batch("agents", batch).reshape(-1))
        buffer.update_priority(torch.arange(len(buffer)), torch.linspace(0.1, 5.0, len(buffer)))
        sample = buffer.sample()
        out = run.losses["agents"](sample)
        after.append({key: float(out[key].detach()) for key in out.keys() if "loss" in key})
    assert after[0]["loss_value"] != after[1]["loss_value"]
    if name == "maddpg":
        assert after[0]["loss_actor"] == after[1]["loss_actor"]


def test_our_experiment_resumes_the_priorities(tmp_path):
    settings = (
        "experiment.off_policy_use_prioritized_replay_buffer=true",
        "experiment.off_policy_prb_alpha=0.8",
        "experiment.off_policy_prb_beta=0.2",
        "experiment.exclude_buffer_from_checkpoint=false",
    )
    run = short_experiment(tmp_path / "run", *settings)
    run.run()
    saved = run.checkpoints.files()[-1]
    again = type(run).reload_from_file(str(saved))
    ours, loaded = (each.replay_buffers["agents"].sampler for each in (run, again))
    assert ours.alpha == 0.8
    assert ours.beta == 1.0
    mine, theirs = ours.state_dict(), loaded.state_dict()
    assert torch.equal(mine.pop("_tree"), theirs.pop("_tree"))
    assert mine == theirs


@pytest.mark.parametrize("field", ["priority_eta", "priority_beta_end"])
def test_settings_out_of_range_are_named(field):
    for name in ("qmix", "maddpg"):
        with pytest.raises(ValueError, match=rf"{field} must be in \[0, 1\]; got 1.5"):
            algorithm_config(name)(**{field: 1.5})
