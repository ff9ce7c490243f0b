"""Hostile files and what happened when they were read, each in a process of its own.

    python benchmarks/hostile_table.py

The files are those of `tests/helpers/hostile_files.py`. Payloads would make a folder where they run;
the table says whether one did, how much memory reading took beyond a good file, and what was said. Writes
`results/hostile_table.csv` and `.md`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from common import RESULTS, markdown, write_csv
from hostile_files import CASES, GOLDEN, Case
from short_runs import short_experiment
from tiny_bundle import write_bundle

SECONDS = 120


def good_files(folder: Path) -> None:
    """A run of a second and a bundle."""
    short_experiment(folder / "run", "experiment.compile=off").run()
    write_bundle(folder / "bundle", golden=GOLDEN)


def read(case: Case, folder: Path, place: Path, found: Path) -> None:
    """Read in this process; what happened is written to a file."""
    os.chdir(place)
    before, begin = _peak(), time.perf_counter()
    try:
        case.read(folder)
        what, said = "loaded", ""
    except ValueError as refused:
        what, said = "refused", str(refused)
    except BaseException as error:
        what, said = "crashed", f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - begin
    data = {"what": what, "said": said, "mib": _peak() - before, "seconds": seconds}
    found.write_text(json.dumps(data))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each case."""
    context = multiprocessing.get_context("fork")
    for number, case in enumerate(CASES):
        here = folder / str(number)
        (here / "working").mkdir(parents=True)
        shutil.copytree(folder / ("bundle" if case.of_bundle else "run"), here / "copy")
        case.do(here / "copy")
        arguments = (case, here / "copy", here / "working", here / "found.json")
        process = context.Process(target=read, args=arguments)
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
        answer = here / "found.json"
        found = json.loads(answer.read_text()) if answer.exists() else {"what": "died", "said": ""}
        said = found["said"].replace(str(here / "copy"), "DIR").replace("|", "/")
        yield {
            "file": case.file,
            "harm": case.harm.replace("|", "/"),
            "what happened": found["what"],
            "payload ran": "yes" if os.listdir(here / "working") else "no",
            "MiB more": round(found.get("mib", 0)),
            "s": round(found.get("seconds", SECONDS), 2),
            "what was said": said if len(said) <= 150 else f"{said[:147]}...",
        }
        shutil.rmtree(here)


def main() -> None:
    """Write the table."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        good_files(Path(folder))
        for case in {case.read: case for case in CASES}.values():
            case.read(Path(folder) / ("bundle" if case.of_bundle else "run"))
        found = []
        for row in rows(Path(folder)):
            found.append(row)
            print({key: row[key] for key in list(row)[:6]}, flush=True)
    write_csv("hostile_table", found)
    (RESULTS / "hostile_table.md").write_text(f"{markdown(found)}\n")
    bad = [r for r in found if r["what happened"] != "refused" or r["payload ran"] == "yes"]
    print(f"{len(found)} hostile files: {len(found) - len(bad)} refused, {len(bad)} not")
    sys.exit(len(bad) > 0)


if __name__ == "__main__":
    main()
