"""Libraries that we are compared with, each in a virtual environment of its own below `benchmarks/.peers`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

PEERS = Path(__file__).parent / ".peers"
REQUIREMENTS = {
    # The last four are what JaxMARL's training scripts import.
    "jaxmarl": ["jaxmarl==0.2.0", "jax[cpu]", "distrax", "wandb", "hydra-core", "matplotlib"],
    # The same torch as here, or the newest comes with gigabytes for GPUs. AgileRL 2.58 imports peft but lists
    # it as an extra only.
    "agilerl": ["agilerl==2.58.0", f"torch=={torch.__version__.partition('+')[0]}", "peft==0.21.0"],
}
"""What pip installs for each, in one command."""


def peer_python(folder: Path, name: str) -> Path:
    """The Python of a peer's virtual environment."""
    return folder / name / "bin" / "python"


def install(folder: Path, name: str) -> None:
    """Make a peer's virtual environment in ``folder``."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
    wanted = REQUIREMENTS[name]
    pip = [str(peer_python(folder, name)), "-m", "pip", "install", "--quiet", *wanted]
    subprocess.run(pip, check=True)
    print(f"installed {', '.join(wanted)} into {folder / name}")
