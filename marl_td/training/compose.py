"""From command-line overrides to settings: BenchMARL's Hydra configuration with our entries.

Whatever is wrong with an override becomes one ``ValueError`` sentence that names the field and says what
to do instead; Hydra's own messages span several lines and name files of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import TaskClass, task_config_registry
from benchmarl.hydra_config import load_task_config_from_hydra
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from marl_td import register
from marl_td.tasks.registry import full_name, suggest, task_of_mode
from marl_td.training.check import check_settings, warn_of_idle_critic
from marl_td.training.compose_model import model
from marl_td.training.extras import require_simulator
from marl_td.training.settings import OWN_ENVIRONMENT, RunSettings
from marl_td.training.suggestions import check_one_value, closest, elsewhere, known_fields


def compose(overrides: list[str]) -> RunSettings:
    """Settings of a run from overrides such as ``["algorithm=marl_td/mappo", "task=marl_td/retail"]``.

    Raises:
        ValueError: for anything that cannot be run, in one sentence.
        ImportError: if the task needs a package that is not installed.
    """
    config, chosen = _compose("train", overrides, needed=("algorithm", "task"))
    require_simulator(chosen["task"])
    settings = RunSettings(
        algorithm=chosen["algorithm"],
        task=chosen["task"],
        seed=_seed(config.seed),
        algorithm_config=_build("algorithm", config.algorithm),
        task_config=_task(config.task, chosen["task"]),
        experiment_config=_build("experiment", config.experiment),
        model_config=model("model", config.model),
        critic_model_config=model("critic_model", config.critic_model),
    )
    check_settings(settings)
    warn_of_idle_critic(settings, overrides)
    return settings


def experiment_patch(overrides: list[str]) -> dict[str, Any]:
    """Changed settings of a run that goes on, from overrides such as ``["experiment.lr=0.001"]``.

    Raises:
        ValueError: for a setting that is not the experiment's, or a value that is not of its type.
    """
    given = dict(_split(override) for override in overrides)
    for name in given:
        if not name.startswith("experiment."):
            raise ValueError(
                f"'{name}' cannot be changed when a run goes on, only experiment.* settings can; start "
                "another run with `marl-td train`."
            )
    needed = ["algorithm=marl_td/mappo", "task=marl_td/matrix_game"]
    config, _ = _compose("train", [*needed, *overrides], needed=("algorithm", "task"))
    values = _build("experiment", config.experiment)
    return {name: getattr(values, name) for name in (n.removeprefix("experiment.") for n in given)}


def compose_task(overrides: list[str]) -> tuple[str, TaskClass]:
    """Name and settings of a task alone, from overrides such as ``["task=marl_td/retail"]``."""
    config, chosen = _compose("baselines", overrides, needed=("task",))
    require_simulator(chosen["task"])
    return chosen["task"], _task(config.task, chosen["task"])


def _seed(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"seed must be a whole number of at least 0; got '{value}'.")
    return value


def _build(group: str, config: DictConfig) -> Any:
    """The dataclass behind a part of the configuration; its own range checks run here."""
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ValueError(_reworded(error, group, None)) from error
    except ValueError as error:  # a range that a user's own class checks
        raise ValueError(str(error)) from error


def _task(config: DictConfig, name: str) -> TaskClass:
    """The task with its settings; errors as for :func:`_build`."""
    _build("task", config)
    return load_task_config_from_hydra(config, name)


def _compose(
    primary: str, overrides: list[str], needed: tuple[str, ...]
) -> tuple[DictConfig, dict[str, str]]:
    """The composed configuration and which option was chosen for each group."""
    register()
    overrides = [_written_out(override) for override in overrides]
    given = dict(_split(override) for override in overrides)
    if "task" in given:
        asked, task = given["task"], task_of_mode(given["task"], given.get("task.mode"))
        given["task"] = task
        overrides = [f"task={task}" if word == f"task={asked}" else word for word in overrides]
    _check_names(given)
    for group in needed:
        sources = {group, "preset", "level"} if group == "task" else {group, "preset"}
        if not sources & given.keys():
            raise ValueError(
                f"no {group} was given; add {group}=NAME. `marl-td list {group}s` shows the names."
            )
    with _benchmarl_configuration():
        _check_level(given)
        try:
            config = hydra_compose(primary, overrides=overrides, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            sample = _without_values(primary, overrides)
            raise ValueError(_reworded(error, _culprit(error, overrides), sample)) from error
        chosen = {group: config.hydra.runtime.choices[group] for group in needed}
    return config, chosen


@contextmanager
def _benchmarl_configuration() -> Iterator[None]:
    """BenchMARL's configuration tree; a Hydra program that we are called from is left as it was."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("benchmarl.conf", version_base=None):
            yield
    finally:
        if outer is not None:
            GlobalHydra.instance().initialize(outer)


