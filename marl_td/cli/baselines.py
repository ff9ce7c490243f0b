"""``marl-td baselines``: what a task is worth to random and classical policies, and at best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_td.cli.output import (
    Steps,
    add_import_option,
    add_progress_option,
    count,
    note,
    print_json,
    table_text,
)

if TYPE_CHECKING:
    from marl_td.evaluation.baselines import BaselineTable
    from marl_td.tasks.base import Task


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "baselines",
        help="random and classical policies of a task, and its optimum",
        description="Without training: the task's random policy, each classical baseline with its "
        "95 % interval, and the optimum or bound with how it is known.",
        epilog="example: marl-td baselines task=marl_td/retail task.n_agents=3 --episodes 500",
    )
    parser.add_argument(
        "overrides", nargs="+", metavar="name=value", help="task=NAME and the task's settings"
    )
    parser.add_argument(
        "--episodes",
        type=count,
        default=256,
        metavar="N",
        help="episodes per policy (default: 256)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the episodes (default: 0)")
    parser.add_argument(
        "--discrete", action="store_true", help="discrete actions, where a task offers both kinds"
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="also record one episode (.mp4 or .gif)"
    )
    parser.add_argument(
        "--policy", metavar="NAME", help="whose episode is recorded (default: the best policy's)"
    )
    parser.add_argument("--fps", type=count, default=20, metavar="N", help="pictures per second")
    parser.add_argument(
        "--every", type=count, default=1, metavar="K", help="a picture of every K-th step only"
    )
    add_import_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    add_progress_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the baselines and print them."""
    if arguments.episodes < 2:
        raise ValueError(
            f"--episodes must be at least 2, for an interval; got {arguments.episodes}."
        )
    if arguments.policy is not None and arguments.video is None:
        raise ValueError("--policy says whose episode --video FILE records; give --video, too.")
    from marl_td.collect.episodes import batched_task
    from marl_td.evaluation.baselines import baseline_table
    from marl_td.evaluation.scores import MAX_COPIES
    from marl_td.training.compose import compose_task

    name, task = compose_task(arguments.overrides)
    continuous = task.supports_continuous_actions() and not arguments.discrete
    if not continuous and not task.supports_discrete_actions():
        raise ValueError(f"task '{name}' has no discrete actions; leave out --discrete.")
    n_copies = min(arguments.episodes, getattr(task, "max_copies", None) or MAX_COPIES)
    env = task.get_env_fun(n_copies, continuous, arguments.seed, "cpu")()
    ours = batched_task(env)
    if arguments.video is not None:
        check_video(name, ours, arguments.policy)
    table = baseline_table(
        name,
        ours or env,
        arguments.episodes,
        arguments.seed,
        Steps(arguments.progress, "evaluating"),
        max_steps=task.max_steps(env),
    )
    if ours is not None and arguments.video is not None:
        record(ours, arguments.policy or table.best_row().policy, arguments)
    if arguments.json:
        print_json(table.as_dict())
    else:
        print_table(table, arguments.episodes)
    return 0


def print_table(table: BaselineTable, n_episodes: int) -> None:
    """The policies, and how the optimum or bound is known."""
    from marl_td.evaluation.report import table_cells

    better = "higher" if table.higher_is_better else "lower"
    print(f"{table.task}: {table.unit}, {better} is better, {n_episodes} episodes per policy")
    print(table_text(("policy", "value", "95 % interval"), table_cells(table.rows, table)))
    for remark in table.remarks():
        print(remark)
    if table.optimum is not None:
        print(f"Optimum or bound: {table.optimum.how}.")


def check_video(name: str, task: Task[Any, Any] | None, policy: str | None) -> None:
    """Refuse, before anything is played, what cannot be recorded.

    Raises:
        ValueError: for an environment without policies of its own, or the name of another policy.
    """
    from marl_td.evaluation.baselines import RANDOM

    if task is None:
        raise ValueError(
            f"'{name}' has no policies to record: `marl-td evaluate DIR --video FILE`."
        )
    names = [RANDOM, *task.baselines()]
    if policy is not None and policy not in names:
        raise ValueError(f"'{name}' has no policy '{policy}'; it has {', '.join(names)}.")


def record(task: Task[Any, Any], policy: str, arguments: argparse.Namespace) -> None:
    """Write one episode of ``policy`` to ``--video``."""
    from marl_td.evaluation.baselines import RANDOM
    from marl_td.evaluation.episode import record_video
    from marl_td.tasks.vector_env import VectorEnv

    env = VectorEnv(task, 1)
    act = env.rand_action if policy == RANDOM else task.baselines()[policy]
    pictures = record_video(
        env, act, arguments.seed, arguments.video, arguments.fps, arguments.every
    )
    note(f"wrote {pictures} pictures of {policy} to {arguments.video}")
