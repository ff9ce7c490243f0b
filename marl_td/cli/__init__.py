"""The command line ``marl-td``: one file per command, which imports torch only when it runs.

Exit codes: 0 done, 2 bad input (one sentence on stderr), 1 anything else, 130 interrupted, 141 nobody reads
what is printed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from marl_td import __version__
from marl_td.cli.errors import report_error
from marl_td.cli.threads import settle_threads

COMMANDS = (
    "train",
    "resume",
    "evaluate",
    "export",
    "serve",
    "baselines",
    "game",
    "list",
    "doctor",
    "demo",
)
"""Commands in the order of ``--help``; ``marl_td.cli.<name>`` has ``add_parser`` and ``run``."""
MODULES = {"list": "listing"}
"""Commands whose module has another name."""

DESCRIPTION = """Multi-agent reinforcement learning: train, judge and compare policies.

Settings are written as on BenchMARL's command line: algorithm=marl_td/mappo task=marl_td/retail
experiment.max_n_frames=300000 task.n_agents=8 model.num_cells=[64,64]"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of printing the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Print and stop with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        The exit code.
    """
    try:
        arguments = _parse(_parser(), argv)
    except SystemExit as stop:  # argparse has already said what is wrong, or printed the help
        return int(stop.code or 0)
    _quiet_libraries()
    settle_threads()
    try:
        _import_modules(getattr(arguments, "imports", []))
        code = int(arguments.run(arguments) or 0)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or flushing it at the end would fail
        return 141
    except Exception as error:
        return report_error(error, debug=arguments.debug)


def _parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; settings may stand before, between and after options (argparse takes them in one place)."""
    arguments, rest = parser.parse_known_args(argv)
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    unknown = [word for word in rest if word not in settings]
    if unknown or (settings and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or settings)}")
    if settings:
        arguments.overrides = [*arguments.overrides, *settings]
    return arguments


def _parser() -> Parser:
    parser = Parser(
        prog="marl-td",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"marl-td {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of every error, bad input included"
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name in COMMANDS:
        module = importlib.import_module(f"marl_td.cli.{MODULES.get(name, name)}")
        module.add_parser(subparsers)
    return parser


def _import_modules(names: Sequence[str]) -> None:
    """What ``--import`` names, which registers tasks, algorithms and networks of users."""
    for name in names:
        from marl_td.tasks.adapters.by_path import import_user_module

        asked = f"--import '{name}'"
        if not all(word.isidentifier() for word in name.split(".")) or name.endswith(".py"):
            raise ValueError(
                f"{asked} is not a module's name; write it as in Python, such as package.module."
            )
        import_user_module(name, asked)


def _quiet_libraries() -> None:
    """Keep TorchRL's notes on storages and batch sizes out of our output; it reads these at import."""
    os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("RL_WARNINGS", "False")
