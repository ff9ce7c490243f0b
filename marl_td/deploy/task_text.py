"""What a task's own description says about observations and actions: names, widths and units.

Our tasks describe themselves in the docstring of their module, with a table of the observation's columns.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from torchrl.envs import EnvBase

from marl_td.collect.episodes import batched_task
from marl_td.tasks.base import Task
from marl_td.tasks.shield import ShieldedTask

SECTIONS = {"observation": "Observation space", "action": "Action space"}
NOTHING = "the task gives no names or units"
BORDER = re.compile(r"=+(?: +=+)+")


def task_sections(env: EnvBase) -> dict[str, str]:
    """What the task says about its observations and actions, as text; a remark where it says nothing."""
    task = _described(env)
    module = sys.modules.get(type(task).__module__)
    text = (module.__doc__ if module is not None else None) or ""
    return {name: _section(text, title) or NOTHING for name, title in SECTIONS.items()}


def action_components(env: EnvBase) -> dict[str, tuple[dict[str, str], ...]]:
    """By group ``name`` and ``unit`` of each discrete action, or of each number of a continuous one.

    Groups of which the task names no actions have an empty entry.
    """
    task = _described(env)
    groups = {} if task is None else task.groups
    return {
        group: tuple(_named(text) for text in spec.action.names) for group, spec in groups.items()
    }


def _named(text: str) -> dict[str, str]:
    """``"acceleration [m/s2]"`` as name and unit."""
    name, _, unit = text.partition(" [")
    return {"name": name, "unit": unit.removesuffix("]")}


def _described(env: EnvBase) -> Task[Any, Any] | None:
    """The task of an environment, without a shield around it."""
    task = batched_task(env)
    return task.task if isinstance(task, ShieldedTask) else task


def _section(text: str, title: str) -> str:
    """The lines from ``title`` to the next line that is not indented."""
    found = re.search(rf"^{title}.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return "" if found is None else found.group().rstrip()


def table_rows(section: str) -> tuple[dict[str, str], ...]:
    """The rows of the first table in a section: ``name``, ``width`` and ``unit`` (or content) as text.

    Empty if there is none of three columns. A line without a name goes on with the row before it.
    """
    lines = section.splitlines()
    borders = [number for number, line in enumerate(lines) if BORDER.fullmatch(line.strip())]
    if len(borders) < 3:
        return ()
    starts = [match.start() for match in re.finditer(r"=+", lines[borders[0]])]
    if len(starts) != 3:
        return ()
    rows: list[list[str]] = []
    for line in lines[borders[1] + 1 : borders[2]]:
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        if cells[0] or not rows:
            rows.append(cells)
        else:
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)]
    return tuple(dict(zip(("name", "width", "unit"), row, strict=True)) for row in rows)
