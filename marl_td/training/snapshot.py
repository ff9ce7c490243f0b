"""Everything that a run needs to go on to the last bit, as tensors and plain values, and back.

Networks with their targets, normalisers, temperatures and exploration (all in parameters and buffers),
optimisers, counters of delayed steps, replay, environments, collector, random streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marl_td.collect.rng import rng_snapshot
from marl_td.collect.saving import collector_snapshot, env_snapshot
from marl_td.training.tensor_files import require_alike

RESTART_SEED_OFFSET = 7_000_003
"""Environments that start afresh are seeded with the run's seed, this, and the frames so far."""
COUNTERS = ("total_time", "total_frames", "n_iters_performed", "mean_return", "_shown")
"""Attributes of an experiment."""
COMPUTES = ("sampling_device", "train_device")
"""Settings that say where a run computes."""


def device_kind(config: Any, name: str) -> str:
    """What kind of device a setting names, such as ``cuda`` for ``cuda:1``."""
    return torch.device(getattr(config, name)).type


def snapshot(experiment: Any, restarts: str | None) -> dict[str, Any]:
    """The state of an experiment between two iterations, without the rows of its replay.

    Args:
        experiment: a :class:`~marl_td.training.experiment.Experiment`.
        restarts: why its environments will start fresh episodes; None if they go on exactly.
    """
    callbacks: dict[str, Any] = {}
    experiment._on_state_dict(callbacks)
    return {
        "counters": {name: getattr(experiment, name) for name in COUNTERS},
        "tensors": dict(named_tensors(experiment)),
        "optimisers": {
            group: {name: optimiser.state_dict() for name, optimiser in optimisers.items()}
            for group, optimisers in experiment.optimizers.items()
        },
        "target_steps": {
            group: getattr(updater, "n_steps", None)
            for group, updater in experiment.target_updaters.items()
        },
        "compiled_updates": {
            **experiment.restored_updates,
            **{
                group: None if update is None else update.snapshot()
                for group, update in experiment._compiled_updates.items()
            },
        },
        "callbacks": callbacks,
        "memories": {group: memory.snapshot() for group, memory in _memories(experiment).items()},
        "restarts": restarts,
        "collector": collector_snapshot(experiment.collector),
        "test_env": env_snapshot(experiment.test_env),
        "compiled_evaluation": _compiled_evaluation(experiment),
        "rng": rng_snapshot(),
        "threads": torch.get_num_threads(),
        "devices": {name: device_kind(experiment.config, name) for name in COMPUTES},
    }


def restore(experiment: Any, state: Mapping[str, Any], path: Path) -> None:
    """Put back what is learned: networks, optimisers, counters.

    Replay, environments and random streams are put back by
    :class:`~marl_td.training.resume.Resumable`.

    Raises:
        ValueError: if the state is not one of these settings; nothing has been changed then.
    """
    own = named_tensors(experiment)
    require_alike(state["tensors"], own, path)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state["tensors"][name])
    for group, optimisers in experiment.optimizers.items():
        for name, optimiser in optimisers.items():
            optimiser.load_state_dict(state["optimisers"][group][name])
    for group, updater in experiment.target_updaters.items():
        if hasattr(updater, "n_steps"):
            updater.n_steps = state["target_steps"][group]
    for group, memory in _memories(experiment).items():
        memory.restore(state["memories"].get(group, []), experiment.config.train_device)
    experiment._on_load_state_dict(dict(state["callbacks"]))
    for name in COUNTERS:
        setattr(experiment, name, state["counters"][name])


def named_tensors(experiment: Any) -> dict[str, Tensor]:
    """Every parameter and buffer of losses and policy, each once."""
    modules: dict[str, nn.Module] = {f"loss.{g}": loss for g, loss in experiment.losses.items()}
    modules["policy"] = experiment.policy
    found: dict[str, Tensor] = {}
    seen: set[Any] = set()
    for part, module in modules.items():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            place = (tensor.data_ptr(), tensor.shape, tensor.stride())
            if tensor.numel() and place in seen:
                continue
            seen.add(place)
            found[f"{part}.{name}"] = tensor.detach()
    return found


def _memories(experiment: Any) -> dict[str, Any]:
    """What recurrent critics carry from one batch to the next, by group."""
    members = getattr(experiment.algorithm, "algorithms_map", {"": experiment.algorithm})
    found: dict[str, Any] = {}
    for algorithm in members.values():
        found.update(getattr(algorithm, "memories", {}))
    return found


def _compiled_evaluation(experiment: Any) -> dict[str, Any] | None:
    """Where the compiled evaluation is, whose environment may be another than ``test_env``."""
    episodes = experiment.compiled_episodes
    return None if episodes is None else dict(episodes.collector.snapshot())
