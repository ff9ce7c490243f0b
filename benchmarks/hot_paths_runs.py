"""The runs that `hot_paths.py` measures parts of."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from common import everything_on, settings

from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.models.gru import StatefulGruConfig


def experiment(
    name: str, task: str, model: Any, n_envs: int, device: str, **options: Any
) -> Experiment:
    """A BenchMARL experiment that is ready to collect; ``options`` count for its kind of policy."""
    kind = "on" if name.endswith("mappo") else "off"
    sizes = {f"{kind}_policy_{key}": value for key, value in options.items()}
    sizes[f"{kind}_policy_n_envs_per_worker"] = n_envs
    config = settings(prefer_continuous_actions=True, **everything_on(device), **sizes)
    algorithm = algorithm_config_registry[name].get_from_yaml()
    recurrent = isinstance(model, StatefulGruConfig)
    if name == "marl_td/qmix":
        algorithm = replace(algorithm, hypernet_layers=1)  # BenchMARL's mixer
    if name == "marl_td/mappo" and recurrent:
        algorithm = replace(algorithm, chunk_length=10)
    if name == "marl_td/qmix" and recurrent:
        algorithm = replace(algorithm, sequence="window", window_length=10, burn_in=20)
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        return Experiment(task_config(task), algorithm, model, 0, config)


def task_config(name: str) -> Any:
    """A task of ours, or ``vmas/SCENARIO`` in our adapter, or ``benchmarl/SCENARIO`` in BenchMARL's.

    The scenario's options are BenchMARL's in both.
    """
    family, _, scenario = name.partition("/")
    if not scenario:
        return MarlTdTask[family.upper()].get_from_yaml()
    theirs = VmasTask[scenario.upper()].get_from_yaml()
    if family == "benchmarl":
        return theirs
    found = MarlTdTask.VMAS.get_from_yaml()
    options = dict(theirs.config)
    max_steps = options.pop("max_steps")
    found.config.update(scenario=scenario, max_steps=max_steps, options=options)
    return found


def filled(run: Experiment) -> Experiment:
    """The experiment with one collected batch in its buffer."""
    batch = next(iter(run.collector))
    run._on_batch_collected(batch)
    data = run.algorithm.process_batch("agents", batch.exclude(*run._get_excluded_keys("agents")))
    run.replay_buffers["agents"].extend(data if run.algorithm.has_rnn else data.reshape(-1))
    return run
