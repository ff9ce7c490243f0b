"""Tasks, algorithms and networks of your own under names of your own, beside those of this package.

A module that calls these functions makes what it has known to BenchMARL, Hydra and ``marl-td``::

    register_task("acme/line", Line)  # task=acme/line, level=acme/line_easy, make_env("acme/line", 4)
    register_algorithm("acme/mean", MeanConfig)  # algorithm=acme/mean
    register_model("acme/net", NetConfig)  # model=layers/acme/net

It has to be imported: in Python by you, in ``marl-td`` by ``--import MODULE``, and in every program that uses
BenchMARL if an installed package names it in its entry points ``marl_td``. The settings of a run hold names
only, so that reading a run never imports code because its files ask for it.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import asdict, fields, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import benchmarl.environments
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.algorithms.common import AlgorithmConfig
from benchmarl.environments import TaskClass, task_config_registry
from benchmarl.models import model_config_registry
from benchmarl.models.common import ModelConfig
from omegaconf.errors import OmegaConfBaseException

from marl_td import registry
from marl_td.benchmarl_tasks import FunctionTask, MarlTdTaskClass, from_yaml
from marl_td.tasks.base import Task, TaskParams
from marl_td.tasks.registry import TASKS, suggest

REGISTRIES: dict[str, tuple[dict[str, Any], Callable[[str, Any], None]]] = {
    "task": (task_config_registry, registry.add_task),
    "algorithm": (algorithm_config_registry, registry.add_algorithm),
    "model": (model_config_registry, registry.add_model),
}
"""Kind to BenchMARL's registry and what adds to it and to Hydra's store."""
_OWN: dict[tuple[str, str], str] = {}
"""Kind and name of what was registered here to what it is: its module and name in it."""


class OwnTaskClass(MarlTdTaskClass):
    """A registered task inside BenchMARL, with its settings."""

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        self._namespace, leaf = name.split("/")
        super().__init__(leaf, config)

    def env_name(self) -> str:  # type: ignore[override]
        """First part of its name."""
        return self._namespace

    @property
    def _key(self) -> str:
        return f"{self._namespace}/{self.name}"


class OwnTask:
    """A registered task: what a member of an Enum ``Task`` is for BenchMARL's own.

    ``make_env(name, ...)`` of :mod:`marl_td.tasks` makes its environment, :meth:`get_task` what an
    experiment takes.
    """

    def __init__(
        self,
        name: str,
        params: type[Any],
        make: Callable[[dict[str, Any]], TaskClass],
        described: Any,
    ) -> None:
        self.name = name
        self.params = params
        self.described = described
        self._make = make

    def get_task(self, config: dict[str, Any] | None = None) -> TaskClass:
        """The task with the settings ``config``, or with the defaults.

        Raises:
            ValueError: for a setting that there is not; the message names the closest ones.
        """
        if config is None:
            return self.get_from_yaml()
        known = [field.name for field in fields(self.params)]
        for key in config:
            if key not in known:
                raise ValueError(
                    f"task '{self.name}' has no parameter '{key}'. {suggest(str(key), known)}"
                )
        return self._make(registry.arguments_of(self.params, config))

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        """The task with its default settings, or with those of the YAML file at ``path``."""
        return self.get_task(asdict(from_yaml(self.params, path)))


def register_task(name: str, task: type[Task[Any, Any]] | FunctionTask) -> OwnTask:
    """Make a batched task, or any environment of a function, known as ``task=<name>``.

    Args:
        name: ``namespace/name`` in small letters, such as ``"acme/line"``. The same class may be registered
            again under its name (as in a notebook); another one may not.
        task: a subclass of :class:`marl_td.tasks.Task`, or a :class:`FunctionTask`.

    Raises:
        ValueError: for a name that is taken or malformed, or a task that is not complete.
    """
    if isinstance(task, FunctionTask):
        own = _of_function(name, cast(FunctionTask, task))  # mypy also sees a class that is one
        _add("task", name, own, _identity(own.described))
        return own
    _check_task(name, task)
    own = OwnTask(name, task.Params, partial(OwnTaskClass, name), task)
    _add("task", name, own, _identity(task), (TASKS, task))
    return own


def register_algorithm(name: str, config: type[AlgorithmConfig]) -> None:
    """Make an algorithm known as ``algorithm=<name>``, by the class of its settings.

    Raises:
        ValueError: as for :func:`register_task`.
    """
    _check_config("algorithm", name, config, AlgorithmConfig)
    _add("algorithm", name, config, _identity(config), (registry.ALGORITHMS, config))


def register_model(name: str, config: type[ModelConfig]) -> None:
    """Make a kind of network known as ``model=layers/<name>``, by the class of its settings.

    Raises:
        ValueError: as for :func:`register_task`.
    """
    _check_config("model", name, config, ModelConfig)
    _add("model", name, config, _identity(config))


def _of_function(name: str, task: FunctionTask) -> OwnTask:
    max_steps = int(task.config["max_steps"])
    params = make_dataclass("FunctionTaskParams", [("max_steps", int, max_steps)])
    own = OwnTask(name, params, partial(_function_task, name, task), task.make_env)
    if name.count("/") != 1:
        return own  # `_check_name` says so
    made = own.get_task()
    found = f"{made.env_name()}/{made.name}"
    if found != name:
        raise ValueError(
            f"register_task('{name}', ...): {type(task).__name__}.env_name() makes it '{found}', under which "
            "its runs could not be found again; leave env_name as it is in FunctionTask."
        )
    return own


def _function_task(name: str, task: FunctionTask, config: dict[str, Any]) -> FunctionTask:
    """``task`` under its registry name, with the settings ``config``."""
    named = copy.copy(task)
    named.namespace, named.name = name.split("/")
    named.config = {**task.config, **config}
    return named


def _check_task(name: str, task: Any) -> None:
    call = f"register_task('{name}', ...)"
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(
            f"{call} takes a subclass of marl_td.tasks.Task or a FunctionTask; got {task!r}."
        )
    if inspect.isabstract(task):
        missing = ", ".join(sorted(task.__abstractmethods__))
        raise ValueError(f"{call}: {task.__name__} does not have {missing}.")
    params = getattr(task, "Params", None)
    if not (isinstance(params, type) and issubclass(params, TaskParams)):
        raise ValueError(
            f"{call}: {task.__name__}.Params must be its dataclass of settings, which extends TaskParams; "
            f"got {params!r}."
        )
    if not isinstance(getattr(task, "name", None), str):
        raise ValueError(f"{call}: {task.__name__} has no name; messages show it.")


def _check_config(kind: str, name: str, config: Any, base: type[Any]) -> None:
    call = f"register_{kind}('{name}', ...)"
    is_class = isinstance(config, type) and issubclass(config, base)
    if not is_class or "__dataclass_fields__" not in vars(config):
        raise ValueError(
            f"{call} takes the class of its settings: a dataclass that extends {base.__name__}; got "
            f"{config!r}."
        )
    if inspect.isabstract(config):
        missing = ", ".join(sorted(config.__abstractmethods__))
        raise ValueError(f"{call}: {config.__name__} does not have {missing}.")


def _add(
    kind: str, name: str, what: Any, told: str, own_table: tuple[dict[str, Any], Any] | None = None
) -> None:
    """Put ``what``, known by where it was written (``told``), into the registries of its kind.

    Args:
        kind: ``"task"``, ``"algorithm"`` or ``"model"``.
        name: ``namespace/name``.
        what: the entry of BenchMARL's registry.
        told: what the name stands for; another one is refused.
        own_table: a table of ours and its entry.
    """
    registry.register()
    registered, add = REGISTRIES[kind]
    _check_name(kind, name, told)
    entries = [(registered, what), *([own_table] if own_table else [])]
    before = [table.get(name) for table, _ in entries]
    for table, entry in entries:
        table[name] = entry
    try:
        add(name, what)
        _renew_levels(name)
    except (OmegaConfBaseException, NameError, AttributeError, TypeError) as error:
        for (table, _), entry in zip(entries, before, strict=True):  # what worked goes on working
            if entry is None:
                del table[name]
            else:
                table[name] = entry
        if before[0] is not None:
            add(name, before[0])
        _renew_levels(name)
        reason = str(error).splitlines()[0].rstrip(".")
        key = getattr(error, "full_key", None)
        where = f" ({key})" if key else ""
        raise ValueError(
            f"register_{kind}('{name}', ...): its settings cannot be given on a command line: "
            f"{reason}{where}."
        ) from error
    _OWN[kind, name] = told


def _renew_levels(name: str) -> None:
    """Leave Hydra those levels only that the task ``name`` has now; of what is no task, none."""
    registry.drop_levels(name)
    if name in TASKS:
        registry.add_levels(name)


def _check_name(kind: str, name: str, told: str) -> None:
    """Check that ``name`` is one, and free for what is ``told``."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"register_{kind}: '{name}' is not a name of the form namespace/name in small letters, such "
            "as 'acme/line'."
        )
    known = _OWN.get((kind, name))
    taken = name in REGISTRIES[kind][0] or (kind == "task" and _is_module_of_benchmarl(name))
    if known is None and (name.startswith("marl_td/") or taken):
        raise ValueError(
            f"register_{kind}: '{name}' is not free; take another namespace, such as 'own'."
        )
    if known not in (None, told):
        raise ValueError(f"register_{kind}: '{name}' is {known} already; got {told}.")


def _is_module_of_benchmarl(name: str) -> bool:
    """Whether BenchMARL has a module where it looks for the dataclass of a task called ``name``."""
    place = Path(benchmarl.environments.__file__).parent / name
    return place.is_dir() or place.with_suffix(".py").is_file()


def _identity(described: Any) -> str:
    """Where a class or function was written; of another object, its class.

    Two lambdas of a module differ by their lines, two partials by their arguments.
    """
    if isinstance(described, partial):
        words = [*map(repr, described.args)]
        words += [f"{name}={value!r}" for name, value in described.keywords.items()]
        return f"{_identity(described.func)} with {', '.join(words)}"
    named = described if hasattr(described, "__qualname__") else type(described)
    place = f"{named.__module__}.{named.__qualname__}"
    is_lambda = named.__qualname__.endswith("<lambda>")
    return f"{place} (line {named.__code__.co_firstlineno})" if is_lambda else place
