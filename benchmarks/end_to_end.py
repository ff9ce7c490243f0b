"""Whole training runs from the start of the process: ours, JaxMARL's and BenchMARL's, on simple_spread.

    python benchmarks/end_to_end.py ppo --jaxmarl PATH_OF_A_CHECKOUT
    python benchmarks/end_to_end.py maddpg
    python benchmarks/end_to_end.py qmix

`ppo`: independent PPO with the settings of JaxMARL's `baselines/IPPO/ippo_ff_mpe.py` (16 environments x 128
steps, 64-64 tanh, 4 epochs x 4 minibatches), which needs JaxMARL's Python (`stepping.py --install-peers`) and
a checkout of its repository. `maddpg`, `qmix`, `mappo`: BenchMARL's own defaults. BenchMARL runs on VMAS's
simple_spread and on our task. They take turns. Reported: seconds from the start of the process to the first
trained iteration, environment steps per second in the second half, and seconds to the return asked for
with `--goal` (mean of 20 iterations). Writes `results/end_to_end_<case>.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import RESULTS, markdown, write_csv
from jaxmarl_peer import PEERS, peer_python

HERE = Path(__file__).parent
CASES = ("ppo", "maddpg", "qmix", "mappo")
WINDOW = 20
Line = tuple[float, int, float | None]
"""Seconds since the process started, environment steps, return."""


def commands(args: argparse.Namespace) -> dict[str, tuple[list[str], int]]:
    """Command of each library, and the steps it trains for: those that are slow train for less."""
    torch_side = [sys.executable, "-W", "ignore", str(HERE / "end_to_end_run.py")]
    found = {
        "marl_td": ([*torch_side, "marl_td", args.case], args.frames),
        "BenchMARL, VMAS": (
            [*torch_side, "benchmarl", args.case, "--task", "vmas"],
            args.peer_frames,
        ),
        "BenchMARL, our task": ([*torch_side, "benchmarl", args.case], args.peer_frames),
    }
    if args.case == "ppo" and args.jaxmarl:
        script = [str(peer_python(PEERS)), str(HERE / "end_to_end_jaxmarl.py"), str(args.jaxmarl)]
        found["JaxMARL"] = (script, args.frames)
    return {name: run for name, run in found.items() if not args.only or name in args.only}


def run(command: list[str], frames: int, seed: int, threads: int) -> list[Line]:
    """Start a process and time its lines."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--frames", str(frames), "--seed", str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    lines: list[Line] = []
    for line in process.stdout or ():
        if line.startswith("{"):
            found = json.loads(line)
            lines.append((time.perf_counter() - start, found["steps"], found["return"]))
    if process.wait() or len(lines) < 4:
        raise RuntimeError(f"this failed; run it by hand: {' '.join(command)}")
    return lines


def summary(lines: list[Line], goal: float | None) -> dict[str, float | None]:
    """Seconds to the first iteration, steps per second of the second half, seconds to the goal."""
    half = len(lines) // 2
    rate = (lines[-1][1] - lines[half][1]) / (lines[-1][0] - lines[half][0])
    reached = None
    for i in range(WINDOW, len(lines) + 1):
        returns = [value for _, _, value in lines[i - WINDOW : i] if value is not None]
        if goal is not None and returns and statistics.mean(returns) >= goal:
            reached = lines[i - 1][0]
            break
    return {"first iteration s": lines[0][0], "steps/s": rate, "goal s": reached}


def table(found: dict[str, list[dict[str, float | None]]]) -> list[dict[str, Any]]:
    """Medians per library, and the median of our rate by theirs, turn by turn."""
    rows = []
    for name, turns in found.items():
        row: dict[str, Any] = {"library": name, "turns": len(turns)}
        for key in turns[0]:
            values = [value for turn in turns if (value := turn[key]) is not None]
            missing = f" ({len(values)} of {len(turns)})" if len(values) < len(turns) else ""
            row[key] = f"{statistics.median(values):,.1f}{missing}" if values else "not reached"
        rates = zip(found.get("marl_td", turns), turns, strict=False)
        ratios = [(ours["steps/s"] or 0.0) / (theirs["steps/s"] or 1.0) for ours, theirs in rates]
        row["ours / theirs"] = f"{statistics.median(ratios):.2f}"
        rows.append(row)
    return rows


def main() -> None:
    """Run turn by turn; the files are written anew after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--frames", type=int, default=500_000, help="steps of ours and JaxMARL")
    parser.add_argument("--peer-frames", type=int, default=60_000, help="steps of BenchMARL")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of ours and BenchMARL")
    parser.add_argument("--name", help="of the result files; default: the case")
    parser.add_argument("--goal", type=float, help="return, summed over agents and steps")
    parser.add_argument("--jaxmarl", type=Path, help="a checkout of JaxMARL's repository")
    parser.add_argument("--only", nargs="+", help="libraries, by their names in the table")
    args = parser.parse_args()
    found: dict[str, list[dict[str, float | None]]] = {}
    raw: list[dict[str, Any]] = []
    path = RESULTS / f"end_to_end_{args.name or args.case}.md"
    for turn in range(args.turns):
        for name, (command, frames) in commands(args).items():
            lines = run(command, frames, turn, args.threads)
            found.setdefault(name, []).append(summary(lines, args.goal))
            print(f"turn {turn + 1} of {args.turns}, {name}: {found[name][-1]}", flush=True)
            columns = ("seconds", "steps", "return")
            raw += [
                {"library": name, "turn": turn, **dict(zip(columns, line, strict=True))}
                for line in lines
            ]
        write_csv(path.stem, raw)
        path.write_text(markdown(table(found)) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
