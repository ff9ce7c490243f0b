"""The library's source files, each once, for the tests that read code instead of running it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = {"losses": "marl_td.losses", "tasks": "marl_td.tasks", "marl_td": "marl_td"}
"""Top-level folder to import name. The symlinks in `marl_td/` are not followed."""


@dataclass
class Source:
    """One file: `path` relative to the root, the import name of its module, and its parsed text."""

    path: str
    module: str
    is_package: bool
    text: str
    tree: ast.Module


def files_below(folder: Path) -> Iterator[Path]:
    """All Python files below `folder`, without following symlinks."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or entry.name == "__pycache__":
            continue
        if entry.is_dir():
            yield from files_below(entry)
        elif entry.suffix == ".py":
            yield entry


def sources(root: Path = ROOT) -> list[Source]:
    """Every source file of the library below `root`."""
    found = []
    for folder, name in FOLDERS.items():
        for file in files_below(root / folder):
            parts = file.relative_to(root / folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join([name, *parts[: -1 if is_package else None]])
            text = file.read_text(encoding="utf-8")
            path = file.relative_to(root).as_posix()
            found.append(Source(path, module, is_package, text, ast.parse(text, path)))
    return found


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Write `files` (path to text) and the library's folders below `root`; for self-tests."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root
