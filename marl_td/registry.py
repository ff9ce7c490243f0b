"""The tables of what this package adds to BenchMARL, and the one function that adds it.

Algorithms and tasks are registered as ``marl_td/<name>``: nothing of BenchMARL's is shadowed. Hydra reads the
dataclasses themselves (ConfigStore), so that a default is written once and a typo or a wrong type is refused
with the field's name.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types
import warnings
from dataclasses import fields, make_dataclass
from functools import partial
from typing import Any

from marl_td.tasks.registry import suggest

ALGORITHMS: dict[str, str | type[Any]] = {
    "mappo": "marl_td.algorithms.mappo:MappoConfig",
    "iddpg": "marl_td.algorithms.iddpg:IddpgConfig",
    "ippo": "marl_td.algorithms.ippo:IppoConfig",
    "happo": "marl_td.algorithms.happo:HappoConfig",
    "hatrpo": "marl_td.algorithms.hatrpo:HatrpoConfig",
    "coma": "marl_td.algorithms.coma:ComaConfig",
    "belief_ppo": "marl_td.algorithms.belief_ppo:BeliefPpoConfig",
    "mat": "marl_td.algorithms.mat:MatConfig",
    "mat_dec": "marl_td.algorithms.mat:MatDecConfig",
    "maddpg": "marl_td.algorithms.maddpg:MaddpgConfig",
    "matd3": "marl_td.algorithms.matd3:Matd3Config",
    "facmac": "marl_td.algorithms.facmac:FacmacConfig",
    "isac": "marl_td.algorithms.isac:IsacConfig",
    "masac": "marl_td.algorithms.masac:MasacConfig",
    "hasac": "marl_td.algorithms.hasac:HasacConfig",
    "iql": "marl_td.algorithms.iql:IqlConfig",
    "vdn": "marl_td.algorithms.vdn:VdnConfig",
    "pqn_vdn": "marl_td.algorithms.pqn_vdn:PqnVdnConfig",
    "qmix": "marl_td.algorithms.qmix:QmixConfig",
    "cw_qmix": "marl_td.algorithms.weighted_qmix:CwQmixConfig",
    "ow_qmix": "marl_td.algorithms.weighted_qmix:OwQmixConfig",
    "qtran_base": "marl_td.algorithms.qtran:QtranBaseConfig",
    "qtran_alt": "marl_td.algorithms.qtran:QtranAltConfig",
    "qatten": "marl_td.algorithms.qatten:QattenConfig",
    "qplex": "marl_td.algorithms.qplex:QplexConfig",
    "shaq": "marl_td.algorithms.shaq:ShaqConfig",
    "roma": "marl_td.algorithms.roma:RomaConfig",
}
"""Algorithm name to ``module:config class``; users' own with their registry name and their class."""

MODELS: dict[str, str] = {
    "gru": "marl_td.models.gru:StatefulGruConfig",
}
"""Model name to ``module:config class``."""

EXPERIMENT = "marl_td.training.config:RunConfig"
"""The settings class behind ``experiment=marl_td``."""

PLUGINS = "marl_td"
"""The group of entry points by which installed packages name modules that register something."""

_registered = False


def load(path: str | type[Any]) -> Any:
    """The object at ``module:name``, for the entries of this module's own tables only."""
    if not isinstance(path, str):
        return path
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def algorithm_config(name: str) -> Any:
    """The configuration class of the algorithm ``name`` (with or without ``marl_td/``).

    Raises:
        ValueError: if there is no such algorithm; the message names the closest ones.
    """
    short = name.removeprefix("marl_td/")
    if short not in ALGORITHMS:
        raise ValueError(f"unknown algorithm '{name}'. {suggest(short, ALGORITHMS)}")
    return load(ALGORITHMS[short])


def action_kinds(owner: Any) -> tuple[str, ...]:
    """What an algorithm's or a task's configuration supports of ``("continuous", "discrete")``."""
    has = {
        "continuous": owner.supports_continuous_actions(),
        "discrete": owner.supports_discrete_actions(),
    }
    return tuple(kind for kind, supported in has.items() if supported)


def register() -> None:
    """Add our algorithms, tasks and models to BenchMARL's registries and Hydra's store; once per process."""
    global _registered
    if _registered:
        return
    _registered = True
    try:
        _register_algorithms()
        _register_models()
        _register_tasks()
        _register_levels()
        _register_experiment()
        _register_resolver()
        _load_plugins()
    except BaseException:
        _registered = False
        raise


def _register_algorithms() -> None:
    for name, path in ALGORITHMS.items():
        add_algorithm(f"marl_td/{name}", load(path))


def add_algorithm(name: str, config: type[Any]) -> None:
    """``algorithm=<name>`` is the algorithm that ``config`` configures."""
    from benchmarl.algorithms import algorithm_config_registry

    algorithm_config_registry[name] = config
    _store("algorithm", name, config)


def _register_models() -> None:
    for name, path in MODELS.items():
        add_model(f"marl_td/{name}", load(path))


def add_model(name: str, config: type[Any]) -> None:
    """``model=layers/<name>`` is the network that ``config`` configures."""
    from benchmarl.models import model_config_registry

    model_config_registry[name] = config
    # BenchMARL finds a model by the entry `name` of its settings.
    node = make_dataclass(config.__name__, [("name", str, name)], bases=(config,))
    _store("model/layers", name, _arguments(node))


