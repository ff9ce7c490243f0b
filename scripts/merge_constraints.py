"""Merge pip's resolution reports of several Python versions into one constraints file.

How `constraints.txt` was made, for each supported Python X.Y, in an environment that holds only
pip, setuptools and wheel:

    pip install --dry-run --ignore-installed --no-build-isolation --report X.Y.json \
        pip setuptools wheel torch==... ".[all,docs,dev]"
    python scripts/merge_constraints.py *.json > constraints.txt

Resolve Python 3.11 first and give its result to the later versions with `-c`, so that they share
their pins wherever they can. Needs nothing but the standard library.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

HEADER = """\
# The versions of every package that the tests run with; `make` installs from this file, so that
# two installs are equal. Made by `scripts/merge_constraints.py`, which says how.
# torch is pinned without its local part: `+cpu` fits too. torchvision (BenchMARL asks for it) must
# fit torch: its newest version would replace a CPU build of torch.
"""


def read_report(path: str) -> tuple[tuple[int, int], dict[str, str]]:
    """The Python version of one report, and the version of each package in it."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    major, minor = report["environment"]["python_version"].split(".")
    packages = {}
    for item in report["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
        packages[name] = item["metadata"]["version"].partition("+")[0]
    return (int(major), int(minor)), packages


def bands(pins: dict[tuple[int, int], str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each version that differs from the one before it, with the first Python that has it."""
    previous = None
    for python, version in sorted(pins.items()):
        if version != previous:
            yield version, python
        previous = version


def lines_of(name: str, pins: dict[tuple[int, int], str]) -> Iterator[str]:
    """The lines for one package, with a marker where its version depends on Python's."""
    steps = list(bands(pins))
    for index, (version, python) in enumerate(steps):
        marks = []
        if index > 0:
            marks.append(f'python_version >= "{python[0]}.{python[1]}"')
        if index + 1 < len(steps):
            after = steps[index + 1][1]
            marks.append(f'python_version < "{after[0]}.{after[1]}"')
        yield f"{name}=={version}" + ("; " + " and ".join(marks) if marks else "")


def main(paths: list[str]) -> None:
    """Print the merged file."""
    merged: dict[str, dict[tuple[int, int], str]] = {}
    for path in paths:
        python, packages = read_report(path)
        for name, version in packages.items():
            merged.setdefault(name, {})[python] = version
    merged.pop("marl-td", None)
    print(HEADER, end="")
    for name in sorted(merged):
        for line in lines_of(name, merged[name]):
            print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
