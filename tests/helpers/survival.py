"""Tiny runs of every algorithm family, and whether two of them ended in the same state to the last bit."""

import csv
import json
import math
from pathlib import Path

import torch
from benchmarl.algorithms import algorithm_config_registry
from tensordict import TensorDictBase

import marl_td
from marl_td.collect.nested import entries_of
from marl_td.registry import algorithm_config
from marl_td.training.check import WITHOUT_CRITICS
from marl_td.training.compose import compose
from marl_td.training.experiment import Experiment
from marl_td.training.snapshot import snapshot

SETTINGS = {
    "model.num_cells": "[8]",
    "critic_model.num_cells": "[8]",
    "experiment.compile": "off",
    "experiment.max_n_frames": "90",
    "experiment.on_policy_collected_frames_per_batch": "18",
    "experiment.on_policy_n_envs_per_worker": "3",
    "experiment.on_policy_n_minibatch_iters": "2",
    "experiment.on_policy_minibatch_size": "5",
    "experiment.off_policy_collected_frames_per_batch": "18",
    "experiment.off_policy_n_envs_per_worker": "3",
    "experiment.off_policy_n_optimizer_steps": "3",
    "experiment.off_policy_train_batch_size": "6",
    "experiment.off_policy_memory_size": "40",
    "experiment.evaluation_interval": "36",
    "experiment.evaluation_episodes": "2",
    "experiment.checkpoint_interval": "18",
    "experiment.keep_checkpoints_num": "null",
    "experiment.create_json": "true",
    "experiment.lr": "0.01",
    "experiment.lr_end": "0.1",
}
"""Five iterations: episodes end inside batches, the replay goes round, schedules move."""

TAG = {"task": "marl_td/simple_tag", "task.max_steps": "7"}
SPREAD = {"task": "marl_td/simple_spread", "task.max_steps": "7"}
DISCRETE = {"experiment.prefer_continuous_actions": "false"}
NO_SIZES = {"model.num_cells": None, "critic_model.num_cells": None}
GRU = {
    **NO_SIZES,
    "model": "layers/marl_td/gru",
    "critic_model": None,
    "model@critic_model": "layers/marl_td/gru",
    "model.hidden_size": "4",
    "critic_model.hidden_size": "4",
    "task.max_steps": "5",
}


VMAS = {
    "task": "marl_td/vmas",
    "task.scenario": "navigation",
    "task.n_agents": None,
    "task.max_steps": "7",
}
BALANCE = {"task": "vmas/balance", "task.max_steps": "7"}
MPE = {"task": "marl_td/mpe", "task.max_steps": "7"}
PRIORITISED = {"experiment.off_policy_use_prioritized_replay_buffer": "true"}
ON_DISK = {"experiment.buffer_device": "disk"}


def case(algorithm, task=TAG, **changes):
    """Overrides of a tiny run."""
    merged = {"algorithm": f"marl_td/{algorithm}", **SETTINGS, **task}
    for name, value in changes.items():
        merged.update(value) if isinstance(value, dict) else merged.update({name: value})
    if issubclass(algorithm_config(algorithm), WITHOUT_CRITICS):  # they would be warned of
        merged = {name: value for name, value in merged.items() if "critic_model" not in name}
    return [f"{name}={value}" for name, value in merged.items() if value is not None]


FEW = {
    "mappo gru": case("mappo", x=GRU),
    "happo gru": case("happo", x=GRU),
    "belief_ppo": case("belief_ppo"),
    "qmix windows by priority": case(
        "qmix", x={**GRU, **PRIORITISED, "algorithm.sequence": "window"}
    ),
    "maddpg by priority on disk": case("maddpg", x={**PRIORITISED, **ON_DISK}),
    "matd3 delayed": case("matd3"),
    "masac discrete": case("masac", x=DISCRETE),
    "vmas mappo": case("mappo", task=VMAS),
    "benchmarl's vmas maddpg": case("maddpg", task=BALANCE),
}
"""Every kind of state at least once."""

MORE = {
    "qmix by priority gru": case("qmix", x={**GRU, **PRIORITISED}),
    "vdn on disk gru": case("vdn", x={**GRU, **ON_DISK}),
    "maddpg ensemble": case("maddpg", x={"algorithm.ensemble_size": "2"}),
    "maddpg inferring": case("maddpg", x={"algorithm.infer_policies": "true"}),
    "mappo discrete": case("mappo", x=DISCRETE),
    "maddpg discrete": case("maddpg", x=DISCRETE),
    "mappo unshared": case("mappo", x={"experiment.share_policy_params": "false"}),
    "mappo popart": case("mappo", x={"algorithm.value_norm": "popart"}),
    "maddpg from random": case("maddpg", x={"experiment.off_policy_init_random_frames": "36"}),
    "qmix hard targets": case("qmix", x={"experiment.soft_target_update": "false"}),
    "vmas qmix gru": case("qmix", task=VMAS, x=GRU),
    "mpe maddpg": case("maddpg", task=MPE),
    "mpe mappo gru": case("mappo", task=MPE, x=GRU),
}


