"""``marl-td train``: train an algorithm on a task, into a folder."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_td.cli.output import add_import_option, add_progress_option, count, note
from marl_td.training.files import remove
from marl_td.training.lock import FolderLock

if TYPE_CHECKING:
    from marl_td.training.experiment import Experiment
    from marl_td.training.settings import RunSettings

RUN_FILES = (
    "config.yaml",
    "metrics.csv",
    "run.log",
    "checkpoints",
    "policy",
    "report",
    "diagnosis",
)
"""What a run folder holds."""

EPILOG = """examples:
  marl-td train --out runs/retail algorithm=marl_td/maddpg task=marl_td/retail
  marl-td train --out runs/quick preset=retail_maddpg experiment.max_n_frames=60000 seed=3
  marl-td train --out runs/balance algorithm=marl_td/mappo task=vmas/balance model.num_cells=[64,64]
  marl-td train --out runs/mine algorithm=marl_td/mappo task=marl_td/pettingzoo task.env=my_env:make

DIR holds config.yaml, metrics.csv, checkpoints/, policy/ and report/ in the end."""


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "train",
        help="train an algorithm on a task",
        description="Train an algorithm on a task and write everything into a folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the run folder")
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the run that DIR already holds"
    )
    add_import_option(parser)
    add_report_options(parser)
    add_progress_option(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="name=value",
        help="settings, as on BenchMARL's command line",
    )
    parser.set_defaults(run=run)


def add_report_options(parser: Any) -> None:
    """``--episodes`` and ``--no-report``."""
    parser.add_argument(
        "--episodes",
        type=count,
        default=128,
        metavar="N",
        help="episodes per policy for the report in the end (default: 128)",
    )
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="stop after training"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, then report."""
    _check_folder(arguments.out, arguments.overwrite)
    _check_writable(arguments.out)
    from marl_td.training.compose import compose
    from marl_td.training.experiment import Experiment

    settings = compose(arguments.overrides)
    settings.experiment_config.save_folder = str(arguments.out)
    with _replacing(arguments.out, arguments.overwrite):
        experiment = Experiment(**settings.arguments())
    experiment.show_progress = arguments.progress
    experiment.run()
    return finish(arguments, experiment)


def finish(arguments: argparse.Namespace, experiment: Experiment, remark: str = "") -> int:
    """Say what was trained, report, list the files."""
    from marl_td.evaluation.judge import REPORT_FOLDER
    from marl_td.training.settings import describe

    settings = describe(experiment)
    frames = f"{experiment.total_frames} frames{remark}"
    print(f"trained {settings.algorithm} on {settings.task}: {frames}")
    if arguments.report:
        _report(arguments, settings)
    elif (arguments.out / REPORT_FOLDER).exists():
        note("the report is of the run as it was; `marl-td evaluate DIR` makes a new one")
    print(_contents(arguments.out))
    return 0


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse what is not empty, and what ``--overwrite`` may not touch."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out '{folder}' is a file; give a folder.")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found and not overwrite:
        raise ValueError(
            f"--out '{folder}' is not empty; give another folder, go on with the run in it (`marl-td "
            f"resume {folder}`), or add --overwrite to replace it."
        )
    if found and not (folder / "config.yaml").is_file():
        raise ValueError(
            f"--out '{folder}' holds no run (no config.yaml), so --overwrite leaves it alone; give "
            "another folder."
        )


def _check_writable(folder: Path) -> None:
    """Check that ``folder`` can be made, or written into, and leave nothing behind.

    Raises:
        ValueError: if not.
    """
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryDirectory(prefix=".marl-td-", dir=place):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(
            f"--out '{folder}' cannot be written ({reason}): give a folder in a place that you may write to."
        ) from error


@contextmanager
def _replacing(folder: Path, overwrite: bool) -> Iterator[None]:
    """Remove the files of an earlier run, and no others; they are back if the new run cannot be set up."""
    found = [folder / name for name in RUN_FILES if overwrite and (folder / name).exists()]
    if not found:
        yield
        return
    FolderLock(folder).check()
    aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=folder))
    for path in found:
        path.rename(aside / path.name)
    try:
        yield
    except BaseException:
        for path in found:
            (aside / path.name).rename(path)
        raise
    finally:
        remove(aside)


def _report(arguments: argparse.Namespace, settings: RunSettings) -> None:
    from marl_td.cli.evaluate import print_report
    from marl_td.evaluation.judge import REPORT_FOLDER, judge_run
    from marl_td.training.settings import OWN_ENVIRONMENT

    note("evaluating the trained policy and the baselines ...")
    env = settings.task_config.config.get("env") if settings.task == OWN_ENVIRONMENT else None
    report = judge_run(arguments.out, arguments.episodes, env=env)
    report.write(arguments.out / REPORT_FOLDER)
    print_report(report)


def _contents(folder: Path) -> str:
    """Where everything is."""
    meaning = {
        "config.yaml": "all settings",
        "metrics.csv": "one row per iteration",
        "run.log": "stops, resumes and what else happened",
        "checkpoints": "to go on from",
        "policy": "weights and signature, for use elsewhere",
        "report": "table, curve and episode: report.md, report.json, report.png",
    }
    rows = [
        [str(folder / name), text] for name, text in meaning.items() if (folder / name).exists()
    ]
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"  {path.ljust(width)}  {text}" for path, text in rows)
