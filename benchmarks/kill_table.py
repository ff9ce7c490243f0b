"""Runs that are killed at random instants and go on: do they end as the run that was never stopped?

    python benchmarks/kill_table.py                         # 100 kills over all algorithms, 100 damages
    python benchmarks/kill_table.py --kills 6 --only mappo qmix

Every run is tiny (five iterations, a checkpoint after each). A run is killed up to three times: by SIGKILL
at a random time, at a random file operation with half of a write done, or there with everything lost that was
not flushed to the disk. Then it goes on to its end, and its parameters, optimisers, replay, environments,
random streams, metrics and evaluations are compared bit for bit with those of a run that was left alone. For
the second table a file of the newest checkpoint is damaged, and what is loaded is compared with what was
saved. Writes `results/kill_table.csv`, `results/damage_table.csv` and `results/kill_table.md`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, markdown, write_csv

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from damage import Patient
from kills import Victim
from survival import every_case, experiment_of

KILLS = ("clock", "kill", "power")


def kill_rows(names: list[str], n_kills: int) -> list[dict[str, Any]]:
    """A row for each kind of run; the kills are dealt out in turn."""
    cases = every_case()
    rows = []
    for place, name in enumerate(names):
        n_runs = len(range(place, n_kills, len(names)))
        if n_runs == 0:
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            victim = Victim(cases[name], folder)
            happened = [victim.kill(1000 * place + run) for run in range(n_runs)]
        kinds = Counter(kind for one in happened for kind in one["kinds"])
        rows.append(
            {
                "run": name,
                "killed runs": n_runs,
                **{f"kills: {kind}": kinds[kind] for kind in KILLS},
                "went on from": " ".join(str(one["start"]) for one in happened),
                "values compared": len(victim.expected),
                "equal in the end": sum(not one["wrong"] for one in happened),
                "different": "; ".join(sorted({w for one in happened for w in one["wrong"]}))[:200],
                "seconds": round(time.monotonic() - start, 1),
            }
        )
        print(rows[-1], flush=True)
    return rows


def damage_rows(n_damages: int) -> list[dict[str, Any]]:
    """A row for each way to damage a file."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        experiment_of(every_case()["maddpg by priority on disk"], run).run()
        patient = Patient(run)
        found = [patient.damage(seed, Path(folder) / str(seed)) for seed in range(n_damages)]
    rows = []
    for way in sorted({one["way"] for one in found}):
        mine = [one for one in found if one["way"] == way]
        outcomes = Counter(one["outcome"] for one in mine)
        rows.append(
            {
                "damage": way,
                "checkpoints": len(mine),
                "files": " ".join(sorted({one["file"] for one in mine})),
                "an older one was loaded": outcomes["an older one"],
                "none was intact, and that was said": outcomes["none is intact"],
                "wrong loads": outcomes["wrong"] + outcomes["accepted"],
            }
        )
    return rows


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="runs that are killed")
    parser.add_argument("--damages", type=int, default=100, help="checkpoints that are damaged")
    parser.add_argument("--only", nargs="*", help="kinds of runs; all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = arguments.only or list(every_case())
    kills, damages = kill_rows(names, arguments.kills), damage_rows(arguments.damages)
    write_csv("kill_table", kills)
    write_csv("damage_table", damages)
    n_runs, equal = (sum(row[key] for row in kills) for key in ("killed runs", "equal in the end"))
    text = (
        f"# Killed runs\n\nOf {n_runs} runs that were killed, {equal} ended as the run that was never "
        f"stopped, to the last bit.\n\n{markdown(kills)}\n\n# Damaged checkpoints\n\n{markdown(damages)}\n"
    )
    (RESULTS / "kill_table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
