"""Files and functions stay small enough to read at once. Each failure names file, line and size."""

import ast
from pathlib import Path

from source_tree import ROOT, Source, sources, write_tree

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60  # the docstring not counted


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines the docstring of a function takes."""
    if ast.get_docstring(node, clean=False) is None:
        return 0
    first = node.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


def too_long(source: Source) -> list[str]:
    """What in one file is too long."""
    found = []
    lines = len(source.text.splitlines())
    if lines > MAX_FILE_LINES:
        found.append(f"{source.path}: {lines} lines, at most {MAX_FILE_LINES}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
            if length > MAX_FUNCTION_LINES:
                found.append(
                    f"{source.path}:{node.lineno}: {node.name} has {length} lines without its "
                    f"docstring, at most {MAX_FUNCTION_LINES}"
                )
    return found


def oversized(root: Path) -> list[str]:
    """What in the tree below `root` is too long."""
    return [line for source in sources(root) for line in too_long(source)]


def test_files_and_functions_are_short():
    found = oversized(ROOT)
    assert not found, "\n".join(found)


def test_a_long_file_is_found(tmp_path):
    write_tree(tmp_path, {"tasks/long.py": "x = 1\n" * 301, "tasks/fits.py": "x = 1\n" * 300})
    assert oversized(tmp_path) == ["tasks/long.py: 301 lines, at most 300"]


def test_a_long_function_is_found_and_its_docstring_is_not_counted(tmp_path):
    docstring = '    """First.\n' + "    more\n" * 50 + '    """\n'
    fits = "def fits():\n" + docstring + "    x = 1\n" * 59
    long = "class A:\n    def long(self):\n" + "        x = 1\n" * 60
    write_tree(tmp_path, {"losses/a.py": fits, "marl_td/b.py": long})
    assert oversized(tmp_path) == [
        "marl_td/b.py:2: long has 61 lines without its docstring, at most 60"
    ]


def test_symlinks_are_not_followed(tmp_path):
    write_tree(tmp_path, {"losses/long.py": "x = 1\n" * 301})
    (tmp_path / "marl_td" / "losses").symlink_to("../losses")
    assert len(oversized(tmp_path)) == 1
