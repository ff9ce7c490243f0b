"""How the cost of stepping grows with the number of environments and of agents: time, memory, exponents.

    python benchmarks/growth.py
    python benchmarks/growth.py --device cuda --memory 120
    python benchmarks/growth.py --every-task --axes envs --envs 1 16 256 4096 16384 --name growth_tasks
    python benchmarks/growth.py --name growth_tasks --summary      # table and picture from the rows so far

Every point is a process of its own (`growth_point.py`): the compiled collector with random actions on our
tasks. Environments 1 to 65,536 with the task's own number of agents, and 3 to 1000 agents in a fixed
number of environments. Reported: agent-steps per second, and per agent-step, that is one step of one agent in
one environment, time and the most memory that tensors held at once, which includes the batch that is kept.

An exponent is the slope of the straight line fitted by least squares to log(cost) over log(size), where time
is that of one step of all environments and memory that of a batch: 1 is linear. "overall" takes every point;
"above the floor" only those whose cost is at least twice the curve's smallest, so that the time of the calls
themselves, the same at every size, does not hide how the work grows. It needs at least three points.

A size that needs more than `--memory` or `--limit` is reported as skipped, with the reason, and the larger
ones of its curve as not tried.

Each point is added to `results/growth.csv` as it ends, and a point that has a row there is not measured
again: an interrupted run goes on where it was. To measure anew, or with other settings (which rows do not
name), take another `--name` or remove rows. `growth.md` and `growth.png` are made from all rows at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from common import RESULTS, append, markdown, parsed, read_rows
from registry_runs import missing, with_progress

from marl_td.tasks.registry import TASKS

HERE = Path(__file__).parent
FLOOR = 2.0
"""Points whose cost is at least so many times the smallest are above the floor."""
Row = dict[str, Any]


class Curve(NamedTuple):
    """A task, with settings written ``name=value``, whose ``axis`` (envs or agents) grows."""

    axis: str
    task: str
    parameters: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the tables call it."""
        return " ".join((self.task, *self.parameters))


CURVES = (
    Curve("envs", "retail"),
    Curve("envs", "banking"),
    Curve("agents", "retail"),
    Curve("agents", "banking", ("router_id=false",)),
    Curve("agents", "banking"),
    Curve("agents", "simple_spread"),
    Curve("envs", "simple_spread"),
    Curve("envs", "warehouse", ("sight=5",)),
    Curve("agents", "warehouse", ("sight=5",)),
    Curve("envs", "mapf"),
)
"""By default, banking's observation names its router and simple_spread's has everybody's place: both grow
with the number of agents, by definition. The warehouse grows with its robots, whose density is given."""
OTHERS = tuple(Curve("envs", name) for name in TASKS if name not in {c.task for c in CURVES})
"""The rest of the registry, with ``--every-task``."""


def exponent(sizes: list[float], costs: list[float]) -> float | None:
    """Slope of the least-squares line through log(cost) over log(size); None for fewer than three points."""
    if len(sizes) < 3:
        return None
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    together = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return together / sum((a - middle_x) ** 2 for a in x)


def above_floor(sizes: list[float], costs: list[float]) -> tuple[list[float], list[float]]:
    """The points whose cost is at least ``FLOOR`` times the smallest."""
    kept = [pair for pair in zip(sizes, costs, strict=True) if pair[1] >= FLOOR * min(costs)]
    return [size for size, _ in kept], [cost for _, cost in kept]


