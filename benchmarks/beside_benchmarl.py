"""Our MAPPO, MADDPG, QMIX, MASAC and ISAC beside BenchMARL's own, on VMAS tasks.

Same task object, same networks, same experiment settings and budget; otherwise each library's own algorithm
defaults.
The figure of merit is the return (mean over agents, one episode of 100 steps) of the trained policy acting at
its mode, over 100 fresh episodes; the mean over the last fifth of training stands beside it.

    python benchmarks/beside_benchmarl.py --algorithms mappo maddpg qmix --tasks navigation balance
    python benchmarks/beside_benchmarl.py --algorithms masac isac --name beside_benchmarl_sac

write `results/<name>.csv`, `.md` and one `.png` per task. Needs the extra `vmas`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import VmasTask
from common import (
    RESULTS,
    Run,
    episode_returns,
    markdown,
    mlp,
    plot_curves,
    settings,
    train,
    write_csv,
)

from marl_td import register

TASKS = {
    "navigation": VmasTask.NAVIGATION,
    "balance": VmasTask.BALANCE,
    "transport": VmasTask.TRANSPORT,
}
FRAMES = {"mappo": 150_000, "maddpg": 60_000, "qmix": 120_000, "masac": 60_000, "isac": 60_000}
SAME_NETWORKS = {"qmix": {"hypernet_layers": 1}}
"""Our settings that make the networks BenchMARL's: its mixer has hypernetworks of one layer."""
LIBRARIES = ("marl_td", "benchmarl")
NAME = "beside_benchmarl"


def config(n_frames: int) -> Any:
    """The settings both libraries run with."""
    return settings(
        max_n_frames=n_frames,
        gamma=0.9,
        lr=5e-4,
        prefer_continuous_actions=True,
        soft_target_update=True,
        polyak_tau=0.005,
        exploration_eps_init=0.8,
        exploration_eps_end=0.05,
        exploration_anneal_frames=n_frames // 2,
        on_policy_n_envs_per_worker=60,
        on_policy_collected_frames_per_batch=6000,
        on_policy_n_minibatch_iters=8,
        on_policy_minibatch_size=600,
        off_policy_n_envs_per_worker=60,
        off_policy_collected_frames_per_batch=3000,
        off_policy_n_optimizer_steps=600,
        off_policy_train_batch_size=128,
        off_policy_memory_size=200_000,
    )


def measure(run: Run, n_episodes: int) -> tuple[float, float]:
    """Return per agent of fresh episodes, and the mean over the last fifth of training."""
    experiment = run.experiment
    env = experiment.task.get_env_fun(n_episodes, experiment.continuous_actions, 10_000, "cpu")()
    n_agents = sum(len(agents) for agents in experiment.group_map.values())
    value = episode_returns(env, experiment.policy, 100).mean().item() / n_agents
    last = run.curve.returns[-max(1, len(run.curve.returns) // 5) :]
    return value, statistics.mean(last) / n_agents


def algorithm_config(library: str, algorithm: str) -> Any:
    """The library's defaults, with BenchMARL's networks in ours."""
    if library == "benchmarl":
        return algorithm_config_registry[algorithm].get_from_yaml()
    settings_of_ours = SAME_NETWORKS.get(algorithm, {})
    return replace(
        algorithm_config_registry[f"marl_td/{algorithm}"].get_from_yaml(), **settings_of_ours
    )


def run_one(
    task_name: str, algorithm: str, library: str, seed: int, args: argparse.Namespace
) -> tuple[dict[str, Any], Any]:
    """Train and judge once: a row of the table, and the curve."""
    run = train(
        TASKS[task_name].get_from_yaml(),
        algorithm_config(library, algorithm),
        seed,
        config(args.frames or FRAMES[algorithm]),
        mlp(64, 64),
    )
    final, last = measure(run, args.episodes)
    row = {
        "task": task_name,
        "algorithm": algorithm,
        "library": library,
        "seed": seed,
        "frames": run.experiment.total_frames,
        "return": round(final, 3),
        "training return": round(last, 3),
        "seconds": round(run.seconds, 1),
    }
    return row, run.curve


def run_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Interleave the libraries, so that both see the same state of the machine."""
    rows, curves = [], {name: {} for name in args.tasks}
    for task_name in args.tasks:
        for algorithm, seed, library in product(args.algorithms, args.seeds, args.libraries):
            row, curve = run_one(task_name, algorithm, library, seed, args)
            rows.append(row)
            curves[task_name][f"{library} {algorithm} {seed}"] = curve
            print(row, flush=True)
            write_csv(args.name, rows)
        path = RESULTS / f"{args.name}_{task_name}.png"
        plot_curves(path, curves[task_name], {}, f"VMAS {task_name}", "return, sum over agents")
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds, ours beside theirs."""
    out = []
    for task, algorithm in dict.fromkeys((row["task"], row["algorithm"]) for row in rows):
        line: dict[str, Any] = {"task": task, "algorithm": algorithm}
        for library in LIBRARIES:
            chosen = [
                row
                for row in rows
                if (row["task"], row["algorithm"], row["library"]) == (task, algorithm, library)
            ]
            if not chosen:
                continue
            finals = [float(row["return"]) for row in chosen]
            lasts = [float(row["training return"]) for row in chosen]
            line[f"{library} return"] = f"{statistics.mean(finals):.3f}"
            line[f"{library} (min, max)"] = f"{min(finals):.3f}, {max(finals):.3f}"
            line[f"{library} training"] = f"{statistics.mean(lasts):.3f}"
            line[f"{library} s"] = f"{statistics.mean(float(row['seconds']) for row in chosen):.0f}"
        out.append(line)
    return out


def main() -> None:
    """Run, or with `--summary` only rebuild the table from the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--algorithms", nargs="+", default=["mappo", "maddpg", "qmix"])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, help=f"environment steps; default {FRAMES}")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    register()
    if args.summary:
        with (RESULTS / f"{args.name}.csv").open() as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        rows = run_all(args)
    (RESULTS / f"{args.name}.md").write_text(markdown(summary(rows)) + "\n")


if __name__ == "__main__":
    main()
