"""The settings of a run as plain data: written to ``config.yaml``, read back through the registries.

Nothing in the file is run: names are looked up in BenchMARL's registries (which hold ours too), and the
only classes it may name are torch's own layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.algorithms.common import AlgorithmConfig
from benchmarl.environments import TaskClass, task_config_registry
from benchmarl.experiment import ExperimentConfig
from benchmarl.models import model_config_registry
from benchmarl.models.common import ModelConfig, SequenceModelConfig

import marl_td
from marl_td.algorithms.ensemble import EnsembleConfig
from marl_td.field_types import fits
from marl_td.tasks.registry import suggest
from marl_td.training.config import RunConfig
from marl_td.training.files import write_atomic
from marl_td.training.settings_file import (
    build,
    check_types,
    layer_class,
    read_settings,
    written,
    written_by,
)

CONFIG_FILE = "config.yaml"
ENSEMBLE = "marl_td.ensemble"
"""Name of a run with an algorithm for each group; not one of the registry, which holds single ones."""
OWN_ENVIRONMENT = "marl_td/pettingzoo"
"""The task whose settings hold an import path."""
ENTRIES: dict[str, type] = {
    "algorithm": str,
    "task": str,
    "seed": int,
    **dict.fromkeys(("algorithm_config", "task_config", "experiment_config"), dict),
    **dict.fromkeys(("model_config", "critic_model_config"), dict),
}
"""What a settings file holds."""
MACHINE_FIELDS = ("save_folder", "restore_file")
"""Experiment settings that say where a run lies; a copied run folder must not point back."""


@dataclass
class RunSettings:
    """Everything an experiment is built from.

    ``algorithm`` and ``task`` are registry names such as ``"marl_td/mappo"`` and ``"vmas/balance"``.
    """

    algorithm: str
    task: str
    seed: int
    algorithm_config: AlgorithmConfig
    task_config: TaskClass
    experiment_config: ExperimentConfig
    model_config: ModelConfig
    critic_model_config: ModelConfig

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of :class:`marl_td.training.experiment.Experiment`."""
        return {
            "task": self.task_config,
            "algorithm_config": self.algorithm_config,
            "model_config": self.model_config,
            "critic_model_config": self.critic_model_config,
            "seed": self.seed,
            "config": self.experiment_config,
        }

    def save(self, path: Path) -> None:
        """Write the settings as YAML."""
        write_atomic(path, self.as_yaml())

    def as_yaml(self) -> bytes:
        """The settings as YAML.

        Raises:
            ValueError: naming a setting that the file cannot hold.
        """
        experiment = {
            key: value
            for key, value in vars(self.experiment_config).items()
            if key not in MACHINE_FIELDS
        }
        data = {
            "marl_td": marl_td.__version__,
            "algorithm": self.algorithm,
            "task": self.task,
            "seed": self.seed,
            "algorithm_config": _describe_algorithm("algorithm", self.algorithm_config),
            "task_config": written("task", self.task_config.config),
            "experiment_config": written("experiment", experiment),
            "model_config": _describe_model("model", self.model_config),
            "critic_model_config": _describe_model("critic_model", self.critic_model_config),
        }
        return bytes(yaml.safe_dump(data, sort_keys=False).encode())

    @staticmethod
    def load(path: Path, env: str | None = None) -> RunSettings:
        """Settings from a file that :meth:`save` wrote.

        Args:
            path: the file.
            env: import path of the environment, for a run on one of the user's own. The one in the
                file is never imported: it would run whatever code the file names.

        Raises:
            ValueError: if the file is missing or damaged, names what no registry holds, or names an
                import path and ``env`` is None.
        """
        marl_td.register()
        data = read_settings(path, ENTRIES)
        try:
            return RunSettings._parse(data, env, path)
        except ValueError as error:
            hint = written_by(data)
            if not hint:
                raise
            raise ValueError(f"{error}{hint}") from error

    @staticmethod
    def _parse(data: dict[str, Any], env: str | None, path: Path) -> RunSettings:
        """Settings from the entries of the file at ``path``."""
        task = _registered(task_config_registry, data["task"], "task", path)
        experiment = {**data["experiment_config"], **dict.fromkeys(MACHINE_FIELDS)}
        config = _task_config(data, env, path)
        params = getattr(task, "params", None)
        if params is not None:
            check_types(params, config, path)
        return RunSettings(
            algorithm=data["algorithm"],
            task=data["task"],
            seed=data["seed"],
            algorithm_config=_algorithm(data["algorithm"], data["algorithm_config"], path),
            task_config=task.get_task(config),
            experiment_config=build(RunConfig, experiment, path),
            model_config=_model(data["model_config"], path),
            critic_model_config=_model(data["critic_model_config"], path),
        )


