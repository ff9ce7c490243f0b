"""Writes the settings tables of `docs/algorithms/` and `docs/tasks/` from the dataclasses.

    python scripts/hyperparameters.py            # rewrite every page that has the two markers
    python scripts/hyperparameters.py --check    # exit 1 and name the pages that are out of date

A page says where its table goes with `<!-- settings -->` and `<!-- /settings -->`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
from pathlib import Path
from typing import Any

START, END = "<!-- settings -->", "<!-- /settings -->"
DOCS = Path(__file__).parents[1] / "docs"


def field_docs(config: type[Any]) -> dict[str, str]:
    """The docstring under each dataclass field, base classes first."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for statement, following in itertools.pairwise(body):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(following, ast.Expr):
                continue
            target, text = statement.target, following.value
            if isinstance(target, ast.Name) and isinstance(text, ast.Constant):
                found[target.id] = " ".join(str(text.value).split())
    return found


def table(config: type[Any]) -> str:
    """Name, default and meaning of every field as a Markdown table."""
    docs = field_docs(config)
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(config):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        meaning = docs.get(field.name, "").replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{default}` | {meaning} |")
    return "\n".join(lines)


def pages() -> dict[Path, type[Any]]:
    """Every algorithm's and task's page, with the dataclass of its settings."""
    from marl_td.registry import ALGORITHMS, algorithm_config
    from marl_td.tasks.adapters.by_name import PettingZooParams
    from marl_td.tasks.registry import TASKS, task_class

    found: dict[Path, type[Any]] = {
        DOCS / "algorithms" / f"{name}.md": algorithm_config(name) for name in ALGORITHMS
    }
    found[DOCS / "own_environments.md"] = PettingZooParams
    return {**found, **{DOCS / "tasks" / f"{name}.md": task_class(name).Params for name in TASKS}}


def filled(text: str, config: type[Any]) -> str:
    """The page with its table as it should be.

    Raises:
        ValueError: if the page lacks the markers.
    """
    if START not in text or END not in text:
        raise ValueError(f"the page needs the markers {START} and {END} around its settings table")
    before, rest = text.split(START, 1)
    return f"{before}{START}\n{table(config)}\n{END}{rest.split(END, 1)[1]}"


def main() -> int:
    """Rewrite or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing, exit 1 if a page is old"
    )
    check = parser.parse_args().check
    old = []
    for path, config in pages().items():
        text = path.read_text()
        new = filled(text, config)
        if new != text:
            old.append(path.name)
            if not check:
                path.write_text(new)
    print(f"{'out of date' if check else 'rewritten'}: {', '.join(old) or 'none'}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
