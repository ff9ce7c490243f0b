"""Small experiments of any algorithm in unchanged BenchMARL."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.gru import GruConfig
from benchmarl.models.mlp import MlpConfig

from marl_td import register
from marl_td.models.gru import StatefulGruConfig

STATEFUL = StatefulGruConfig(hidden_size=8, encoder_cells=[8])
THEIR_GRU = GruConfig(
    hidden_size=8,
    n_layers=1,
    bias=True,
    dropout=0.0,
    compile=False,
    mlp_num_cells=[8],
    mlp_layer_class=torch.nn.Linear,
    mlp_activation_class=torch.nn.Tanh,
)
IGNORED = [
    # BenchMARL 1.5.2 wraps the environments of recurrent policies twice.
    pytest.mark.filterwarnings("ignore:The default behavior of TransformedEnv:FutureWarning"),
    pytest.mark.filterwarnings("ignore:No episode terminated this iteration:UserWarning"),
    # VMAS's own use of gym and torch.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:vmas"),
]
"""Warnings of others in such runs."""

SMALL = {
    "loggers": [],
    "create_json": False,
    "render": False,
    "evaluation": False,
    "max_n_iters": 2,
    "max_n_frames": None,
    "on_policy_n_envs_per_worker": 4,
    "on_policy_collected_frames_per_batch": 24,
    "on_policy_minibatch_size": 12,
    "on_policy_n_minibatch_iters": 2,
    "off_policy_n_envs_per_worker": 4,
    "off_policy_collected_frames_per_batch": 24,
    "off_policy_train_batch_size": 12,
    "off_policy_n_optimizer_steps": 2,
    "off_policy_memory_size": 400,
}
"""Two iterations of 24 frames with two gradient steps or two epochs each; nothing is evaluated."""


class Metrics(Callback):
    """Keeps every training metric, one TensorDict ``[n_optimiser_steps]`` per iteration and group."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, torch.Tensor]]] = []

    def on_train_end(self, training_td, group):
        self.seen.append((group, {key: training_td[key] for key in training_td.keys()}))


def assert_all_move(
    experiment: Any,
    metrics: Metrics,
    may_rest: Callable[[str, str], bool] = lambda group, name: False,
) -> None:
    """Run; every parameter is finite and not what it was, every metric is there and finite, in every group.

    Args:
        experiment: a small one, with ``metrics`` among its callbacks.
        metrics: told of every iteration.
        may_rest: whether the parameter ``name`` of a group's loss has nothing to learn.
    """
    losses = experiment.losses
    before = deepcopy({g: dict(loss.named_parameters()) for g, loss in losses.items()})
    experiment.run()
    for group, loss in losses.items():
        for name, parameter in loss.named_parameters():
            assert parameter.isfinite().all(), name
            assert may_rest(group, name) or not torch.equal(parameter, before[group][name]), name
    assert {group for group, _ in metrics.seen} == set(experiment.group_map)
    for group, values in metrics.seen:
        norms = {f"grad_norm_{name}" for name in experiment.optimizers[group]}
        assert set(values) == {*losses[group].out_keys, *norms}
        assert all(value.isfinite().all() for value in values.values())


def small_run(
    folder: Path,
    algorithm_config: Any,
    task: Any,
    *,
    model: Any = None,
    critic_model: Any = None,
    callbacks: list[Any] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Experiment:
    """An experiment in ``folder``, ready to run; ``settings`` are fields of ``ExperimentConfig``."""
    register()
    config = ExperimentConfig.get_from_yaml()
    for key, value in {**SMALL, "save_folder": folder, **settings}.items():
        if not hasattr(config, key):
            raise ValueError(f"BenchMARL's ExperimentConfig has no field '{key}'.")
        setattr(config, key, value)
    # BenchMARL marks the critic's configuration as one: others must not see that.
    model, critic_model = deepcopy(model), deepcopy(critic_model)
    cells = {"activation_class": torch.nn.Tanh, "layer_class": torch.nn.Linear}
    return Experiment(
        task=task,
        algorithm_config=algorithm_config,
        model_config=model or MlpConfig(num_cells=[16], **cells),
        critic_model_config=critic_model,
        seed=seed,
        config=config,
        callbacks=callbacks or [],
    )
