r"""Our MAPPO, MADDPG, QMIX, MASAC and ISAC beside BenchMARL's own, on VMAS tasks.

Same task object, same networks, same experiment settings and budget; otherwise each library's own algorithm
defaults.
The figure of merit is the return (mean over agents, one episode of 100 steps) of the trained policy acting at
its mode, over 100 fresh episodes; the mean over the last fifth of training stands beside it.

    python benchmarks/beside_benchmarl.py --algorithms mappo maddpg qmix --tasks navigation balance
    python benchmarks/beside_benchmarl.py --algorithms masac isac --name beside_benchmarl_sac
    python benchmarks/beside_benchmarl.py --algorithms mappo maddpg masac --tasks transport \
        --task-set package_mass=1 --name beside_benchmarl_light

write `results/<name>.csv`, `<name>_curves.csv`, `.md` and one `.png` per task; runs whose row is there are
skipped. Needs the extra `vmas`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import VmasTask
from common import (
    RESULTS,
    Curve,
    Run,
    append,
    episode_returns,
    markdown,
    mlp,
    parsed,
    plot_curves,
    read_rows,
    settings,
    train,
)
from registry_runs import missing, with_progress

from marl_td import register

TASKS = {
    "navigation": VmasTask.NAVIGATION,
    "balance": VmasTask.BALANCE,
    "transport": VmasTask.TRANSPORT,
}
FRAMES = {"mappo": 150_000, "maddpg": 60_000, "qmix": 120_000, "masac": 60_000, "isac": 60_000}
SAME_NETWORKS = {
    "marl_td/qmix": {"hypernet_layers": 1},
    "marl_td/masac": {"share_param_critic": True},
}
"""Our settings that make the networks BenchMARL's: its mixer has hypernetworks of one layer, its soft critics
are one network for all agents."""
ALPHA_INIT = 0.01
"""Temperature at the start, of both. At their default of 1.0 it outweighs these rewards (about 0.01 a step)
until such a short run ends, and policies are still nearly uniform then."""
LIBRARIES = ("marl_td", "benchmarl")
NAME = "beside_benchmarl"
CELL = ("task", "algorithm", "library", "seed", "frames")


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
    """Return per agent of fresh episodes, and the mean over the last fifth of training.

    Raises:
        ValueError: if no episode ended in training.
    """
    experiment = run.experiment
    if not run.curve.returns:
        raise ValueError(
            f"no episode ended in {experiment.total_frames} frames of training; give more --frames."
        )
    env = experiment.task.get_env_fun(n_episodes, experiment.continuous_actions, 10_000, "cpu")()
    n_agents = sum(len(agents) for agents in experiment.group_map.values())
    value = episode_returns(env, experiment.policy, 100).mean().item() / n_agents
    last = run.curve.returns[-max(1, len(run.curve.returns) // 5) :]
    return value, statistics.mean(last) / n_agents


def algorithm_config(library: str, algorithm: str, alpha_init: float) -> Any:
    """The library's defaults, with BenchMARL's networks in ours and both at the same temperature."""
    name = f"marl_td/{algorithm}" if library == "marl_td" else algorithm
    changed: dict[str, Any] = dict(SAME_NETWORKS.get(name, {}))
    config = algorithm_config_registry[name].get_from_yaml()
    if hasattr(config, "alpha_init"):
        changed["alpha_init"] = alpha_init
    return replace(config, **changed)


def task_of(name: str, changes: Iterable[str]) -> Any:
    """The VMAS task with BenchMARL's settings, but for ``changes`` as ``package_mass=1``.

    Raises:
        ValueError: if a task has no such setting.
    """
    task = TASKS[name].get_from_yaml()
    changed = parsed(changes)
    unknown = ", ".join(sorted(changed.keys() - task.config.keys()))
    if unknown:
        raise ValueError(f"{name} has no setting {unknown}; it has {', '.join(task.config)}.")
    task.config |= changed
    return task


def wanted(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs asked for; the libraries side by side, so that both see the same state of the machine."""
    for task, seed in product(args.tasks, args.seeds):
        for algorithm, library in product(args.algorithms, args.libraries):
            frames = args.frames or FRAMES[algorithm]
            values = (task, algorithm, library, seed, frames)
            yield dict(zip(CELL, values, strict=True))


def run_one(cell: dict[str, Any], args: argparse.Namespace) -> None:
    """Train and judge once; write the curve, then the row that says the run is there."""
    algorithm = algorithm_config(cell["library"], cell["algorithm"], args.alpha_init)
    if cell["library"] == "marl_td":
        algorithm = replace(algorithm, **parsed(args.ours))
    run = train(
        task_of(cell["task"], args.task_set),
        algorithm,
        cell["seed"],
        config(cell["frames"]),
        mlp(64, 64),
    )
    final, last = measure(run, args.episodes)
    points = zip(run.curve.frames, run.curve.returns, strict=True)
    for step, value in points:
        append(
            RESULTS / f"{args.name}_curves.csv", cell | {"step": step, "return": round(value, 3)}
        )
    figures = {"return": round(final, 3), "training return": round(last, 3)}
    append(RESULTS / f"{args.name}.csv", cell | figures | {"seconds": round(run.seconds, 1)})


def draw(args: argparse.Namespace) -> None:
    """A picture per task of all curves that are there."""
    points = read_rows(RESULTS / f"{args.name}_curves.csv")
    for task in dict.fromkeys(point["task"] for point in points):
        curves: dict[str, Curve] = {}
        for point in points:
            if point["task"] == task:
                label = "{library} {algorithm} {seed}".format(**point)
                curve = curves.setdefault(label, Curve())
                curve.frames.append(int(point["step"]))
                curve.returns.append(float(point["return"]))
        path = RESULTS / f"{args.name}_{task}.png"
        plot_curves(path, curves, {}, f"VMAS {task}", "return, sum over agents")


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
            columns = [f"{library} {name}" for name in ("return", "(min, max)", "training", "s")]
            line |= dict.fromkeys(columns, "-")
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
    parser.add_argument("--alpha-init", type=float, default=ALPHA_INIT, help="of MASAC and ISAC")
    parser.add_argument(
        "--ours",
        nargs="*",
        default=[],
        help="settings of our algorithm, as actor_gradient=all; with a --name of their own",
    )
    parser.add_argument(
        "--task-set",
        nargs="*",
        default=[],
        help="settings of the task, as package_mass=1; with a --name of their own",
    )
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    register()
    path = RESULTS / f"{args.name}.csv"
    if not args.summary:
        for cell in with_progress(missing(list(wanted(args)), read_rows(path), CELL), CELL[:4]):
            run_one(cell, args)
    draw(args)
    path.with_suffix(".md").write_text(markdown(summary(read_rows(path))) + "\n")


if __name__ == "__main__":
    main()
