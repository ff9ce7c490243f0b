"""Trainings of a second or two."""

from pathlib import Path

from marl_td.training.compose import compose
from marl_td.training.experiment import Experiment

SHORT = (
    "algorithm=marl_td/qmix",
    "task=marl_td/matrix_game",
    "model.num_cells=[8]",
    "critic_model.num_cells=[8]",
    "experiment.max_n_frames=60",
    "experiment.off_policy_collected_frames_per_batch=20",
    "experiment.off_policy_n_envs_per_worker=10",
    "experiment.off_policy_n_optimizer_steps=2",
    "experiment.off_policy_train_batch_size=8",
    "experiment.off_policy_memory_size=100",
    "experiment.evaluation_interval=20",
    "experiment.evaluation_episodes=4",
)
"""QMIX on a matrix game, three iterations."""

SHORT_PAGE = (
    "experiment.max_n_frames=80",
    "experiment.off_policy_n_envs_per_worker=2",
    "experiment.off_policy_collected_frames_per_batch=40",
    "experiment.off_policy_n_optimizer_steps=1",
    "experiment.off_policy_train_batch_size=8",
    "experiment.off_policy_memory_size=100",
    "experiment.evaluation_episodes=2",
    "experiment.compile=off",
)
"""Makes off-policy runs short that a page of ``docs/`` starts: two iterations, one gradient step each."""


def short_experiment(folder: Path, *overrides: str, callbacks=None, without=()) -> Experiment:
    """An experiment in ``folder``; a later override replaces the one of the same name in ``SHORT``.

    ``without`` names settings of ``SHORT`` to leave out.
    """
    merged = dict(item.split("=", 1) for item in (*SHORT, *overrides))
    merged = {name: value for name, value in merged.items() if name not in without}
    settings = compose([f"{name}={value}" for name, value in merged.items()])
    settings.experiment_config.save_folder = str(folder)
    return Experiment(**settings.arguments(), callbacks=callbacks)
