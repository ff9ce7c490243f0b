"""Algorithms and penalties on pursuit: who still learns to catch when catching alone costs.

    python benchmarks/pursuit_table.py                                # the whole table
    python benchmarks/pursuit_table.py --algorithms vdn --penalties 0 --seeds 0
    python benchmarks/pursuit_table.py --summary                      # only the tables, from the rows

Trains every algorithm at every penalty with every seed, one after the other, and plays episodes with the
trained policy without exploration. A row is written when its run has ended, and runs whose row is there are
skipped, so that the command can be stopped and started again. Writes `.csv`, `.md` and `.png` of the name
`results/pursuit_table`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, append, markdown, mlp, parsed, read_rows, settings
from tqdm import tqdm

from marl_td import register
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.evaluation.baselines import baseline_table
from marl_td.evaluation.scores import evaluate_episodes
from marl_td.evaluation.statistics import mean_interval
from marl_td.registry import algorithm_config
from marl_td.tasks import make_task
from marl_td.training.config import RunConfig
from marl_td.training.experiment import Experiment

NAME = "pursuit_table"
ALGORITHMS = ["iql", "vdn", "qmix", "cw_qmix", "ow_qmix", "qtran_base", "qatten", "qplex", "shaq"]
TASK = {"grid_size": 5, "n_agents": 4, "n_prey": 4, "prey_rest": 0.3, "max_steps": 40}
"""A smaller board than the paper's and prey that rest now and then, for short budgets."""
N_ENVS, N_STEPS = 128, 10
"""Environments side by side, and their steps between two rounds of updates."""
SETTINGS: dict[str, Any] = {
    "lr": 1e-3,
    "gamma": 0.98,
    "clip_grad_val": 10.0,
    "soft_target_update": True,
    "polyak_tau": 0.01,
    "exploration_eps_init": 1.0,
    "exploration_eps_end": 0.05,
    "off_policy_n_envs_per_worker": N_ENVS,
    "off_policy_collected_frames_per_batch": N_ENVS * N_STEPS,
    "off_policy_n_optimizer_steps": 40,
    "off_policy_train_batch_size": 128,
    "off_policy_memory_size": 50_000,
    "off_policy_init_random_frames": 4 * N_ENVS * N_STEPS,
    "checkpoint_at_end": False,
}
"""Settings of every run beside BenchMARL's."""


