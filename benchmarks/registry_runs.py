"""Runs of any algorithm of the registry, each in a folder of its own from which its policy can be read again.

What the tables over all algorithms share: which of them fit a task, one run, and whether it is there already.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common import key
from tqdm import tqdm

from marl_td.registry import ALGORITHMS, algorithm_config
from marl_td.training.compose import compose
from marl_td.training.experiment import Experiment


def fitting(names: Iterable[str] | None, continuous: bool) -> list[str]:
    """The algorithms of ``names`` (of the registry if None) that have this kind of actions.

    Raises:
        ValueError: for an unknown name.
    """
    found = []
    for name in ALGORITHMS if names is None else names:
        config = algorithm_config(name)
        has = config.supports_continuous_actions if continuous else config.supports_discrete_actions
        if has():
            found.append(name)
    return found


def is_on_policy(name: str) -> bool:
    """Whether the algorithm learns from fresh data only."""
    return bool(algorithm_config(name).on_policy())


def train_into(folder: Path, overrides: Iterable[str]) -> float:
    """Train into ``folder``, which appears once the run has ended; its seconds."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    settings = compose([*overrides, "experiment.evaluation=false"])
    settings.experiment_config.save_folder = str(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(**settings.arguments())
    experiment.show_progress = False
    start = time.perf_counter()
    experiment.run()
    seconds = time.perf_counter() - start
    part.rename(folder)
    return seconds


def missing(
    cells: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]], columns: Iterable[str]
) -> list[dict[str, Any]]:
    """The ``cells`` that have no row yet."""
    columns = list(columns)
    done = {key(row, columns) for row in rows}
    return [cell for cell in cells if key(cell, columns) not in done]


def with_progress(cells: list[dict[str, Any]], columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The cells under a progress bar that says which is at work."""
    columns = list(columns)
    bar = tqdm(cells, unit=" runs", dynamic_ncols=True)
    for cell in bar:
        bar.set_description(", ".join(key(cell, columns)))
        yield cell


def over_seeds(values: list[float], digits: int = 2, kind: str = "f") -> str:
    """Mean with the worst and the best seed."""
    if not values:
        return "-"
    shown = (f"{f(values):.{digits}{kind}}" for f in (statistics.mean, min, max))
    return "{} ({} to {})".format(*shown)


def add_options(parser: argparse.ArgumentParser, name: str, seeds: Iterable[int]) -> None:
    """The options of every such table."""
    parser.add_argument("--algorithms", nargs="+", help="of the registry; default: all that fit")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--set", nargs="*", default=[], help="settings, as experiment.lr=1e-3")
    parser.add_argument("--name", default=name, help="of the result files")
    parser.add_argument("--summary", action="store_true", help="train nothing")