def exponents(rows: list[Row], label: str = "task") -> list[Row]:
    """A row per curve, which ``label`` heads: exponents of time and memory, overall and above the floor."""
    found = []
    for key in dict.fromkeys((row["task"], row["axis"]) for row in rows):
        own = [row for row in rows if (row["task"], row["axis"]) == key and not row["skipped"]]
        sizes = [float(row[key[1]]) for row in own]
        line: Row = {label: key[0], "what grows": key[1]}
        for cost, column in (("time", "seconds"), ("memory", "bytes")):
            costs = [float(row[column]) for row in own]
            high = above_floor(sizes, costs) if costs else ([], [])
            line[f"{cost}, overall"] = _shown(exponent(sizes, costs))
            line[f"{cost}, above the floor"] = _shown(exponent(*high))
            line[f"{cost}, from size"] = f"{high[0][0]:,.0f}" if len(high[0]) >= 3 else "-"
        found.append(line)
    return found


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def blank(curve: Curve, size: int, args: argparse.Namespace) -> Row:
    """The row of a size without its figures."""
    row: Row = {"task": curve.name, "axis": curve.axis, "envs": args.agent_envs, "skipped": ""}
    return row | {curve.axis: size}


def point(curve: Curve, size: int, args: argparse.Namespace) -> Row:
    """Measure one size in its own process."""
    row = blank(curve, size, args)
    agents = ["--agents", size] if curve.axis == "agents" else []
    options = {key: getattr(args, key) for key in ("steps", "seconds", "memory", "device")}
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    command = [sys.executable, HERE / "growth_point.py", curve.task, "--envs", row["envs"], *agents]
    command += [*flags, "--parameters", *curve.parameters]
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=args.limit,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return row | {"skipped": f"more than {args.limit} s"}
    except subprocess.CalledProcessError as error:
        if error.returncode < 0 or "out of memory" in error.stderr.lower():
            return row | {"skipped": f"ended by the system, limit {args.memory:g} GiB"}
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{error.stderr}") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return row | json.loads(lines[-1])


def per_agent_step(row: Row, steps: int) -> Row:
    """The row with its costs per agent-step, in ns and bytes."""
    if row["skipped"]:
        return row
    agents = row["envs"] * row["agents"]
    return row | {
        "agent_steps_per_s": round(agents / row["seconds"]),
        "ns_per_agent_step": round(1e9 * row["seconds"] / agents, 2),
        "bytes_per_agent_step": round(row["bytes"] / (agents * steps), 1),
    }


COLUMNS = (
    *("task", "axis", "envs", "agents", "seconds", "bytes"),
    *("agent_steps_per_s", "ns_per_agent_step", "bytes_per_agent_step", "compile_s", "skipped"),
)


POINT = ("task", "axis", "size")
"""What makes two points the same."""


def read(path: Path) -> list[Row]:
    """The rows that were measured before, numbers as numbers.

    Raises:
        ValueError: if the file has other columns: no row could be added.
    """
    rows = read_rows(path)
    if rows and tuple(rows[0]) != COLUMNS:
        raise ValueError(
            f"{path} has other columns than this version writes; move it away or take another --name."
        )
    return [parsed(f"{key}={value}" for key, value in row.items()) for row in rows]


def sized(row: Row) -> Row:
    """The row with the size of what grows."""
    return row | {"size": row[row["axis"]]}


def points(curves: list[Curve], args: argparse.Namespace) -> list[Row]:
    """All points that are asked for, each curve from small to large."""
    return [
        {"task": curve.name, "axis": curve.axis, "size": size, "curve": curve}
        for curve in curves
        for size in sorted(args.envs if curve.axis == "envs" else args.agents)
    ]


def measure(wanted: list[Row], args: argparse.Namespace, path: Path) -> None:
    """Measure the points that have no row in ``path``, and add each as it ends."""
    rows = read(path)
    for cell in with_progress(missing(wanted, map(sized, rows), POINT), POINT):
        row = per_agent_step(one(cell, rows, args), args.steps)
        rows.append({key: row.get(key, "") for key in COLUMNS})
        append(path, rows[-1])


def one(cell: Row, rows: list[Row], args: argparse.Namespace) -> Row:
    """The row of a point; where a smaller one of its curve was too large, it is not tried."""
    for row in map(sized, rows):
        same = (row["task"], row["axis"]) == (cell["task"], cell["axis"])
        if same and row["skipped"] and row["size"] < cell["size"]:
            reason = "not tried: a smaller size was too large"
            return blank(cell["curve"], cell["size"], args) | {"skipped": reason}
    return point(cell["curve"], cell["size"], args)


