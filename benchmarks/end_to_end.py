"""Whole training runs from the start of the process: ours beside JaxMARL, BenchMARL, AgileRL; simple_spread.

    python benchmarks/end_to_end.py ppo --jaxmarl PATH_OF_A_CHECKOUT
    python benchmarks/end_to_end.py maddpg
    python benchmarks/end_to_end.py maddpg_shared
    python benchmarks/end_to_end.py qmix
    python benchmarks/end_to_end.py agilerl --goal -65 --frames 12000 --peer-frames 12000

`ppo`: independent PPO with the settings of JaxMARL's `baselines/IPPO/ippo_ff_mpe.py` (16 environments x 128
steps, 64-64 tanh, 4 epochs x 4 minibatches), which needs JaxMARL's Python (`stepping.py --install-peers`) and
a checkout of its repository. `maddpg_shared`, `qmix`, `mappo`: BenchMARL's own defaults; `maddpg`: with one
critic per agent in both, and in ours the paper's actor loss. BenchMARL runs on VMAS's simple_spread and on
our task. `agilerl`: MADDPG beside AgileRL's (`--install-peers` once before) with one
environment and an update of 256 transitions after each step, 64-64, and ours with its own schedule; every
1000 steps 100 episodes without exploration are played, whose time does not count.

They take turns. Reported: seconds from the start of the process to the first trained iteration, environment
steps per second in the second half (by the clock, and by the time of the process on its processor), and
seconds to the return asked for with `--goal` (mean of 20 iterations, or in the case `agilerl` of one
evaluation); on a GPU also the most memory and the share of the time in which a kernel ran, of the last turn.
Writes `results/end_to_end_<case>.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from common import RESULTS, markdown, write_csv
from peers import PEERS, install, peer_python

from marl_td.cli.threads import settle_threads

HERE = Path(__file__).parent
CASES = ("ppo", "maddpg", "maddpg_shared", "qmix", "mappo", "agilerl")
INSTALL = {"AgileRL": "end_to_end.py agilerl", "JaxMARL": "stepping.py"}
"""The commands that install the libraries with ``--install-peers``."""
JAXMARL_SCRIPT = "baselines/IPPO/ippo_ff_mpe.py"
WINDOW = 20
FEWEST_LINES = 4
"""Iterations that a run needs: it is summed up by its second half."""


class Line(NamedTuple):
    """What a process has told after some steps, without the time of its evaluations."""

    seconds: float
    """Since the process started."""
    cpu: float
    """Of the process itself on its processor: compilers, which are other processes, are not in it."""
    steps: int
    """Of all environments together."""
    score: float | None
    """Return, summed over agents and steps."""


def commands(args: argparse.Namespace) -> dict[str, tuple[list[str], int]]:
    """Command of each library, and the steps it trains for: those that are slow train for less."""
    torch_side = [sys.executable, "-W", "ignore", str(HERE / "end_to_end_run.py")]
    device = ["--device", args.device]
    if args.case == "agilerl":
        peer = [str(peer_python(PEERS, "agilerl")), str(HERE / "end_to_end_agilerl.py")]
        found = {
            "marl_td": ([*torch_side, "marl_td", "agilerl", *device], args.frames),
            "marl_td, own schedule": (
                [*torch_side, "marl_td", "agilerl_own", *device],
                args.own_frames,
            ),
            "AgileRL": (peer, args.peer_frames),
        }
        return found
    found = {
        "marl_td": ([*torch_side, "marl_td", args.case, *device], args.frames),
        "BenchMARL, VMAS": (
            [*torch_side, "benchmarl", args.case, "--task", "vmas", *device],
            args.peer_frames,
        ),
        "BenchMARL, our task": ([*torch_side, "benchmarl", args.case, *device], args.peer_frames),
    }
    if args.case == "ppo" and args.jaxmarl:
        script = [
            str(peer_python(PEERS, "jaxmarl")),
            str(HERE / "end_to_end_jaxmarl.py"),
            str(args.jaxmarl),
        ]
        found["JaxMARL"] = (script, args.frames)
    return found


def chosen(
    args: argparse.Namespace, parser: argparse.ArgumentParser
) -> dict[str, tuple[list[str], int]]:
    """The commands asked for, or an error that says which of them cannot run."""
    found = commands(args)
    unknown = [name for name in args.only or () if name not in found]
    if unknown:
        parser.error(
            f"{args.case} has no {_quoted(unknown)}; it has {_quoted(found)}"
            + (", and JaxMARL with --jaxmarl." if args.case == "ppo" and not args.jaxmarl else ".")
        )
    found = {name: run for name, run in found.items() if not args.only or name in args.only}
    for name, (command, _) in found.items():
        if not Path(command[0]).exists():
            parser.error(
                f"no {name} at {command[0]}; install it with `python benchmarks/{INSTALL[name]} "
                "--install-peers`, or leave it out with --only."
            )
    if "JaxMARL" in found and not (args.jaxmarl / JAXMARL_SCRIPT).exists():
        parser.error(f"{args.jaxmarl} is no checkout of JaxMARL: it has no {JAXMARL_SCRIPT}.")
    return found


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def run(
    command: list[str], frames: int, seed: int, threads: int
) -> tuple[list[Line], dict[str, str]]:
    """Start a process and time its lines; and what the last one tells of a GPU."""
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    settle_threads(environ)
    start = time.perf_counter()
    lines: list[Line] = []
    watched: dict[str, str] = {}
    with subprocess.Popen(
        [*command, "--frames", str(frames), "--seed", str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    ) as process:
        for line in process.stdout or ():
            if line.startswith("{"):
                found = json.loads(line)
                if "steps" not in found:
                    watched = found
                    continue
                seconds = time.perf_counter() - start - found.get("paused", 0.0)
                lines.append(Line(seconds, found.get("cpu", 0.0), found["steps"], found["return"]))
    if process.returncode:
        raise RuntimeError(f"this failed; run it by hand: {' '.join(command)}")
    if len(lines) < FEWEST_LINES:
        raise RuntimeError(
            f"{len(lines)} iterations are too few to be summed up, at least {FEWEST_LINES} are needed; give "
            f"`--frames`, `--own-frames` or `--peer-frames` more than {frames}. It was: {' '.join(command)}"
        )
    return lines, watched


def summary(lines: list[Line], goal: float | None, window: int) -> dict[str, float | None]:
    """First iteration in s, steps per second of the second half, seconds and steps to the goal.

    The goal counts as reached at the last of the first ``window`` lines whose mean return is ``goal``.
    """
    first, last = lines[len(lines) // 2], lines[-1]
    steps, cpu = last.steps - first.steps, last.cpu - first.cpu
    found: dict[str, float | None] = {
        "first iteration s": lines[0].seconds,
        "steps/s": steps / (last.seconds - first.seconds),
        "steps/CPU s": steps / cpu if cpu else None,
        "goal s": None,
        "goal steps": None,
    }
    for i in range(window, len(lines) + 1):
        scores = [line.score for line in lines[i - window : i] if line.score is not None]
        if goal is not None and scores and statistics.mean(scores) >= goal:
            return found | {"goal s": lines[i - 1].seconds, "goal steps": lines[i - 1].steps}
    return found


def table(found: dict[str, list[dict[str, float | None]]]) -> list[dict[str, Any]]:
    """Medians per library, and the median of our rate by theirs, turn by turn."""
    rows = []
    for name, turns in found.items():
        row: dict[str, Any] = {"library": name, "turns": len(turns)}
        for key in turns[0]:
            values = [value for turn in turns if (value := turn[key]) is not None]
            missing = f" ({len(values)} of {len(turns)})" if len(values) < len(turns) else ""
            row[key] = f"{statistics.median(values):,.1f}{missing}" if values else "not reached"
        for key, label in (("steps/s", "ours / theirs"), ("steps/CPU s", "by CPU time")):
            pairs = zip(found.get("marl_td", turns), turns, strict=False)
            rates = [(ours[key], theirs[key]) for ours, theirs in pairs]
            ratios = [ours / theirs for ours, theirs in rates if ours and theirs]
            row[label] = f"{statistics.median(ratios):.2f}" if ratios else "-"
        rows.append(row)
    return rows


def main() -> None:
    """Run turn by turn; the files are written anew after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--frames", type=int, default=500_000, help="steps of ours and JaxMARL")
    parser.add_argument("--own-frames", type=int, default=60_000, help="steps of our own schedule")
    parser.add_argument("--peer-frames", type=int, default=60_000, help="of BenchMARL, AgileRL")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="of ours and BenchMARL")
    parser.add_argument("--threads", type=int, default=1, help="of ours and BenchMARL")
    parser.add_argument("--name", help="of the result files; default: the case")
    parser.add_argument("--goal", type=float, help="return, summed over agents and steps")
    parser.add_argument("--jaxmarl", type=Path, help="a checkout of JaxMARL's repository")
    parser.add_argument("--only", nargs="+", help="libraries, by their names in the table")
    parser.add_argument("--install-peers", action="store_true", help="install AgileRL, and end")
    args = parser.parse_args()
    if args.install_peers:
        return install(PEERS, "agilerl")
    runs = chosen(args, parser)
    window = 1 if args.case == "agilerl" else WINDOW
    found: dict[str, list[dict[str, float | None]]] = {}
    raw: list[dict[str, Any]] = []
    gpu: dict[str, dict[str, str]] = {}
    path = RESULTS / f"end_to_end_{args.name or args.case}.md"
    for turn in range(args.turns):
        for name, (command, frames) in runs.items():
            lines, gpu[name] = run(command, frames, turn, args.threads)
            found.setdefault(name, []).append(summary(lines, args.goal, window))
            print(f"turn {turn + 1} of {args.turns}, {name}: {found[name][-1]}", flush=True)
            columns = ("seconds", "cpu", "steps", "return")
            raw += [
                {"library": name, "turn": turn, **dict(zip(columns, line, strict=True))}
                for line in lines
            ]
        write_csv(path.stem, raw)
        rows = [{**row, **gpu[row["library"]]} for row in table(found)]
        path.write_text(markdown(rows) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
