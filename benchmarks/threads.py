"""How long updates take on one thread, on all with the C library's waits, and as `marl-td` chooses.

    python benchmarks/threads.py
    python benchmarks/threads.py --busy 2 --name threads_busy

Each run is `marl-td train`; they take turns, and nothing else should run but the `--busy` processes, which
only keep cores from us. Reported: seconds of an iteration's updates (the median of a run without its first
two iterations), divided by those on one thread of the same turn, the median of all turns. Writes
`results/threads.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, markdown, write_csv

from marl_td.cli.threads import settle_threads
from marl_td.training.cores import usable_cores
from marl_td.training.metrics import read_metrics

SMALL = [
    "experiment.on_policy_collected_frames_per_batch=2048",
    "experiment.on_policy_n_envs_per_worker=16",
    "experiment.on_policy_minibatch_size=512",
    "experiment.on_policy_n_minibatch_iters=4",
    "model.num_cells=[64,64]",
]
DISCRETE = "experiment.prefer_continuous_actions=false"
SPREAD = "task=marl_td/simple_spread"
CASES: dict[str, list[str]] = {
    "IPPO 64-64, minibatches of 512": ["algorithm=marl_td/ippo", SPREAD, DISCRETE, *SMALL],
    "QMIX 256-256, batches of 128": [
        "algorithm=marl_td/qmix",
        SPREAD,
        DISCRETE,
        "experiment.off_policy_n_optimizer_steps=50",
    ],
    "QMIX, GRU, whole episodes of retail": [
        "algorithm=marl_td/qmix",
        "task=marl_td/retail",
        "model=layers/marl_td/gru",
        DISCRETE,
        "experiment.off_policy_n_optimizer_steps=5",
    ],
}
"""Settings beside BenchMARL's defaults."""
SHORT = ["experiment.evaluation=false", "experiment.compile=on"]
ITERATIONS = 6
FRAMES = {"algorithm=marl_td/ippo": 2048 * ITERATIONS, "algorithm=marl_td/qmix": 6000 * ITERATIONS}
LONG = "300000"
"""What libgomp takes by itself."""
OWN = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def environments() -> dict[str, dict[str, str]]:
    """Environment variables of the three ways to compute."""
    bare = {name: value for name, value in os.environ.items() if name not in OWN}
    cores = str(usable_cores())
    chosen = dict(bare)
    settle_threads(chosen)
    return {
        "one thread": {**bare, "OMP_NUM_THREADS": "1"},
        "all cores, long waits": {**bare, "OMP_NUM_THREADS": cores, "GOMP_SPINCOUNT": LONG},
        "as chosen": chosen,
    }


def updates(settings: list[str], environ: dict[str, str]) -> float:
    """Seconds of an iteration's updates in one run."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*settings, *SHORT, f"experiment.max_n_frames={FRAMES[settings[0]]}"]
        command = [
            sys.executable,
            "-m",
            "marl_td",
            "train",
            *words,
            "--no-report",
            "--out",
            f"{folder}/run",
        ]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"this failed: {' '.join(command)}\n{done.stderr[-500:]}")
        rows = read_metrics(Path(folder) / "run" / "metrics.csv")
    return statistics.median(float(row["timers/training_time"]) for row in rows[2:])


@contextmanager
def busy(n: int) -> Iterator[None]:
    """So many other processes that never wait."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def table(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per case: the ratios' medians."""
    rows = []
    for case in CASES:
        row: dict[str, Any] = {"updates of": case}
        for way in environments():
            turns = [line for line in raw if line["case"] == case]
            if turns:
                ratios = [line[way] / line["one thread"] for line in turns]
                row[way] = f"{statistics.median(ratios):.2f}"
        rows.append(row)
    return [row for row in rows if len(row) > 1]


def main() -> None:
    """Run turn by turn; the files are written anew after each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="other processes on the cores")
    parser.add_argument("--name", default="threads", help="of the result files")
    args = parser.parse_args()
    raw: list[dict[str, Any]] = []
    for turn in range(args.turns):
        for case, settings in CASES.items():
            line: dict[str, Any] = {"turn": turn, "case": case, "other processes": args.busy}
            with busy(args.busy):
                for way, environ in environments().items():
                    line[way] = updates(settings, environ)
            print(line, flush=True)
            raw.append(line)
            write_csv(args.name, raw)
            (RESULTS / f"{args.name}.md").write_text(markdown(table(raw)) + "\n")
    print((RESULTS / f"{args.name}.md").read_text())


if __name__ == "__main__":
    main()
