"""Checks of settings before anything is built: every message names the field and a remedy."""

from __future__ import annotations

import dataclasses
import difflib
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
from benchmarl.algorithms import (
    EnsembleAlgorithmConfig,
    IqlConfig,
    QmixConfig,
    VdnConfig,
    algorithm_config_registry,
)
from benchmarl.models.common import SequenceModelConfig
from tensordict.nn.utils import _MAPPINGS, mappings

from marl_td.algorithms.mat import MatConfig
from marl_td.algorithms.value_based import ValueBasedConfig
from marl_td.field_types import check_type, field_types, is_array_for, plain
from marl_td.registry import action_kinds
from marl_td.training import extras
from marl_td.training.checkpoint_folder import Checkpoint
from marl_td.training.devices import check_devices

POSITIVE = (
    "lr",
    "adam_eps",
    "clip_grad_val",
    "hard_target_update_frequency",
    "max_n_iters",
    "max_n_frames",
    "on_policy_collected_frames_per_batch",
    "on_policy_n_envs_per_worker",
    "on_policy_n_minibatch_iters",
    "on_policy_minibatch_size",
    "off_policy_collected_frames_per_batch",
    "off_policy_n_envs_per_worker",
    "off_policy_n_optimizer_steps",
    "off_policy_train_batch_size",
    "off_policy_memory_size",
    "evaluation_interval",
    "evaluation_episodes",
)
"""Experiment settings that must be above 0 (where they are set at all)."""
FRACTIONS = (
    "gamma",
    "polyak_tau",
    "exploration_eps_init",
    "exploration_eps_end",
    "off_policy_prb_beta",
)
"""Experiment settings that must lie in [0, 1]."""


LOGGERS = {
    "csv": "",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Trackers of TorchRL, and the package that each needs."""


WITHOUT_CRITICS = (ValueBasedConfig, MatConfig, IqlConfig, QmixConfig, VdnConfig)
"""Settings of the algorithms that make no network of ``critic_model``, BenchMARL's own among them."""


def check_settings(settings: Any) -> None:
    """Check that the experiment's numbers make sense and that algorithm and task fit together.

    Raises:
        ValueError: naming the setting, its value and what would do.
    """
    check_experiment(settings.experiment_config)
    check_algorithm(settings.algorithm_config)
    check_model("model", settings.model_config)
    check_model("critic_model", settings.critic_model_config)
    check_actions(
        settings.algorithm, settings.algorithm_config, settings.task, settings.task_config
    )


def warn_of_idle_critic(settings: Any, overrides: Sequence[str]) -> None:
    """Say that the kind of the critic's network was chosen where none is made.

    Sizes alone (``critic_model.num_cells``) are left in peace: scripts give them to all that they compare.
    """
    given = [
        override
        for override in overrides
        if override.partition("=")[0].strip().rpartition("@")[2] == "critic_model"
    ]
    if given and isinstance(settings.algorithm_config, WITHOUT_CRITICS):
        warnings.warn(
            f"{', '.join(given)} has no effect here: {settings.algorithm} makes no network of critic_model.",
            stacklevel=2,
        )


def check_experiment(config: Any) -> None:
    """Check types and ranges of the experiment's settings, and that its devices are here."""
    check_values("experiment", config)
    for name in POSITIVE:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ValueError(f"experiment.{name} must be above 0; got {value}.")
    for name in FRACTIONS:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"experiment.{name} must lie in [0, 1]; got {value}.")
    if config.max_n_frames is None and config.max_n_iters is None:
        raise ValueError(
            "experiment.max_n_frames and experiment.max_n_iters are both null; set one of them, "
            "it is the length of the run."
        )
    if config.collect_with_grad:
        raise ValueError(
            "experiment.collect_with_grad=true is not offered here; run this configuration with "
            "`python -m benchmarl.run`, or set it to false."
        )
    check_devices(config)


