"""Run a module or a file with a pretended GPU: `python scripts/pretend_gpu --help`."""

import argparse
import ctypes
import runpy
import sys
from pathlib import Path
from types import ModuleType

sys.path[0] = str(Path(__file__).resolve().parents[1])
from pretend_gpu import __doc__ as about  # noqa: E402 - found in the folder above
from pretend_gpu import build  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(
        prog="python scripts/pretend_gpu",
        usage="%(prog)s [-h] [--cache DIR] (-m MODULE | FILE) [ARGUMENTS ...]",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=build.CACHE,
        metavar="DIR",
        help="where the compiled library is kept (default: build/pretend_gpu)",
    )
    parser.add_argument(
        "-m", dest="is_module", action="store_true", help="run a module, not a file"
    )
    parser.add_argument("command", metavar="MODULE | FILE", help="what to run, and its arguments")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def pretend(library: Path) -> ModuleType:
    """Load the library, and only then torch, which asks once whether there is a device.

    Returns the module that answers for the device.
    """
    ctypes.CDLL(str(library))
    from pretend_gpu import answers

    answers.turn_on()
    return answers


def main() -> None:
    """Run what is asked for, as `python` itself would."""
    arguments = parser().parse_args()
    try:
        library = build.library(arguments.cache)
    except build.CannotPretend as reason:
        sys.exit(f"[pretend_gpu] {reason}")
    pretend(library)
    sys.argv = [arguments.command, *arguments.arguments]
    if arguments.is_module:
        sys.path[0] = str(Path.cwd())
        runpy.run_module(arguments.command, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(arguments.command).resolve().parent)
        runpy.run_path(arguments.command, run_name="__main__")


if __name__ == "__main__":
    main()