def describe(experiment: Any) -> RunSettings:
    """The settings of an experiment object, with the registry names of its parts."""
    return RunSettings(
        algorithm=_algorithm_name(experiment.algorithm_config),
        task=f"{experiment.task.env_name().lower()}/{experiment.task.name.lower()}",
        seed=experiment.seed,
        algorithm_config=experiment.algorithm_config,
        task_config=experiment.task,
        experiment_config=experiment.config,
        model_config=experiment.model_config,
        critic_model_config=experiment.critic_model_config,
    )


def _task_config(data: dict[str, Any], env: str | None, path: Path) -> dict[str, Any]:
    """The task's settings, with the user's import path in place of the file's."""
    config = dict(data["task_config"])
    if data["task"] != OWN_ENVIRONMENT:
        if env is not None:
            raise ValueError(
                f"the run in '{path.parent}' is on the task '{data['task']}', which takes no import path "
                f"of an environment; leave out '{env}'."
            )
        return config
    if env is None:
        raise ValueError(
            f"the run in '{path.parent}' is on an environment of its user's, '{config.get('env')}' with "
            f"the arguments {config.get('options')}. No code is imported because a file names it: if it "
            "is yours, name it again (`--env package.module:function` on the command line, env=... in "
            "Python)."
        )
    return {**config, "env": env}


def _registered(registry: dict[str, Any], name: str, kind: str, path: Path) -> Any:
    if name not in registry:
        raise ValueError(
            f"'{path}' names the {kind} '{name}', which is in no registry. {or_own(name, registry)}"
        )
    return registry[name]


def or_own(name: str, registry: Iterable[str]) -> str:
    """What to do about an unknown name: that of a user's own, or the closest ones."""
    library, slash, _ = name.rpartition("/")
    if not slash or any(known.startswith(f"{library}/") for known in registry):
        return suggest(name, registry)
    return (
        "If it is yours, import the module that registers it before (`--import package.module` on the "
        "command line)."
    )


def _name_of(cls: type[Any], registry: dict[str, Any]) -> str:
    """Registry name of a configuration class, or its dotted name if it is in no registry."""
    for name, known in registry.items():
        if known is cls:
            return name
    return f"{cls.__module__}.{cls.__qualname__}"


def _fields(place: str, config: Any) -> dict[str, Any]:
    """The arguments that a dataclass is made of; what it sets itself is not read back."""
    names = [field.name for field in dataclasses.fields(config) if field.init]
    return {name: written(f"{place}.{name}", getattr(config, name)) for name in names}


def _algorithm_name(config: AlgorithmConfig) -> str:
    if isinstance(config, EnsembleConfig):
        return ENSEMBLE
    return _name_of(type(config), algorithm_config_registry)


def _describe_algorithm(place: str, config: AlgorithmConfig) -> dict[str, Any]:
    """Its fields; of an ensemble the name and the fields of each group's algorithm."""
    if not isinstance(config, EnsembleConfig):
        return _fields(place, config)
    return {
        group: {
            "algorithm": _algorithm_name(own),
            "algorithm_config": _describe_algorithm(f"{place}.{group}", own),
        }
        for group, own in config.algorithm_configs_map.items()
    }


def _algorithm(name: str, values: dict[str, Any], path: Path) -> AlgorithmConfig:
    if name == ENSEMBLE:
        parts = {"algorithm": str, "algorithm_config": dict}
        for group, own in values.items():
            if not isinstance(own, dict) or not all(fits(own.get(k), t) for k, t in parts.items()):
                raise ValueError(f"'{path}' names no algorithm for the group '{group}'.")
        return EnsembleConfig(
            {
                group: _algorithm(own["algorithm"], own["algorithm_config"], path)
                for group, own in values.items()
            }
        )
    config: AlgorithmConfig = build(
        _registered(algorithm_config_registry, name, "algorithm", path), values, path
    )
    return config


def _describe_model(place: str, model: ModelConfig) -> dict[str, Any]:
    if isinstance(model, SequenceModelConfig):
        layers = [
            _describe_model(f"{place}.layers.l{index}", layer)
            for index, layer in enumerate(model.model_configs, start=1)
        ]
        return {"layers": layers, "intermediate_sizes": list(model.intermediate_sizes)}
    return {"name": _name_of(type(model), model_config_registry), **_fields(place, model)}


def _model(values: dict[str, Any], path: Path) -> ModelConfig:
    if "layers" in values:
        layers, sizes = values["layers"], values.get("intermediate_sizes")
        if not fits(layers, list[dict]) or not fits(sizes, list[int]):
            raise ValueError(
                f"'{path}': the layers of a model, or their sizes, are no list of them."
            )
        return SequenceModelConfig(
            model_configs=[_model(layer, path) for layer in layers], intermediate_sizes=sizes
        )
    fields = {key: value for key, value in values.items() if key != "name"}
    for key, value in fields.items():
        if str(key).endswith("class") and value is not None:
            fields[key] = layer_class(str(value))
    cls = _registered(model_config_registry, str(values.get("name", "")), "model", path)
    model: ModelConfig = build(cls, fields, path)
    return model
