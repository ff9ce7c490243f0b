"""Experiments with one batch in their buffers, for compiled updates beside BenchMARL's."""

from __future__ import annotations

import copy

import torch
from benchmarl_runs import small_run

from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.training.update import Clip, CompiledUpdate

SETTINGS = {"lr": 3e-3, "adam_eps": 1e-2, "clip_grad_val": 0.5, "polyak_tau": 0.1}
"""A large epsilon: Adam divides by it where gradients are float noise, whose signs mean nothing."""


def filled(folder, algorithm, task=None, **settings):
    """An experiment whose buffer holds one batch."""
    task = task or MarlTdTask.TWO_STEP.get_from_yaml()
    experiment = small_run(folder, algorithm, task, **{**SETTINGS, **settings})
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    data = experiment.algorithm.process_batch("agents", batch)
    rows = data if experiment.algorithm.has_rnn else data.reshape(-1)
    experiment.replay_buffers["agents"].extend(rows)
    return experiment


def update_of(experiment, backend="aot_eager"):
    """The compiled update of its only group."""
    config = experiment.config
    return CompiledUpdate(
        experiment.losses["agents"],
        experiment.optimizers["agents"],
        experiment.target_updaters["agents"],
        experiment.replay_buffers["agents"],
        clip=Clip(config.clip_grad_val, config.clip_grad_norm),
        device="cpu",
        backend=backend,
    )


def tensors(experiment):
    """Copies of all parameters, buffers and optimiser states."""
    found = {
        key: value.clone()
        for key, value in experiment.losses["agents"].state_dict().items()
        if torch.is_tensor(value)
    }
    for name, optimiser in experiment.optimizers["agents"].items():
        for index, state in optimiser.state_dict()["state"].items():
            found.update({f"{name}.{index}.{key}": value.clone() for key, value in state.items()})
    return found


def both(folder, algorithm, **settings):
    """Two experiments with the same parameters and the same data."""
    runs = []
    for name in ("ours", "theirs"):
        (folder / name).mkdir()
        runs.append(filled(folder / name, algorithm, **settings))
    ours, theirs = runs
    theirs.losses["agents"].load_state_dict(copy.deepcopy(ours.losses["agents"].state_dict()))
    storages = [run.replay_buffers["agents"].storage for run in runs]
    storages[1]._storage = storages[0]._storage.clone()
    return ours, theirs