def train(name: str, task: dict[str, Any], seed: int, args: argparse.Namespace) -> Experiment:
    """One training run."""
    made = MarlTdTask.PURSUIT.get_from_yaml()
    made.config.update(task)
    anneal = {"exploration_anneal_frames": args.frames // 2, "max_n_frames": args.frames}
    plain = settings(**{**SETTINGS, **anneal, **parsed(args.set)})
    config = RunConfig(**vars(plain), compile=args.compile)
    algorithm = replace(algorithm_config(name)(), **parsed(args.algorithm_set))
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        model = mlp(args.width, args.width, activation=torch.nn.ReLU)
        experiment = Experiment(made, algorithm, model, seed, config)
        experiment.show_progress = False
        experiment.run()
    return experiment


def judge(experiment: Experiment, task: dict[str, Any], n_episodes: int) -> dict[str, Any]:
    """Return and raw counts per episode, means with the half-width of their 95 % interval."""
    made = make_task("pursuit", **task)
    totals = evaluate_episodes(made, experiment.policy, n_episodes, seed=10_000).totals
    found = {}
    for label, key in (("return", "return"), ("caught", "captures"), ("lone", "lone_catches")):
        mean = mean_interval(totals[key])
        found |= {label: round(mean.value, 3), f"{label} +-": round(mean.high - mean.value, 3)}
    return found


def key(row: dict[str, Any]) -> tuple[str, ...]:
    """What makes two rows the same run."""
    return tuple(str(row[name]) for name in ("algorithm", "penalty", "seed", "frames", "board"))


def board(task: dict[str, Any]) -> str:
    """The task's parameters beside the penalty, in one word."""
    return ",".join(f"{name}={value}" for name, value in sorted(task.items()))


def wanted(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs asked for; all algorithms of a seed before the next seed."""
    task = board({**TASK, **parsed(args.task)})
    for seed in args.seeds:
        for penalty in args.penalties:
            for name in args.algorithms:
                row = {"algorithm": name, "penalty": f"{penalty:g}", "seed": seed}
                yield row | {"frames": args.frames, "board": task}


def run_all(args: argparse.Namespace, path: Path) -> None:
    """Train and judge what is not there yet."""
    done = {key(row) for row in read_rows(path)}
    runs = [row for row in wanted(args) if key(row) not in done]
    bar = tqdm(runs, unit=" runs", dynamic_ncols=True)
    for row in bar:
        bar.set_description(f"{row['algorithm']}, penalty {row['penalty']}, seed {row['seed']}")
        task = {**TASK, **parsed(args.task), "penalty": float(row["penalty"])}
        start = time.perf_counter()
        experiment = train(row["algorithm"], task, row["seed"], args)
        seconds = round(time.perf_counter() - start)
        found = row | judge(experiment, task, args.episodes) | {"seconds": seconds}
        append(path, found)
        bar.write(f"{found}")


def summary(rows: list[dict[str, Any]], quantity: str) -> list[dict[str, Any]]:
    """Mean over seeds with the worst and the best, a row per algorithm and a column per penalty."""
    penalties = sorted({float(row["penalty"]) for row in rows})
    out = []
    for name in dict.fromkeys(row["algorithm"] for row in rows):
        line = {"algorithm": name}
        for penalty in penalties:
            same = [
                float(row[quantity])
                for row in rows
                if row["algorithm"] == name and float(row["penalty"]) == penalty
            ]
            shown = (
                [f"{round(f(same), 2) + 0.0:.2f}" for f in (statistics.mean, min, max)]
                if same
                else []
            )
            line[f"penalty {penalty:g}"] = "{} ({} to {})".format(*shown) if shown else "-"
        out.append(line)
    return out


def yardstick(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns of the policies by rule, a column per penalty."""
    lines: dict[str, dict[str, Any]] = {}
    for penalty in args.penalties:
        task = make_task("pursuit", **{**TASK, **parsed(args.task), "penalty": penalty})
        for row in baseline_table("pursuit", task, args.episodes, seed=0).rows:
            line = lines.setdefault(row.policy, {"policy": row.policy})
            line[f"penalty {penalty:g}"] = f"{row.value:.2f} +- {row.high - row.value:.2f}"
    return list(lines.values())


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """A bar per algorithm and penalty, a point per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    penalties = sorted({float(row["penalty"]) for row in rows})
    width = 0.8 / len(penalties)
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for k, penalty in enumerate(penalties):
        for i, name in enumerate(names):
            same = [
                float(row["caught"])
                for row in rows
                if row["algorithm"] == name and float(row["penalty"]) == penalty
            ]
            place = i + (k - (len(penalties) - 1) / 2) * width
            if same:
                label = f"penalty {penalty:g}" if i == 0 else None
                axes.bar(place, statistics.mean(same), 0.9 * width, color=f"C{k}", label=label)
                axes.plot([place] * len(same), same, "o", color="black", markersize=3)
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set(ylabel="prey caught per episode", title="pursuit: catching alone costs the penalty")
    axes.margins(y=0.2)
    axes.legend(loc="upper right", ncols=len(penalties))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train what is missing, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS)
    parser.add_argument("--penalties", type=float, nargs="+", default=[0.0, 2.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, default=30_000, help="environment steps of a run")
    parser.add_argument("--episodes", type=int, default=256, help="judged without exploration")
    parser.add_argument("--width", type=int, default=64, help="of the two hidden layers")
    parser.add_argument("--compile", choices=["auto", "on", "off"], default="auto")
    parser.add_argument("--task", nargs="*", default=[], help="of the task, as grid_size=10")
    parser.add_argument("--set", nargs="*", default=[], help="of the experiment, as lr=1e-3")
    parser.add_argument("--algorithm-set", nargs="*", default=[], help="as double_q=false")
    parser.add_argument("--name", default=NAME, help="of the result files")
    parser.add_argument("--summary", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    register()
    path = RESULTS / f"{args.name}.csv"
    if not args.summary:
        run_all(args, path)
    asked = {key(row) for row in wanted(args)}
    rows = [row for row in read_rows(path) if key(row) in asked]
    parts = [markdown(summary(rows, quantity)) for quantity in ("return", "caught", "lone")]
    titles = ("Return", "Prey caught", "Lone catches", "Return of the policies by rule")
    tables = [*parts, markdown(yardstick(args))]
    text = "\n\n".join(f"{title}\n\n{table}" for title, table in zip(titles, tables, strict=True))
    path.with_suffix(".md").write_text(text + "\n")
    plot(path.with_suffix(".png"), rows)
    print(text)


if __name__ == "__main__":
    main()
