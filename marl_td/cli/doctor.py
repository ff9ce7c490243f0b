"""``marl-td doctor``: what is installed, what works, what is missing and how to get it."""

from __future__ import annotations

import argparse
import importlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from marl_td.cli.errors import one_line
from marl_td.cli.output import print_json

PACKAGES = (
    "marl-td",
    "torch",
    "torchrl",
    "tensordict",
    "benchmarl",
    "hydra-core",
    "numpy",
    "scipy",
    "matplotlib",
    "av",
    "pettingzoo",
    "vmas",
    "mpe2",
    "torch_geometric",
)
"""Distributions whose versions are shown; the last is behind BenchMARL's graph networks."""


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is installed, what works, what is missing",
        description="Versions, checks that run the parts once, and the command for each missing extra.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; what is missing is no error."""
    report: dict[str, Any] = {"versions": versions(), "checks": checks(), "extras": extras()}
    if arguments.json:
        print_json(report)
        return 0
    print("versions")
    for name, number in report["versions"].items():
        print(f"  {name:15} {number or 'not installed'}")
    print("checks")
    for check in report["checks"]:
        print(f"  {'ok ' if check['ok'] else '-- '} {check['name']}: {check['detail']}")
    print("extras")
    for extra in report["extras"]:
        text = "installed" if not extra["missing"] else f"missing {', '.join(extra['missing'])}"
        remedy = f"; get it with: {extra['command']}" if extra["missing"] else ""
        print(f"  {extra['name']:12} {text}{remedy}")
    return 0


def versions() -> dict[str, str | None]:
    """Version of Python and of each package, None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def extras() -> list[dict[str, Any]]:
    """Each extra, what of it is missing, and the command that gets it."""
    from marl_td.training.extras import EXTRAS, install_command, missing

    return [
        {"name": name, "missing": missing(name), "command": install_command(name)}
        for name in EXTRAS
    ]


def checks() -> list[dict[str, Any]]:
    """Run the parts once; each entry has ``name``, ``ok`` and ``detail``."""
    probes: dict[str, Callable[[], str]] = {
        "algorithms and tasks are registered": _registered,
        "BenchMARL's command line finds them": _plugin,
        "a task runs": _task,
        "device": _device,
        "torch.compile": _compiler,
        "pictures": _pictures,
        "videos": _videos,
    }
    return [_probe(name, probe) for name, probe in probes.items()]


def _probe(name: str, probe: Callable[[], str]) -> dict[str, Any]:
    """A failing check is what this command is there to report."""
    try:
        return {"name": name, "ok": True, "detail": probe()}
    except Exception as error:
        return {"name": name, "ok": False, "detail": f"{type(error).__name__}: {one_line(error)}"}


def _registered() -> str:
    from marl_td.registry import ALGORITHMS, register
    from marl_td.tasks.registry import TASKS

    register()
    return f"{len(ALGORITHMS)} algorithms, {len(TASKS)} tasks"


def _plugin() -> str:
    module = importlib.import_module("hydra_plugins.marl_td_plugin")
    return str(Path(module.__file__ or "").name)


def _task() -> str:
    from marl_td.evaluation.scores import evaluate_policy
    from marl_td.tasks.registry import make_task

    score = evaluate_policy(make_task("matrix_game"), None, 4, seed=0)
    return f"{score.numel()} episodes of matrix_game"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    n_threads = torch.get_num_threads()
    return f"CPU, {n_threads} thread{'s' * (n_threads > 1)} (torch sees no GPU)"


def _compiler() -> str:
    found = shutil.which("g++") or shutil.which("clang++") or shutil.which("cl")
    if found is None:
        raise RuntimeError("no C++ compiler found; install g++ (Debian: apt-get install g++)")
    return found


def _pictures() -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(Figure(figsize=(1, 1))).draw()
    return "matplotlib draws without a display"


def _videos() -> str:
    import numpy as np

    from marl_td.evaluation.episode import write_video

    with tempfile.TemporaryDirectory() as folder:
        picture = np.zeros((32, 32, 3), dtype=np.uint8)
        path = Path(folder) / "probe.mp4"
        write_video(path, [picture] * 3, fps=10)
        return f"H.264 by PyAV, {path.stat().st_size} bytes on {sys.platform}"
