"""``marl-td baselines``: what a task is worth to random and classical policies, and at best."""

from __future__ import annotations

import argparse
from typing import Any

from marl_td.cli.output import Steps, add_progress_option, count, print_json, table_text


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "baselines",
        help="random and classical policies of a task, and its optimum",
        description="Without training: the task's random policy, each classical baseline with its "
        "95 %% interval, and the optimum or bound with how it is known.",
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
    parser.add_argument("--json", action="store_true", help="print JSON only")
    add_progress_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the baselines and print them."""
    if arguments.episodes < 2:
        raise ValueError(
            f"--episodes must be at least 2, for an interval; got {arguments.episodes}."
        )
    from marl_td.collect.episodes import batched_task
    from marl_td.evaluation.baselines import baseline_table
    from marl_td.evaluation.report import table_cells
    from marl_td.evaluation.scores import MAX_COPIES
    from marl_td.training.compose import compose_task

    name, task = compose_task(arguments.overrides)
    continuous = task.supports_continuous_actions() and not arguments.discrete
    if not continuous and not task.supports_discrete_actions():
        raise ValueError(f"task '{name}' has no discrete actions; leave out --discrete.")
    n_copies = min(arguments.episodes, getattr(task, "max_copies", None) or MAX_COPIES)
    env = task.get_env_fun(n_copies, continuous, arguments.seed, "cpu")()
    table = baseline_table(
        name,
        batched_task(env) or env,
        arguments.episodes,
        arguments.seed,
        Steps(arguments.progress, "evaluating"),
        max_steps=task.max_steps(env),
    )
    if arguments.json:
        print_json(table.as_dict())
        return 0
    better = "higher" if table.higher_is_better else "lower"
    print(f"{name}: {table.unit}, {better} is better, {arguments.episodes} episodes per policy")
    print(table_text(("policy", "value", "95 % interval"), table_cells(table.rows, table)))
    if table.optimum is not None:
        print(f"Optimum or bound: {table.optimum.how}.")
    return 0
