"""Checks of the experiment around an algorithm, of its settings, and of the batches that it is given."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import torch
from benchmarl.algorithms.ensemble import EnsembleAlgorithmConfig
from benchmarl.experiment import Experiment
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from marl_td.algorithms.replay import batch_length

SUM = "episode_reward"
"""The sum of an episode's rewards: nothing learns from it, and it stays bad while they are good again."""
CONTINUOUS_ONLY = (
    "action_scale",
    "exploration_sigma",
    "scale_mapping",
    "target_entropy_scale",
    "target_noise",
    "target_noise_clip",
    "use_tanh_normal",
)
"""Settings that say something of continuous actions alone."""
DISCRETE_ONLY = (
    "coupled_discrete_values",
    "discrete_gradient",
    "discrete_target_entropy_weight",
    "gumbel_temperature",
)
"""Settings that say something of discrete actions alone."""
NETWORK_OUTPUTS = ("action", "log_prob", "logits", "loc", "scale", "parameter")


def check_ensemble(config: Any) -> None:
    """Refuse BenchMARL's own ensemble, which would train copies of our networks that nobody plays."""
    if type(config) is EnsembleAlgorithmConfig:
        raise ValueError(
            "BenchMARL's EnsembleAlgorithmConfig cannot hold algorithms of marl_td; take "
            "marl_td.algorithms.ensemble.EnsembleConfig, which has the same arguments."
        )


def check_models(experiment: Any) -> None:
    """Refuse one recurrent configuration for actor and critic, which BenchMARL marks as a critic's."""
    config = experiment.model_config
    if config is experiment.critic_model_config and config.is_rnn:
        raise ValueError(
            "model_config and critic_model_config are the same object, and BenchMARL marks it as the "
            "critic's: the policy's hidden states would be lost. Give a copy (copy.deepcopy) as one of them."
        )


def check_actions(algorithm: Any) -> None:
    """Refuse groups whose agents have other actions than one index or one vector each."""
    for group in algorithm.group_map:
        space = algorithm.action_spec[group, "action"]
        if not algorithm.is_continuous(group) and not hasattr(space.space, "n"):
            raise ValueError(
                f"group '{group}' has the action space {type(space).__name__}; one Categorical "
                "or one Box per agent is supported. Flatten the environment's action space."
            )


def warn_of_unused(experiment: Any) -> None:
    """Say which settings of ours BenchMARL's own experiment does not know."""
    names: list[str] = getattr(experiment.config, "unused", list)()
    if names and type(experiment) is Experiment:
        listed = ", ".join(f"experiment.{name}" for name in names)
        warnings.warn(
            f"{listed} has no effect in BenchMARL's own experiment; run `marl-td train` (or "
            "marl_td.training.experiment.Experiment), or leave it out.",
            stacklevel=2,
        )


def idle_settings(algorithm: Any) -> dict[str, str]:
    """Settings that, if the algorithm has them, change nothing in its experiment; and why."""
    idle: dict[str, str] = {}
    # Of an ensemble, the others' groups do not count.
    groups = [g for g in algorithm.group_map if algorithm.trainers.get(g, algorithm) is algorithm]
    if not any(map(algorithm.is_mortal, groups)):
        idle["mask_dead_values"] = "nobody dies in this task"
    if not any(map(algorithm.is_continuous, groups)):
        idle.update(dict.fromkeys(CONTINUOUS_ONLY, "all actions are discrete"))
    if all(map(algorithm.is_continuous, groups)):
        idle.update(dict.fromkeys(DISCRETE_ONLY, "all actions are continuous"))
    if not algorithm.experiment_config.off_policy_use_prioritized_replay_buffer:
        why = "experiment.off_policy_use_prioritized_replay_buffer is false"
        idle.update(dict.fromkeys(("priority_beta_end", "priority_eta"), why))
    elif not algorithm.has_rnn:
        idle["priority_eta"] = "single steps are replayed (no network is recurrent)"
    config = algorithm.config
    if getattr(config, "hypernet_layers", 2) == 1:
        idle["hypernet_embed"] = "hypernet_layers is 1"
    if getattr(config, "value_norm", "none") == "none":
        idle["value_norm_beta"] = "value_norm is none"
    return idle


def warn_of_idle(algorithm: Any) -> None:
    """Say which settings were given that change nothing (``algorithm.idle_settings``) or make no sense."""
    idle = algorithm.idle_settings()
    for field in dataclasses.fields(algorithm.config):
        why = idle.get(field.name)
        if why is None:
            continue
        value, default = getattr(algorithm.config, field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value != default:
            warnings.warn(
                f"algorithm.{field.name}={value} has no effect here: {why}.", stacklevel=2
            )
    if not algorithm.on_policy:
        _warn_of_little_memory(algorithm.experiment_config)


def _warn_of_little_memory(settings: Any) -> None:
    """Say where a replay holds less than is put into it, or taken from it, at once."""
    stored, sampled = settings.off_policy_memory_size, settings.off_policy_train_batch_size
    if stored < sampled:
        warnings.warn(
            f"experiment.off_policy_memory_size={stored} is less than "
            f"experiment.off_policy_train_batch_size={sampled}, so that minibatches hold the same steps "
            "several times; set a larger memory or a smaller batch.",
            stacklevel=3,
        )
    collected = batch_length(settings, on_policy=False)
    if stored < collected:
        warnings.warn(
            f"experiment.off_policy_memory_size={stored} is less than the {collected} steps that are "
            "collected at once, so that not all of them are kept; set a larger memory, or collect fewer "
            "(experiment.off_policy_collected_frames_per_batch).",
            stacklevel=3,
        )


def check_finite(batch: TensorDictBase) -> None:
    """Raise if any floating entry of a collected batch is NaN or infinite, naming key and index.

    One host synchronisation per collected batch.
    """
    key = nonfinite_entry(batch)
    if key is None:
        return
    value = batch.get(key)
    where = (~value.isfinite()).nonzero()[0].tolist()
    name = key if isinstance(key, str) else ".".join(key)
    raise ValueError(
        f"'{name}' is {value[tuple(where)].item()} at index {where} (environment, step, ...) "
        "of the collected batch. Look at the environment's outputs for this entry, or lower "
        "the learning rate if it is an action or log-probability."
    )


def nonfinite_entry(batch: TensorDictBase) -> NestedKey | None:
    """The key of a floating entry of a collected batch that is NaN or infinite somewhere; None if none is.

    What the environment gave comes before what a network made of it. One host synchronisation.
    """
    floats = {
        key: value
        for key, value in batch.items(include_nested=True, leaves_only=True)
        if value.is_floating_point() and key != SUM and key[-1] != SUM
    }
    # A sum is finite only if all its terms are, and is the quickest look at them; it may overflow, too.
    if bool(torch.stack([value.sum() for value in floats.values()]).isfinite().all()):
        return None
    bad = [key for key, value in floats.items() if not bool(value.isfinite().all())]
    if not bad:
        return None
    # What the environment gave is the cause, what a network made of it the consequence.
    return min(bad, key=lambda key: (key if isinstance(key, str) else key[-1]) in NETWORK_OUTPUTS)
