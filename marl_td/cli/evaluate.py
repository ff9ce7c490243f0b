"""``marl-td evaluate``: what a trained policy is worth, beside what it is compared with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_td.cli.output import (
    Steps,
    add_env_option,
    add_import_option,
    add_progress_option,
    count,
    note,
    print_json,
    table_text,
)

if TYPE_CHECKING:
    from marl_td.evaluation.report import RunReport


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="evaluate a trained policy",
        description="Score of a trained policy with its 95 % interval, beside random, the classical "
        "baselines and the optimum or bound. Also renews DIR/report.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `marl-td train --out` wrote")
    parser.add_argument(
        "--episodes",
        type=count,
        default=256,
        metavar="N",
        help="episodes per policy (default: 256)",
    )
    parser.add_argument("--seed", type=int, default=None, help="seed of the evaluation episodes")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="draw the policy's actions, as in training, instead of its best ones",
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="also record one episode (.mp4 or .gif)"
    )
    add_env_option(parser)
    add_import_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    add_progress_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print."""
    from marl_td.evaluation.judge import EVALUATION_SEED, REPORT_FOLDER, judge_run

    seed = EVALUATION_SEED if arguments.seed is None else arguments.seed
    notify = Steps(arguments.progress, "evaluating")
    report = judge_run(
        arguments.folder,
        arguments.episodes,
        seed,
        notify,
        arguments.env,
        deterministic=not arguments.sample,
    )
    report.write(arguments.folder / REPORT_FOLDER)
    if arguments.video is not None:
        _record(arguments, seed)
    if arguments.json:
        print_json(report.as_dict())
    else:
        print_report(report)
        print(f"  {arguments.folder / REPORT_FOLDER / 'report.png'}")
    return 0


def print_report(report: RunReport) -> None:
    """The table and what it means."""
    print()
    print(report.title())
    print(table_text(("policy", "value", "95 % interval"), report.cells()))
    print(report.verdict())
    if report.table.optimum is not None:
        print(f"Optimum or bound: {report.table.optimum.how}.")
    print(
        f"Return of the learned policy: {report.mean_return.value:.4g} "
        f"[{report.mean_return.low:.4g}, {report.mean_return.high:.4g}]; {report.episodes} episodes "
        f"per policy."
    )
    for remark in report.table.remarks():
        print(remark)
    print()


def _record(arguments: argparse.Namespace, seed: int) -> None:
    from marl_td.evaluation.episode import record_video
    from marl_td.training.trained import load_run

    run = load_run(arguments.folder, 1, env=arguments.env)
    best = not arguments.sample
    pictures = record_video(run.env, run.policy, seed, arguments.video, deterministic=best)
    note(f"wrote {pictures} pictures to {arguments.video}")