def every_case():
    """All algorithms with and without memory, and the variants above."""
    marl_td.register()
    names = [name.removeprefix("marl_td/") for name in algorithm_config_registry]
    names = [
        name for name in names if "/" not in name and f"marl_td/{name}" in algorithm_config_registry
    ]
    plain = {name: case(name) for name in names}
    recurrent = {f"{name} gru": case(name, x=GRU) for name in names}
    return {**plain, **recurrent, **FEW, **MORE}


def experiment_of(overrides, folder, callbacks=None):
    """An experiment of ``overrides`` in ``folder``."""
    settings = compose(overrides)
    settings.experiment_config.save_folder = str(folder)
    return Experiment(**settings.arguments(), callbacks=callbacks)


def outcome(experiment):
    """Run it to its end; returns what :func:`bits` and :func:`everything` find there."""
    experiment.close = lambda: None  # closing throws the collector's state away
    experiment.run()
    del experiment.close
    found = bits(experiment), everything(experiment)
    experiment.close()
    return found


def bits(experiment):
    """All that must be equal, flat: the state, the replay, metrics and evaluations on the disk."""
    state = snapshot(experiment, None)
    del state["counters"]["total_time"]
    out = dict(_flat(state, "state"))
    for group, buffer in experiment.replay_buffers.items():
        if len(buffer):
            stored = buffer.storage._storage
            for key, value in entries_of(stored).items():
                out[f"replay.{group}.{key}"] = value[: len(buffer)].clone()
    folder = Path(experiment.folder_name)
    out["metrics"] = metrics_of(folder)
    for path in folder.glob("*.json"):
        out["json"] = json.loads(path.read_text())
        out["json"] = next(iter(out["json"].values()))
    return out


def metrics_of(folder):
    """The rows of ``metrics.csv`` without the timers."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("timers/")} for row in rows]


def _flat(value, place):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{place}.{key}")
    elif isinstance(value, list) and place.endswith(("entries", "shapes", "keys")):
        for i, item in enumerate(sorted(value, key=lambda pair: str(pair[0]))):
            yield from _flat(item, f"{place}.{i}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _flat(item, f"{place}.{i}")
    elif isinstance(value, torch.Tensor):
        yield place, value.detach().clone()
    else:
        yield place, value


def differences(one, other):
    """Names of what differs in two results of :func:`bits`."""
    names = sorted(set(one) | set(other))
    return [n for n in names if n not in one or n not in other or not same(one[n], other[n])]


def same(one, other):
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype
        return alike and torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


# --------------------------------------------------------------------------------- what a snapshot forgot
FOLLOWED = ("marl_td", "benchmarl", "torchrl", "vmas", "losses", "tasks")
TIMES = {"seconds", "total_time", "_iteration_started"}
PLACES = {
    "config",
    "folder_name",
    "name",
    "checkpoints",
    "resumable",
    "history",
    "logger",
    "restored_updates",
    "env_func",
    "_final_rollout",
    "test_env",
    "_remaining_batches",
}
"""Attributes that tell where a run lies, or that are looked at elsewhere."""


def everything(root):
    """Every tensor and number that can be reached from an object, by the shortest way to it."""
    found, seen, ends = {}, set(), [("", root)]
    while ends:
        place, value = ends.pop(0)
        if isinstance(value, torch.Tensor):
            if not value.is_meta:
                found[place] = value.detach().clone()
        elif isinstance(value, bool | int | float):
            found[place] = value
        elif isinstance(value, tuple) or id(value) not in seen:
            seen.add(id(value))
            inside = sorted(_inside(value), key=lambda pair: str(pair[0]))
            ends += [(f"{place}.{name}", item) for name, item in inside]
    return found


def _inside(value):
    if isinstance(value, TensorDictBase):
        return [(str(key), item) for key, item in value.items(True, True)]
    if isinstance(value, dict):
        names = [key if isinstance(key, str) else f"#{i}" for i, key in enumerate(value)]
        return list(zip(names, value.values(), strict=True))
    if isinstance(value, list | tuple | set):
        return list(enumerate(value))
    module = type(value).__module__.partition(".")[0]
    known = module in FOLLOWED or type(value).__module__.startswith("torch.optim")
    if (known or isinstance(value, torch.nn.Module)) and hasattr(value, "__dict__"):
        return [
            (name, item)
            for name, item in vars(value).items()
            if name not in TIMES and name not in PLACES
        ]
    return []