def in_order(rows: list[Row]) -> list[Row]:
    """Curves as in the tables above, then others as they came; each from small to large."""
    first = {(curve.name, curve.axis): place for place, curve in enumerate((*CURVES, *OTHERS))}
    place = [first.get((row["task"], row["axis"]), len(first)) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (place[i], sized(rows[i])["size"]))
    return [rows[i] for i in order]


def summarise(rows: list[Row], name: str) -> None:
    """Markdown of the exponents and the points, and the picture."""
    rows = in_order(rows)
    figures = ("agent_steps_per_s", "ns_per_agent_step", "bytes_per_agent_step")
    shown = ("task", "envs", "agents", *figures, "skipped")
    table = [{key: row[key] for key in shown} for row in rows]
    text = f"{markdown(exponents(rows))}\n\n{markdown(table)}\n"
    (RESULTS / f"{name}.md").write_text(text)
    plot(rows, RESULTS / f"{name}.png")


def plot(rows: list[Row], path: Path) -> None:
    """Time and memory per agent-step over both axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(10, 7), sharex="col", layout="constrained")
    units = {
        "ns_per_agent_step": "ns per agent-step",
        "bytes_per_agent_step": "bytes per agent-step",
    }
    for column, axis in enumerate(("envs", "agents")):
        for line, (key, unit) in enumerate(units.items()):
            axes = panels[line, column]
            for number, name in enumerate(dict.fromkeys(row["task"] for row in rows)):
                own = [row for row in rows if (row["task"], row["axis"]) == (name, axis)]
                own = [row for row in own if not row["skipped"]]
                if own:
                    x, y = [row[axis] for row in own], [row[key] for row in own]
                    line_style = ("-", "--", ":")[number // 10 % 3]
                    axes.loglog(x, y, f"o{line_style}", color=f"C{number % 10}", label=name)
            axes.set(ylabel=unit)
            axes.grid(alpha=0.3)
            if axes.has_data():
                axes.legend(fontsize=8 if axis == "agents" else 6, ncols=2)
        panels[1, column].set(xlabel="environments" if axis == "envs" else "agents")
    figure.suptitle("Compiled collector, random actions")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure curve by curve, then make table and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    whole = {"type": int, "nargs": "+"}
    parser.add_argument("--envs", default=[4**k for k in range(9)], **whole)
    parser.add_argument("--agents", default=[3, 10, 30, 100, 300, 1000], **whole)
    parser.add_argument("--agent-envs", type=int, default=16, help="environments while agents grow")
    parser.add_argument("--tasks", nargs="+", help="only these (default: all curves)")
    parser.add_argument("--every-task", action="store_true", help="also those without a curve")
    parser.add_argument("--axes", nargs="+", choices=["envs", "agents"], default=["envs", "agents"])
    parser.add_argument("--steps", type=int, default=20, help="steps of a batch")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for batches at each size")
    parser.add_argument("--memory", type=float, default=20.0, help="limit of a process, GiB")
    parser.add_argument("--limit", type=float, default=600.0, help="limit of a process, s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="growth", help="of the result files")
    parser.add_argument("--summary", action="store_true", help="measure nothing")
    args = parser.parse_args()
    path = RESULTS / f"{args.name}.csv"
    curves = [c for c in (*CURVES, *(OTHERS if args.every_task else ())) if c.axis in args.axes]
    curves = [c for c in curves if not args.tasks or c.task in args.tasks]
    if not args.summary:
        measure(points(curves, args), args, path)
    rows = read(path)
    if not rows:
        raise SystemExit(f"there are no rows in {path}; leave out --summary to measure some.")
    summarise(rows, args.name)
    print((RESULTS / f"{args.name}.md").read_text())


if __name__ == "__main__":
    main()
