"""``marl-td list``: the algorithms, tasks, presets and levels there are."""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path
from typing import Any

from marl_td.cli.output import add_import_option, print_json, table_text

PREFIX = "marl_td/"
PRESETS = Path(__file__).parents[1] / "conf" / "preset"


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "list",
        help="list algorithms, tasks, presets or levels",
        description="List the algorithms or tasks of this package, with --all BenchMARL's too; its presets "
        "(preset=NAME: an algorithm on a task, with settings) or its levels (level=NAME: a task at a named "
        "difficulty).",
    )
    parser.add_argument("kind", choices=KINDS, help="what to list")
    parser.add_argument("--all", action="store_true", help="BenchMARL's own as well")
    add_import_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    from marl_td import register

    register()
    make, heads = KINDS[arguments.kind]
    entries = make(arguments.all)
    if arguments.json:
        print_json(entries)
        return 0
    *columns, last = heads
    rows = [[_cell(entry[head]) for head in heads] for entry in entries]
    lines = table_text((*columns, last), [[*row[:-1], ""] for row in rows]).splitlines()
    print(lines[0])
    for line, row in zip(lines[2:], rows, strict=True):
        print(f"{line.rstrip()}  {row[-1]}")
    return 0


def _cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, dict):
        settings = (f"task.{name}={setting}" for name, setting in value.items())
        return " ".join(settings) or "the task's defaults"
    return value if isinstance(value, str) else ", ".join(value) or "?"


def _algorithms(with_benchmarl: bool) -> list[dict[str, Any]]:
    from benchmarl.algorithms import algorithm_config_registry

    from marl_td.registry import ALGORITHMS, action_kinds
    from marl_td.tasks.registry import full_name

    ours = {full_name(key) for key in ALGORITHMS}
    return [
        {
            "name": name,
            "description": _about(name, config),
            "actions": list(action_kinds(config)),
            "on_policy": bool(config.on_policy()),
            "central_critic": bool(config.has_centralized_critic()),
        }
        for name, config in sorted(algorithm_config_registry.items())
        if with_benchmarl or name in ours
    ]


def _about(name: str, config: type) -> str:
    """What an algorithm is: its module says it, or its settings where a module holds several."""
    own = first_sentence(config)
    if not name.startswith(PREFIX) or ": " in own:
        return own.removeprefix("Hyperparameters of ")
    return first_sentence(sys.modules[config.__module__])


def _tasks(with_benchmarl: bool) -> list[dict[str, Any]]:
    from benchmarl.environments import task_config_registry

    return [
        _task(name, member)
        for name, member in sorted(task_config_registry.items())
        if with_benchmarl or hasattr(member, "params")
    ]


def _task(name: str, member: Any) -> dict[str, Any]:
    from marl_td.registry import action_kinds
    from marl_td.tasks.registry import TASKS, task_class

    if not hasattr(member, "params"):  # BenchMARL's own
        return {"name": name, "description": "", "actions": []}
    entry: dict[str, Any] = {"name": name, "actions": list(action_kinds(member.get_task({})))}
    short = name.removeprefix(PREFIX)
    if short not in TASKS:  # an adapted environment, or a user's function
        about = first_sentence(getattr(member, "described", member.params))
        about = about.removeprefix("Parameters of ")
        return {**entry, "description": about[:1].upper() + about[1:]}
    cls = task_class(short)
    described = sys.modules[cls.__module__] if name.startswith(PREFIX) else cls
    return {
        **entry,
        "description": first_sentence(described),
        "unit": cls.unit,
        "higher_is_better": cls.higher_is_better,
    }


def _presets(_: bool) -> list[dict[str, Any]]:
    from omegaconf import OmegaConf

    entries = []
    for path in sorted(PRESETS.glob("*.yaml")):
        chosen: dict[str, str] = {}
        for default in OmegaConf.select(OmegaConf.load(path), "defaults"):
            chosen |= {} if default == "_self_" else dict(default)
        about = path.read_text().splitlines()[1].removeprefix("# ").rstrip(".")
        task = chosen.get("override /task", "any")
        algorithm = chosen["override /algorithm"]
        entries.append(
            {"name": path.stem, "algorithm": algorithm, "task": task, "description": about}
        )
    return entries


def _levels(_: bool) -> list[dict[str, Any]]:
    from marl_td.tasks.registry import TASKS, full_name, task_class

    return [
        {"name": f"{name}_{level}", "task": full_name(name), "settings": dict(params)}
        for name in sorted(TASKS)
        for level, params in task_class(name).levels.items()
    ]


def first_sentence(described: Any) -> str:
    """What a module or class is, from the first sentence of its docstring, without its markup."""
    paragraph = " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("``", "")


KINDS = {
    "algorithms": (_algorithms, ("name", "actions", "description")),
    "tasks": (_tasks, ("name", "actions", "description")),
    "presets": (_presets, ("name", "algorithm", "task", "description")),
    "levels": (_levels, ("name", "task", "settings")),
}
"""What can be listed: how its entries are made, and what the table shows of each."""