def _written_out(override: str) -> str:
    """An override without our abbreviations, for a PettingZoo environment of one's own and for critics."""
    name, equals, value = override.partition("=")
    if (name, value) == ("task", "pettingzoo"):
        return f"task={OWN_ENVIRONMENT}"
    names_option = equals and not value.startswith("{")  # and is not a dictionary of settings
    if name == "critic_model" and names_option:
        return f"model@critic_model={value}"
    return f"task.env{equals}{value}" if name == "env" and equals else override


def _split(override: str) -> tuple[str, str]:
    name, equals, value = override.partition("=")
    if not equals or not name.strip():
        raise ValueError(
            f"'{override}' is not an override; write name=value, for example experiment.lr=0.0003."
        )
    if name[0] in "+~":
        raise ValueError(
            f"'{override}': settings can be changed, not added or removed; leave out the '{name[0]}'."
        )
    check_one_value(name.strip(), value)
    return name.strip(), value


def _check_names(given: dict[str, str]) -> None:
    """Unknown algorithms and tasks get a suggestion instead of Hydra's list of files."""
    for kind, registry in (
        ("algorithm", algorithm_config_registry),
        ("task", task_config_registry),
    ):
        name = given.get(kind)
        if name is not None and name not in registry:
            hint = closest(name, registry) or elsewhere(name, kind, registry)
            raise ValueError(f"unknown {kind} '{name}'. {hint}")


def _check_level(given: dict[str, str]) -> None:
    """A level is refused beside another task: settings of the same name would be taken over in silence.

    The task of a run is the one on the command line, else the preset's, else the level's.
    """
    level = given.get("level", "")
    if level not in _options_below("level"):
        return  # none was given, or a name that Hydra refuses
    of_level = full_name(level.rpartition("_")[0])
    preset = given.get("preset", "")
    if "task" in given:
        task, source = given["task"], "the task given"
    else:
        task, source = _task_of_preset(preset) or of_level, f"the task of preset '{preset}'"
    if task != of_level:
        raise ValueError(
            f"level '{level}' is one of task '{of_level}', but {source} is '{task}'; take a level "
            "of that task or leave it out."
        )


def _task_of_preset(preset: str) -> str | None:
    """The task that a preset chooses; None if it chooses none, or if there is no such preset."""
    path = f"preset/{preset}.yaml"
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.is_config(path):
            defaults = OmegaConf.select(source.load_config(path).config, "defaults")
            chosen = [entry["override /task"] for entry in defaults if "override /task" in entry]
            return chosen[0] if chosen else None
    return None


def _without_values(primary: str, overrides: list[str]) -> DictConfig | None:
    """The configuration with the choices of groups only, to look up what a field could be called."""
    groups = ("algorithm", "task", "experiment", "model", "model@critic_model", "preset", "level")
    kept = [override for override in overrides if override.partition("=")[0] in groups]
    try:
        return hydra_compose(primary, overrides=kept)
    except (HydraException, OmegaConfBaseException):
        return None


def _culprit(error: Exception, overrides: list[str]) -> str:
    """The override that Hydra's message talks about."""
    text = str(error)
    named = [
        override
        for override in overrides
        if override.split("=")[0].split("@")[0] in text or f"'{override.partition('=')[2]}'" in text
    ]
    return max(named, key=lambda override: len(override.split("=")[0]), default="")


def _reworded(error: Exception, culprit: str, sample: DictConfig | None) -> str:
    """One sentence for a Hydra or OmegaConf error."""
    cause: BaseException = error.__cause__ or error
    reason = str(cause).splitlines()[0].rstrip(".")
    field, _, value = culprit.partition("=")
    if isinstance(error, MissingConfigException):
        place = field.rpartition("@")[2]
        return f"there is no option '{value}' for '{place}'. {_options(field, value)}"
    if isinstance(error, OverrideParseException):
        return (
            f"the value of '{field or culprit}' cannot be read ({reason}); quote lists and strings."
        )
    if reason.startswith("In 'preset/"):
        preset, key = reason.split("'")[1].removeprefix("preset/"), str(cause).split("'")[3]
        return (
            f"preset '{preset}' sets '{key}', which this algorithm, task or model does not have: a preset is "
            "made for its own. Leave the preset out, or what was chosen in its place."
        )
    if "not in" in reason and reason.startswith("Key"):
        return f"there is no setting '{field}'. {known_fields(field, sample)}"
    full = [line.split(":")[1].strip() for line in str(cause).splitlines() if "full_key:" in line]
    where = full[0] if full and full[0] else field
    return f"setting '{where}': {reason}."


def _options(group: str, value: str) -> str:
    """The options of a configuration group such as ``model`` or ``preset`` that ``value`` could mean."""
    found = _options_below(group.split("@")[0])
    options = [option for option in found if not option.endswith("_config")]
    return closest(value, options) or suggest("", options)


def _options_below(group: str) -> list[str]:
    """The names of all options in ``group`` and in the groups inside it, as ``layers/marl_td/gru``."""
    loader = GlobalHydra.instance().config_loader()
    options: list[str] = loader.get_group_options(group)
    for folder in loader.get_group_options(group, results_filter=ObjectType.GROUP):
        options += [f"{folder}/{option}" for option in _options_below(f"{group}/{folder}")]
    return options
