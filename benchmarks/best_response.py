"""How much a trained run, or a task's rule, can be exploited: a fresh best response to each of its groups.

Everybody else is frozen; the learner has the algorithm, networks and settings of the run.

    python benchmarks/best_response.py runs/pong --frames 2000000
    python benchmarks/best_response.py runs/pong --rule striker --groups left   # exploits a rule

prints a line per group and writes `results/NAME.csv` and `.md`, in which rows of other runs and seeds stay.
Responses are runs themselves, in `--out`. A learned one need not be the best: figures are lower bounds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import put

from marl_td.evaluation.best_response import Response, respond
from marl_td.evaluation.cross_play import Player, rule_player, trained_player
from marl_td.tasks.vector_env import batched_task
from marl_td.training.trained import TrainedRun, load_run


def frozen_player(run: TrainedRun, rule: str | None) -> Player:
    """The run's own player, or the task's rule of that name.

    Raises:
        ValueError: if the task has no such rule.
    """
    if rule is None:
        return trained_player("run", run)
    rules = batched_task(run.env).baselines()  # type: ignore[union-attr]
    if rule not in rules:
        raise ValueError(f"no rule '{rule}'; the task has {', '.join(rules)}.")
    return rule_player(rule, rules[rule], run.env.group_map)


CELL = ("frozen", "learner", "seed")
"""What makes two rows the same."""


def row(name: str, found: Response, frames: int, args: argparse.Namespace) -> dict[str, Any]:
    """One group's line."""
    return {
        "frozen": name,
        "learner": found.group,
        "own return": f"{found.own.value:.3f}",
        "own 95 %": f"{found.own.low:.3f} to {found.own.high:.3f}",
        "response": f"{found.response.value:.3f}",
        "response 95 %": f"{found.response.low:.3f} to {found.response.high:.3f}",
        "gain": f"{found.gain:.3f}",
        "frames": frames,
        "episodes": args.episodes,
        "seed": args.seed,
    }


def main() -> None:
    """Train and judge the responses one after the other; results are written after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="what `marl-td train --out` wrote")
    parser.add_argument("--rule", help="freeze this rule of the task instead of the run's policy")
    parser.add_argument("--groups", nargs="+", help="who switches; every group by default")
    parser.add_argument("--frames", type=int, help="environment steps; the run's own by default")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", action="store_true", help="frozen players take likely actions")
    parser.add_argument("--out", type=Path, default=Path("runs/best_response"))
    parser.add_argument("--name", default="best_response")
    args = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(args.run, 1)
    task = batched_task(run.env)
    if task is None:
        parser.error("the run's task is none of ours")
    player = frozen_player(run, args.rule)
    name = args.rule or args.run.name
    config = run.settings.experiment_config
    config = replace(config, max_n_frames=args.frames or config.max_n_frames)
    settings = replace(run.settings, experiment_config=config, seed=args.seed)
    for group in args.groups or task.groups:
        found = respond(
            task,
            dict.fromkeys(task.groups, player),
            group,
            settings,
            args.out / name / group,
            n_episodes=args.episodes,
            seed=args.seed,
            deterministic=args.mode,
        )
        new = row(name, found, config.max_n_frames, args)
        print(new, flush=True)
        put(args.name, new, CELL)


if __name__ == "__main__":
    main()
