"""A trained policy back from its run folder, with an environment to run it in."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarl.utils import seed_everything
from torchrl.envs import EnvBase

from marl_td.collect.rng import isolated_rng
from marl_td.training.check import check_settings
from marl_td.training.devices import move_to_what_is_here
from marl_td.training.extras import require_simulator
from marl_td.training.policy_files import load_weights, weights_size
from marl_td.training.settings import CONFIG_FILE, RunSettings
from marl_td.training.settings_file import require_room
from marl_td.training.setup import RunSetup


@dataclass
class TrainedRun:
    """What a run folder holds: settings, the trained policy, an environment of ``n_envs`` copies."""

    settings: RunSettings
    policy: Any
    env: EnvBase


class _PolicyOnly(RunSetup):
    """An experiment that stops after policy and evaluation environment; it writes no file."""

    def _setup(self) -> None:
        seed_everything(self.seed)
        self._perform_checks()
        self._set_action_type()
        self._setup_name()
        self._setup_task()
        self.algorithm = self.algorithm_config.get_algorithm(experiment=self)
        env = self.test_env
        self.test_env = self.algorithm.process_env_fun(lambda: env)()
        self.policy = self.algorithm.get_policy_for_collection()


def load_run(
    folder: Path | str, n_envs: int, device: str | None = None, env: str | None = None
) -> TrainedRun:
    """Rebuild the policy of a run from its settings, through the registries, and load its weights.

    Value-based and deterministic policies explore, as where training ended, unless they act within
    ``set_exploration_type(ExplorationType.DETERMINISTIC)``.

    Args:
        folder: what ``marl-td train --out`` wrote.
        n_envs: copies in the environment; fewer where the task says that many do not pay.
        device: where policy and environment live; None takes the run's own, and the CPU for one that this
            machine lacks.
        env: import path of the environment, for a run on one of the user's own
            (:meth:`RunSettings.load`).

    Raises:
        ValueError: if the folder holds no run, or its files do not fit together.
        ImportError: if the task needs a package that is not installed.
    """
    folder = Path(folder)
    settings = RunSettings.load(folder / CONFIG_FILE, env)
    require_room(
        settings.model_config,
        settings.task_config.config,
        weights_size(folder / "policy"),
        folder / CONFIG_FILE,
    )
    run = build_run(settings, n_envs, device)
    load_weights(folder / "policy", run.policy)
    return run


def build_run(settings: RunSettings, n_envs: int, device: str | None = None) -> TrainedRun:
    """An untrained policy from settings; the run's are the same but for the ``device``.

    Arguments and errors are those of :func:`load_run`.
    """
    require_simulator(settings.task)
    config = copy(settings.experiment_config)
    if device is None:
        move_to_what_is_here(config)
    else:
        config.sampling_device = config.train_device = config.buffer_device = device
    settings = replace(settings, experiment_config=config)
    check_settings(settings)
    most = getattr(settings.task_config, "max_copies", None)
    small = replace(
        config,
        evaluation_episodes=n_envs if most is None else min(n_envs, most),
        on_policy_n_envs_per_worker=1,
        off_policy_n_envs_per_worker=1,
    )
    with isolated_rng():
        built = _PolicyOnly(**replace(settings, experiment_config=small).arguments())
    return TrainedRun(settings, built.policy, built.test_env)
