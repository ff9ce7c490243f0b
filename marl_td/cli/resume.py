"""``marl-td resume``: go on with a run that was stopped, from its newest intact checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from marl_td.cli.output import add_env_option, add_import_option, add_progress_option
from marl_td.cli.train import add_report_options, finish

EPILOG = """examples:
  marl-td resume runs/retail
  marl-td resume runs/retail experiment.max_n_frames=1200000
  marl-td resume runs/mine --env my_env:make

The run ends as if it had never been stopped: same parameters, same metrics. What cannot be so is said in
DIR/run.log. experiment.* settings can be changed; a longer run also stretches what is scheduled over it."""


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "resume",
        help="go on with a run that was stopped",
        description="Go on with the run in DIR from its newest intact checkpoint, to the end of the run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="the run folder")
    add_env_option(parser)
    add_import_option(parser)
    add_report_options(parser)
    add_progress_option(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="name=value",
        help="experiment settings to change, such as experiment.max_n_frames=1200000",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Go on, then report."""
    from marl_td.training.compose import experiment_patch
    from marl_td.training.experiment import Experiment

    patch = experiment_patch(arguments.overrides)
    experiment = Experiment.resume(arguments.out, patch, arguments.env)
    experiment.show_progress = arguments.progress
    before = experiment.total_frames
    experiment.run()
    return finish(arguments, experiment, f" ({experiment.total_frames - before} of them now)")
