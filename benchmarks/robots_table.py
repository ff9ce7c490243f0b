"""Robots by rule: path finding in all modes and levels, and the warehouse at 10, 100 and 1,000 robots.

    python benchmarks/robots_table.py
    python benchmarks/robots_table.py --tasks warehouse --sizes 10 100 --episodes 32
    python benchmarks/robots_table.py --tasks mapf --policies prioritised

Path finding: the score (shortest ways / costs), its inverse as the literature has it (sum of costs / sum
of shortest ways), agents at their goals at the end, episodes solved, and the makespan of those (steps until
all are there). Warehouse: deliveries per step beside the upper bound, and how many moves fail; token passing
with up to 100 robots. Writes `results/robots_table_mapf` and `results/robots_table_warehouse` as CSV and
Markdown; with `--policies` only prints.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import RESULTS, markdown, write_csv

from marl_td.evaluation.scores import evaluate_episodes
from marl_td.evaluation.statistics import mean_interval
from marl_td.tasks import make_task

MODES, LEVELS = ("finish", "nothing", "restart"), ("easy", "medium", "hard")
MOST = {"token_passing": 100}
"""Robots at most of planners that take many minutes per episode with a thousand."""
Row = dict[str, Any]


def played(task: Any, name: str | None, episodes: int) -> tuple[Row, dict[str, Any]]:
    """A row with the score and its interval, and the sums of every episode; None is the random policy."""
    policy = None if name is None else task.baselines()[name]
    totals = evaluate_episodes(task, policy, episodes, seed=0).totals
    mean, low, high = mean_interval(task.score(totals))
    return {"policy": name or "random", "score": f"{mean:.3f} ({low:.3f} to {high:.3f})"}, totals


def chosen(task: Any, policies: list[str]) -> list[str | None]:
    """The task's policies that are played, or those of them that are asked for."""
    names = ["random", *task.baselines()]
    names = [name for name in names if task.params.n_agents <= MOST.get(name, 1_000_000)]
    return [
        None if name == "random" else name for name in names if not policies or name in policies
    ]


def path_finding(episodes: int, policies: list[str]) -> list[Row]:
    """A row per level, mode and policy."""
    rows = []
    for level in LEVELS:
        for mode in MODES:
            task = make_task("mapf", level=level, mode=mode)
            for name in chosen(task, policies):
                row, sums = played(task, name, episodes)
                solved = sums["solved"] > 0
                there = sums["arrivals"].mean() / task.params.n_agents
                makespan = sums["steps"][solved].mean() if solved.any() else float("nan")
                ratio = sums["cost"].sum() / sums["shortest"].sum()
                lifelong = mode == "restart"
                row |= {
                    "costs / shortest": f"{ratio:.2f}",
                    "at goal, %": "-" if lifelong else f"{100 * there:.0f}",
                    "solved, %": "-" if lifelong else f"{100 * solved.double().mean():.0f}",
                    "makespan": f"{makespan:.1f}" if solved.any() else "-",
                    "goals per step": f"{sums['arrivals'].sum() / sums['steps'].sum():.2f}",
                }
                rows.append({"level": level, "mode": mode} | row)
                print(rows[-1], flush=True)
    return rows


def warehouse(sizes: list[int], episodes: int, policies: list[str]) -> list[Row]:
    """A row per number of robots and policy; fewer episodes for many robots."""
    rows = []
    for n_agents in sizes:
        task = make_task(
            "warehouse", n_agents=n_agents, sight=1
        )  # rules do not read what robots see
        bound = task.optimum().value
        for name in chosen(task, policies):
            row, sums = played(task, name, max(4, min(episodes, 3200 // n_agents)))
            share = float((task.score(sums) / bound).mean())
            moves = sums["blocked"].sum() / sums["steps"].sum() / n_agents
            row |= {
                "share of the bound, %": f"{100 * share:.1f}",
                "failed moves, %": f"{100 * moves:.1f}",
            }
            rows.append({"robots": n_agents, "bound": f"{bound:.3f}"} | row)
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Play, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["mapf", "warehouse"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 100, 1000], help="robots")
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--policies", nargs="+", default=[], help="only these, and write nothing")
    args = parser.parse_args()
    for name in args.tasks:
        if name == "mapf":
            rows = path_finding(args.episodes, args.policies)
        else:
            rows = warehouse(args.sizes, args.episodes, args.policies)
        if not args.policies:
            write_csv(f"robots_table_{name}", rows)
            (RESULTS / f"robots_table_{name}.md").write_text(markdown(rows) + "\n")


if __name__ == "__main__":
    main()
