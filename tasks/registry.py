"""The table of batched tasks, and the two functions that build them by name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Iterable
from typing import Any

import torch

from marl_td.tasks.base import Task
from marl_td.tasks.shield import shielded
from marl_td.tasks.vector_env import VectorEnv

TASKS: dict[str, str | type[Task[Any, Any]]] = {
    "matrix_game": "marl_td.tasks.matrix_game:MatrixGame",
    "two_step": "marl_td.tasks.two_step:TwoStep",
    "sharing_game": "marl_td.tasks.sharing_game:SharingGame",
    "levers": "marl_td.tasks.levers:Levers",
    "recall": "marl_td.tasks.recall:Recall",
    "retail": "marl_td.tasks.retail:Retail",
    "banking": "marl_td.tasks.banking:Banking",
    "simple_spread": "marl_td.tasks.particle.simple_spread:SimpleSpread",
    "simple_speaker_listener": "marl_td.tasks.particle.simple_speaker_listener:SimpleSpeakerListener",
    "simple_tag": "marl_td.tasks.particle.simple_tag:SimpleTag",
    "simple_adversary": "marl_td.tasks.particle.simple_adversary:SimpleAdversary",
    "pursuit": "marl_td.tasks.pursuit:Pursuit",
    "predator_prey": "marl_td.tasks.predator_prey:PredatorPrey",
    "intersection": "marl_td.tasks.intersection:Intersection",
    "traffic_junction": "marl_td.tasks.traffic_junction:TrafficJunction",
    "pong": "marl_td.tasks.pong:Pong",
    "pricing": "marl_td.tasks.pricing:Pricing",
    "mapf": "marl_td.tasks.mapf:Mapf",
    "warehouse": "marl_td.tasks.warehouse:Warehouse",
    "market_making": "marl_td.tasks.market_making:MarketMaking",
    "energy_grid": "marl_td.tasks.energy_grid:EnergyGrid",
    "drones": "marl_td.tasks.drones:Drones",
}
"""Task name to ``module:class``; a module is imported only when its task is asked for.

Tasks of users (:func:`marl_td.extend.register_task`) are added with their registry name and their class.
"""


def full_name(key: str) -> str:
    """The registry name of an entry of our tables: ``marl_td/retail``, or a user's own ``acme/line``."""
    return key if "/" in key else f"marl_td/{key}"


def task_of_mode(name: str, mode: str | None) -> str:
    """The task that has the rules ``mode``: ``predator_prey`` for those hunts of ``pursuit``, else ``name``.

    Hunts for one prey see, act and are rewarded otherwise than the one that is ``pursuit`` by itself, so that
    they are a task of their own; its modes can be asked for under both names.
    """
    from marl_td.tasks.predator_prey.params import MODES

    if name.removeprefix("marl_td/") == "pursuit" and mode in MODES:
        return name.replace("pursuit", "predator_prey")
    return name


def task_class(name: str) -> type[Task[Any, Any]]:
    """The class of the task called ``name`` (with or without the ``marl_td/`` prefix; a user's with its own).

    Raises:
        ValueError: if there is no such task; the message names the closest ones.
    """
    short = name.removeprefix("marl_td/")
    if short not in TASKS:
        raise ValueError(f"unknown task '{name}'. {suggest(short, TASKS)}")
    entry = TASKS[short]
    if not isinstance(entry, str):
        return entry
    module, attribute = entry.split(":")
    found: type[Task[Any, Any]] = getattr(importlib.import_module(module), attribute)
    return found


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that helps after a typo: the closest known names, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return f"Did you mean {' or '.join(repr(word) for word in close)}?"
    return f"Known: {', '.join(known)}."


def make_task(
    name: str,
    *,
    continuous: bool | None = None,
    device: torch.device | str = "cpu",
    level: str | None = None,
    **params: Any,
) -> Task[Any, Any]:
    """Build a task by name.

    Args:
        name: registry name, such as ``"retail"`` or ``"marl_td/retail"``.
        continuous: continuous or discrete actions; None takes continuous ones where there are any.
        device: where the task lives.
        level: named difficulty such as ``"easy"`` (:attr:`Task.levels`); None keeps the defaults.
        params: fields of the task's parameter dataclass; they win over the level.

    Raises:
        ValueError: for an unknown name, level or parameter, or a parameter out of range.
    """
    cls = task_class(task_of_mode(name, params.get("mode")))
    known = {field.name for field in dataclasses.fields(cls.Params)}
    for key in params:
        if key not in known:
            raise ValueError(f"task '{cls.name}' has no parameter '{key}'. {suggest(key, known)}")
    if continuous is None:
        continuous = cls.has_continuous_actions
    if level is not None:
        params = {**level_params(cls, level), **params}
    return shielded(cls(cls.Params(**params), continuous=continuous, device=device))


def level_params(cls: type[Task[Any, Any]], level: str) -> dict[str, Any]:
    """The parameters that the difficulty ``level`` of a task changes.

    Raises:
        ValueError: if the task has no such level.
    """
    if level not in cls.levels:
        known = f"It has: {', '.join(cls.levels)}." if cls.levels else "It has none."
        raise ValueError(f"task '{cls.name}' has no level '{level}'. {known}")
    return dict(cls.levels[level])


def make_env(
    name: str,
    n_envs: int,
    *,
    seed: int | None = 0,
    continuous: bool | None = None,
    device: torch.device | str = "cpu",
    **params: Any,
) -> VectorEnv:
    """Build the TorchRL environment of a task by name; see :func:`make_task` for the arguments."""
    task = make_task(name, continuous=continuous, device=device, **params)
    return VectorEnv(task, n_envs, seed=seed)
