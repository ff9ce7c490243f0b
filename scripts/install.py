"""Make the virtual environment `.venv` and install marl_td in it, editable, with its test tools.

Run by `make`; needs Python 3.10 or newer and nothing else. The versions are those of
`constraints.txt`. The CPU build of torch is taken where the configured package indexes offer one,
the normal build otherwise, in the same pip command as everything else: installed one after the
other, a later package may replace torch.

Environment variables:
    MARL_TD_EXTRA_INDEX: one more package index for pip, for example one with CPU builds of torch.
    MARL_TD_TORCH: the torch to install in place of the choice above, for example `torch==2.13.0`
        on a machine with a GPU.
    MARL_TD_EXTRAS: the extras to install, comma-separated (default `dev,export,mpe,serve,vmas`).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = (3, 10)


def say(text: str) -> None:
    """Print one line about what happens now."""
    print(f"[install] {text}", flush=True)


def run(command: list[str]) -> None:
    """Run a command in the repository; end this program with its exit code if it fails."""
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != 0:
        sys.exit(code)


def index_options() -> list[str]:
    """The pip options for the extra index that the user asked for, if any."""
    extra = os.environ.get("MARL_TD_EXTRA_INDEX", "").strip()
    return ["--extra-index-url", extra] if extra else []


def make_environment() -> None:
    """Make `.venv` if it is not there yet."""
    if PYTHON.exists():
        return
    say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    code = subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False).returncode
    if code != 0:
        shutil.rmtree(VENV, ignore_errors=True)  # half an environment would look like a whole one
        sys.exit(
            "[install] `python3 -m venv` failed. Debian and Ubuntu keep it in a package of its "
            "own: `apt install python3-venv`. Then run make again."
        )


def pinned_torch() -> str:
    """The version of torch in `constraints.txt`."""
    found = re.search(r"^torch==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        sys.exit(f"[install] {CONSTRAINTS.name} has no line `torch==VERSION`; add it.")
    return found.group(1)


def output_of(command: list[str]) -> str:
    """What a command prints; empty if it fails."""
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def choose_torch() -> str:
    """The requirement for torch: the user's, else the installed, a CPU, the normal build."""
    asked = os.environ.get("MARL_TD_TORCH", "").strip()
    if asked:
        return asked
    version = pinned_torch()
    probe = "import importlib.metadata as m; print(m.version('torch'))"
    if output_of([str(PYTHON), "-c", probe]).strip().partition("+")[0] == version:
        return f"torch=={version}"  # satisfied by the build that is there, whichever it is
    offered = output_of([str(PYTHON), "-m", "pip", "index", "versions", "torch", *index_options()])
    local = f"{version}+cpu"
    return f"torch=={local}" if local in re.split(r"[\s,]+", offered) else f"torch=={version}"


def main() -> None:
    """Make the environment and install everything."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"[install] Python {OLDEST[0]}.{OLDEST[1]} or newer is needed; this is "
            f"{sys.version.split()[0]}. Name another one: `make PYTHON=/path/to/python3`."
        )
    make_environment()
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *index_options()]
    pip += ["--constraint", str(CONSTRAINTS)]
    run([*pip, "--quiet", "pip", "setuptools", "wheel"])
    torch = choose_torch()
    extras = os.environ.get("MARL_TD_EXTRAS", "").strip() or "dev,export,mpe,serve,vmas"
    say(f"installing marl_td[{extras}] with {torch} (the first time some GB)")
    run([*pip, "--no-build-isolation", torch, "--editable", f".[{extras}]"])
    say(f"done: {VENV.name}")


if __name__ == "__main__":
    main()
