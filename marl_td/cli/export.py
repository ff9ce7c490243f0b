"""``marl-td export``: a trained policy as a bundle of decentralised actors that runs without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_td.cli.output import (
    Steps,
    add_env_option,
    add_import_option,
    add_progress_option,
    print_json,
    table_text,
)

if TYPE_CHECKING:
    from marl_td.deploy.export import ExportReport


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "export",
        help="write a policy as ONNX, torch.export and safetensors, to run without torch",
        description="Write each agent's decentralised actor as ONNX, torch.export program and safetensors, "
        "with a signature, the settings, the scores of DIR/report and a card. Every form is first compared "
        "with the training policy; `marl_td.deploy.load` acts with the bundle, without torch.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `marl-td train --out` wrote")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="BUNDLE", help="folder of the bundle"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle in BUNDLE")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="draw actions from the policy's distribution (default: the best action, as in evaluation)",
    )
    parser.add_argument(
        "--licence",
        default="not stated",
        metavar="TEXT",
        help="licence of the policy's weights, for the card (default: not stated)",
    )
    add_env_option(parser)
    add_import_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    add_progress_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export and print."""
    from marl_td.deploy.export import export_run

    report = export_run(
        arguments.folder,
        arguments.out,
        sampled=arguments.sample,
        overwrite=arguments.overwrite,
        licence=arguments.licence,
        env=arguments.env,
        notify=Steps(arguments.progress, "exporting"),
    )
    if arguments.json:
        print_json(report.as_dict())
    else:
        _print(report)
    return 0


def _print(report: ExportReport) -> None:
    rows = [
        [name, agents, *(f"{value:.1e}" for value in (found.eager, found.program, found.onnx))]
        for name, found in report.differences.items()
        for agents in [", ".join(a for a, actor in report.agents.items() if actor == name)]
    ]
    header = ("actor", "agents", "eager", "torch.export", "ONNX Runtime")
    print("Largest difference to the training policy's outputs:")
    print(table_text(header, rows))
    print(f"{report.mode} actions, {report.size / 1024:.0f} KiB in {report.folder}")