def check_loggers(names: Sequence[str]) -> None:
    """Check the trackers of a run that is to be trained.

    Raises:
        ValueError: for a name that there is not.
        ImportError: for a tracker whose package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            near = difflib.get_close_matches(str(name), LOGGERS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(
                f"experiment.loggers: there is no logger '{name}'; there are {', '.join(LOGGERS)}.{hint}"
            )
        package = LOGGERS[name]
        if package and not extras.is_installed(package):
            tracked = package in extras.EXTRAS["track"]
            remedy = extras.install_command("track") if tracked else f"pip install {package}"
            raise ImportError(
                f"experiment.loggers: '{name}' needs the package '{package}', which is not installed; get "
                f"it with: {remedy}"
            )


def check_values(place: str, settings: Any) -> None:
    """Check the types of a dataclass's values: they may have been assigned after it was made.

    A field that was left at its default is its author's affair, whatever is annotated.
    """
    hints = field_types(type(settings))
    for field in dataclasses.fields(settings):
        given, kind = getattr(settings, field.name, None), hints[field.name]
        if not field.init or given is field.default or is_array_for(given, kind):
            continue
        in_files = str(given) if isinstance(given, torch.device | PurePath) else plain(given)
        check_type(f"{place}.{field.name}", in_files, kind)


def check_algorithm(config: Any, place: str = "algorithm") -> None:
    """Check the types of an algorithm's settings, and that a mapping that they name exists."""
    if isinstance(config, EnsembleAlgorithmConfig):
        for group, own in config.algorithm_configs_map.items():
            check_algorithm(own, f"{place}.{group}")
        return
    check_values(place, config)
    check_mapping(config, place)


def check_mapping(config: Any, place: str) -> None:
    """Check how a policy makes its standard deviation, where it has one."""
    name = getattr(config, "scale_mapping", None)
    if name is None:
        return
    try:
        usable = bool(mappings(name)(torch.zeros(())).isfinite())
    except (NotImplementedError, ValueError):  # which of them depends on how the name starts
        usable = False
    if not usable:
        raise ValueError(
            f"{place}.scale_mapping: there is no mapping '{name}'; there are "
            f"{', '.join(sorted(_MAPPINGS))}, and biased_softplus_BIAS with a number, such as "
            "biased_softplus_1.0."
        )


def check_longer(checkpoint: Path, asked: int | None, own: int | None) -> None:
    """Check that a run that goes on is not to end before where it is.

    Args:
        checkpoint: where it goes on.
        asked: frames that are asked for; None if nothing is.
        own: frames that it was to have, which may be asked for again.

    Raises:
        ValueError: if it has more than are asked for.
    """
    if asked is None or asked == own or not checkpoint.is_dir():
        return
    n_frames = Checkpoint(checkpoint).summary.frames
    if asked < n_frames:
        raise ValueError(
            f"'{checkpoint.parent.parent}' already has {n_frames} frames, more than "
            f"experiment.max_n_frames={asked}: ask for more, or leave the setting out."
        )


def check_model(name: str, model: Any) -> None:
    """Check the types of a model's settings, and that its layers' sizes are above 0."""
    if isinstance(model, SequenceModelConfig):
        for index, layer in enumerate(model.model_configs, start=1):
            check_model(f"{name}.layers.l{index}", layer)
        check_values(name, model)
        return
    for field, kind in field_types(type(model)).items():
        if typing.get_origin(kind) is not Sequence or typing.get_args(kind) != (int,):
            continue
        sizes = getattr(model, field)
        is_list = isinstance(sizes, list | tuple)
        if not is_list or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(
                f"{name}.{field} must be a list of sizes above 0 such as [64,64]; got {sizes!r}."
            )
    check_values(name, model)


def check_actions(algorithm: str, algorithm_config: Any, task: str, task_config: Any) -> None:
    """Check that the algorithm can learn a kind of action that the task has, or all that its agents have."""
    offered, learned = set(action_kinds(task_config)), set(action_kinds(algorithm_config))
    needed: set[str] = getattr(task_config, "needed_actions", set())
    if offered & learned and needed <= learned:
        return
    kinds = {
        name: set(action_kinds(config))
        for name, config in algorithm_config_registry.items()
        if name.startswith("marl_td/")
    }
    fitting = [name for name, found in kinds.items() if found & offered and needed <= found]
    both = " and " if len(needed) > 1 else " or "
    raise ValueError(
        f"algorithm '{algorithm}' learns {' or '.join(sorted(learned))} actions, but task '{task}' has "
        f"{both.join(sorted(offered))} ones{'' if len(needed) > 1 else ' only'}; take one of "
        f"{', '.join(fitting)}."
    )
