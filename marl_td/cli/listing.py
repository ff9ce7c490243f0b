"""``marl-td list``: the algorithms and tasks there are."""

from __future__ import annotations

import argparse
import inspect
import sys
from typing import Any

from marl_td.cli.output import print_json, table_text

PREFIX = "marl_td/"


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "list",
        help="list algorithms or tasks",
        description="List the algorithms or tasks of this package, or with --all BenchMARL's too.",
    )
    parser.add_argument("kind", choices=("algorithms", "tasks"), help="what to list")
    parser.add_argument("--all", action="store_true", help="BenchMARL's own as well")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    from marl_td import register

    register()
    entries = _algorithms() if arguments.kind == "algorithms" else _tasks()
    if not arguments.all:
        entries = [entry for entry in entries if entry["name"].startswith(PREFIX)]
    if arguments.json:
        print_json(entries)
        return 0
    rows = [
        [entry["name"], ", ".join(entry["actions"]) or "?", entry["description"]]
        for entry in entries
    ]
    text = table_text(("name", "actions", "description"), [[r[0], r[1], ""] for r in rows])
    lines = text.splitlines()
    print(lines[0])
    for line, row in zip(lines[2:], rows, strict=True):
        print(f"{line.rstrip()}  {row[2]}")
    return 0


def _algorithms() -> list[dict[str, Any]]:
    from benchmarl.algorithms import algorithm_config_registry

    return [
        {
            "name": name,
            "description": _about(name, config),
            "actions": _actions(config),
            "on_policy": bool(config.on_policy()),
            "central_critic": bool(config.has_centralized_critic()),
        }
        for name, config in sorted(algorithm_config_registry.items())
    ]


def _about(name: str, config: type) -> str:
    """What an algorithm is: its module says it, or its settings where a module holds several."""
    own = first_sentence(config)
    if not name.startswith(PREFIX) or ": " in own:
        return own.removeprefix("Hyperparameters of ")
    return first_sentence(sys.modules[config.__module__])


def _tasks() -> list[dict[str, Any]]:
    from benchmarl.environments import task_config_registry

    return [_task(name, member) for name, member in sorted(task_config_registry.items())]


def _task(name: str, member: Any) -> dict[str, Any]:
    from marl_td.benchmarl_tasks import params_class
    from marl_td.tasks.registry import TASKS, task_class

    short = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX):
        return {"name": name, "description": "", "actions": []}
    entry: dict[str, Any] = {"name": name, "actions": _actions(member.get_task({}))}
    if short not in TASKS:  # an adapted environment
        return {**entry, "description": first_sentence(params_class(short))}
    cls = task_class(short)
    package = sys.modules[TASKS[short].split(":")[0]]
    description = first_sentence(package) or first_sentence(sys.modules[cls.__module__])
    return {
        **entry,
        "description": description,
        "unit": cls.unit,
        "higher_is_better": cls.higher_is_better,
    }


def _actions(owner: Any) -> list[str]:
    kinds = []
    if owner.supports_continuous_actions():
        kinds.append("continuous")
    if owner.supports_discrete_actions():
        kinds.append("discrete")
    return kinds


def first_sentence(described: Any) -> str:
    """What a module or class is, from the first sentence of its docstring."""
    paragraph = " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")
