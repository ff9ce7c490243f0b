"""``marl-td demo``: two trainings side by side, judged by the domains' classical policies."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from marl_td.cli.output import add_progress_option, note

RUNS = {"retail": "retail_maddpg", "banking": "banking_mappo"}
"""Sub-folder to the preset that is trained in it (``marl_td/conf/preset``)."""
EPISODES = 256
"""Evaluation episodes per policy."""
QUICK = ("experiment.max_n_iters=2", "experiment.evaluation_episodes=4")
"""Settings of ``--quick``: enough to see that everything works."""
POLL_SECONDS = 0.5
LINE_SECONDS = 30.0
"""Without a terminal, a line of progress is written this often."""


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "demo",
        help="train MADDPG on retail and MAPPO on banking, and compare",
        description="Train MADDPG on the retail task and MAPPO on the banking task, one process each, "
        "and print for both how the learned policy compares with random, the classical policies and the "
        "optimum or bound. Takes some minutes on 2 CPU cores.",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for both runs"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo in DIR")
    parser.add_argument(
        "--quick", action="store_true", help="two iterations only: a check, no result"
    )
    add_progress_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Start both trainings, follow them, print and save the tables."""
    start = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    processes = {name: _start(name, arguments) for name in RUNS}
    try:
        _follow(processes, arguments)
        failed = [name for name, process in processes.items() if process.poll()]
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
                process.wait()
    for name in failed:
        lines = _log(arguments.out, name).read_text(encoding="utf-8").strip().splitlines()
        note(f"{name} failed: {lines[-1] if lines else 'no message'}")
    if failed:
        note(f"the whole messages are in {', '.join(str(_log(arguments.out, n)) for n in failed)}")
        return 1
    _summarise(arguments.out)
    print(
        f"both in {time.monotonic() - start:.0f} s; tables and pictures: {arguments.out / 'demo.md'}"
    )
    return 0


def _start(name: str, arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Train one preset in a process of its own, with one thread."""
    folder = arguments.out / name
    command = [sys.executable, "-m", "marl_td", "train", "--out", str(folder), "--no-progress"]
    command += ["--episodes", str(8 if arguments.quick else EPISODES)]
    command += ["--overwrite"] if arguments.overwrite and folder.exists() else []
    command += [f"preset={RUNS[name]}", *(QUICK if arguments.quick else ())]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with (
        _table(arguments.out, name).open("wb") as table,
        _log(arguments.out, name).open("wb") as log,
    ):
        return subprocess.Popen(command, stdout=table, stderr=log, env={**os.environ, **threads})


def _table(folder: Path, name: str) -> Path:
    return folder / f"{name}.txt"


def _log(folder: Path, name: str) -> Path:
    return folder / f"{name}.log"


def _follow(processes: dict[str, subprocess.Popen[bytes]], arguments: argparse.Namespace) -> None:
    """Wait for all processes, showing how far they are; stop at the first that fails."""
    from tqdm import tqdm

    visible = sys.stderr.isatty() if arguments.progress is None else arguments.progress
    bars = {
        name: tqdm(desc=f"{name:8}", position=index, unit=" frames", unit_scale=True,
                   disable=not visible, dynamic_ncols=True)
        for index, name in enumerate(processes)
    }  # fmt: skip
    next_line = time.monotonic() + LINE_SECONDS
    while any(process.poll() is None for process in processes.values()):
        time.sleep(POLL_SECONDS)
        states = {name: _state(arguments.out / name) for name in processes}
        for name, (done, total, text) in states.items():
            bars[name].total = total
            bars[name].set_postfix_str(text, refresh=False)
            bars[name].update(done - bars[name].n)
        if not visible and time.monotonic() >= next_line:
            next_line += LINE_SECONDS
            note("; ".join(f"{n}: {d} of {t} frames, {text}" for n, (d, t, text) in states.items()))
        if any(process.poll() not in (None, 0) for process in processes.values()):
            break
    for bar in bars.values():
        bar.close()


def _state(folder: Path) -> tuple[int, int, str]:
    """Frames done, frames in all, and the latest evaluation of a run."""
    import yaml

    from marl_td.training.metrics import read_metrics

    if not (folder / "metrics.csv").exists():
        return 0, 1, "starting"
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    total = settings["experiment_config"]["max_n_frames"]
    rows = read_metrics(folder / "metrics.csv")
    done = int(float(rows[-1]["counters/total_frames"])) if rows else 0
    scores = [row["eval/score_mean"] for row in rows if row.get("eval/score_mean")]
    if (folder / "policy").exists() and done >= total:
        return done, total, "comparing with the baselines"
    return done, total, f"score {float(scores[-1]):.4g}" if scores else "training"


def _summarise(folder: Path) -> None:
    """Print both tables, and put both reports into one page."""
    pages = []
    for name in RUNS:
        text = _table(folder, name).read_text(encoding="utf-8")
        print(text.split("\n  ")[0].rstrip())  # without the list of files
        page = (folder / name / "report" / "report.md").read_text(encoding="utf-8")
        pages.append(page.replace("(report.png)", f"({name}/report/report.png)"))
        print(f"picture: {folder / name / 'report' / 'report.png'}\n")
    (folder / "demo.md").write_text("\n".join(pages), encoding="utf-8")