def _register_tasks() -> None:
    from marl_td.benchmarl_tasks import MarlTdTask

    for member in MarlTdTask.__members__.values():
        add_task(f"marl_td/{member.name.lower()}", member)


def add_task(name: str, member: Any) -> None:
    """``task=<name>`` is what ``member.get_task`` makes, with the settings of ``member.params``."""
    from benchmarl.environments import task_config_registry

    task_config_registry[name] = member
    _store("task", name, _open(member.params))
    # BenchMARL looks for a task's dataclass in a module of this fixed name, and warns without it.
    module = types.ModuleType(f"benchmarl.environments.{name.replace('/', '.')}")
    module.TaskConfig = partial(_of_arguments, member.params)  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def _of_arguments(params: type[Any], **config: Any) -> Any:
    """The dataclass ``params`` made of ``config``, which may hold what it makes itself."""
    return params(**arguments_of(params, config))


def arguments_of(settings: type[Any], config: dict[str, Any]) -> dict[str, Any]:
    """``config`` without the fields that the dataclass ``settings`` makes itself (``init=False``)."""
    made = {field.name for field in fields(settings) if not field.init}
    return {name: value for name, value in config.items() if name not in made}


def _store(group: str, name: str, node: Any) -> None:
    """Give Hydra the option ``name``, such as ``marl_td/retail``, of a group of settings."""
    from hydra.core.config_store import ConfigStore

    namespace, leaf = name.split("/")
    ConfigStore.instance().store(
        group=f"{group}/{namespace}", name=leaf, node=node, provider=namespace
    )


def _open(params: type[Any]) -> Any:
    """The settings of a dataclass whose dictionaries, such as ``options``, take any name."""
    from omegaconf import DictConfig, OmegaConf

    node = _arguments(params)
    for name in node:
        if isinstance(node[name], DictConfig):
            OmegaConf.set_struct(node[name], False)
    return node


def _arguments(settings: type[Any]) -> Any:
    """The settings of a dataclass without those that it makes itself, which BenchMARL would hand it, too."""
    from omegaconf import OmegaConf

    node = OmegaConf.structured(settings)
    OmegaConf.set_struct(node, False)  # or nothing can be taken out
    for name in set(node) - set(arguments_of(settings, dict.fromkeys(node))):
        del node[name]
    OmegaConf.set_struct(node, None)
    return node


def _register_levels() -> None:
    from marl_td.tasks.registry import TASKS

    for key in TASKS:
        add_levels(key)


def add_levels(key: str) -> None:
    """``level=NAME_LEVEL``, such as ``level=warehouse_hard``: a task at one of its named difficulties."""
    from hydra.core.config_store import ConfigStore

    from marl_td.tasks.registry import full_name, task_class

    namespace, _, leaf = key.rpartition("/")
    for level, params in task_class(key).levels.items():
        defaults = [{"override /task": full_name(key)}, "_self_"]
        ConfigStore.instance().store(
            group=_level_group(namespace),
            name=f"{leaf}_{level}",
            node={"defaults": defaults, "task": params},
            package="_global_",
            provider=namespace or "marl_td",
        )


def drop_levels(key: str) -> None:
    """Take a task's levels out of Hydra's store, which has no call for it: a new form may have others."""
    from hydra.core.config_store import ConfigStore

    from marl_td.tasks.registry import full_name

    options: Any = ConfigStore.instance().repo
    for part in _level_group(key.rpartition("/")[0]).split("/"):
        options = options.get(part, {})
    # Not by the beginning of their names, which may be that of another task's: hunt, hunt_far.
    levels = {name: entry for name, entry in options.items() if not isinstance(entry, dict)}
    for name, level in levels.items():
        if {"override /task": full_name(key)} in level.node.get("defaults", []):
            del options[name]


def _level_group(namespace: str) -> str:
    return f"level/{namespace}" if namespace else "level"


def _register_experiment() -> None:
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(
        group="experiment", name="marl_td_config", node=load(EXPERIMENT), provider="marl_td"
    )


def _register_resolver() -> None:
    """``${episodes:N}`` in settings: the number of steps in N episodes of the chosen task."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("episodes", _steps_of_episodes, replace=True)


def _load_plugins() -> None:
    """Import what installed packages name in the entry points ``marl_td``; it registers what they add.

    One that fails is named in a warning, and keeps nobody from the rest.
    """
    for entry in importlib.metadata.entry_points(group=PLUGINS):
        try:
            # Not `entry.load()`: what stands behind a colon may not be there yet, where that module itself
            # was imported first and its call of `register_task` leads here.
            importlib.import_module(entry.module)
        except Exception as error:
            warnings.warn(
                f"the plug-in '{entry.name}' ({entry.value}) of marl_td failed, so that what it "
                f"registers is unknown in this program: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def _steps_of_episodes(n_episodes: int, *, _root_: Any) -> int:
    """Steps of ``n_episodes`` that take the time limit of the task in the composed settings ``_root_``.

    Raises:
        ValueError: if the task's settings do not say its time limit.
    """
    task = _root_.get("task") or {}
    for name in ("max_steps", "max_cycles"):
        if task.get(name) is not None:
            return int(n_episodes) * int(task[name])
    raise ValueError(
        "the settings of the task have no time limit (max_steps or max_cycles) to count episodes "
        "by; set the sizes that the preset gives in episodes, in steps."
    )
