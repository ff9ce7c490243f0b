"""Commands and examples of ``docs/``, taken from the pages and made short."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHORT = {
    "experiment.max_n_frames": "120",
    "experiment.on_policy_collected_frames_per_batch": "60",
    "experiment.on_policy_n_envs_per_worker": "2",
    "experiment.on_policy_minibatch_size": "30",
    "experiment.on_policy_n_minibatch_iters": "1",
    "experiment.off_policy_collected_frames_per_batch": "60",
    "experiment.off_policy_n_envs_per_worker": "2",
    "experiment.off_policy_n_optimizer_steps": "1",
    "experiment.off_policy_train_batch_size": "8",
    "experiment.off_policy_memory_size": "200",
    "experiment.evaluation_interval": "60",
    "experiment.evaluation_episodes": "2",
    "experiment.compile": "off",
}
"""Two iterations of 60 steps, with on-policy and with off-policy algorithms."""


def blocks(page: str, kind: str) -> list[str]:
    """The code blocks of ``kind`` (``python``, ``bash``) on a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def commands(page: str) -> list[str]:
    """The ``marl-td`` commands in the page's ``bash`` blocks, loops left out."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("marl-td ")]


def shortened(command: str, *options: str) -> list[str]:
    """Words after ``marl-td`` of a ``train`` command of a page, with :data:`SHORT` and ``options``."""
    words = [word for word in shlex.split(command)[1:] if word.split("=")[0] not in SHORT]
    short = [f"{name}={value}" for name, value in SHORT.items()]
    return [*words, *short, "--no-progress", *options]


def replaced(code: str, changes: dict[str, str]) -> str:
    """``code`` with other numbers; each must be there."""
    for old, new in changes.items():
        assert old in code, f"{old!r} is not in the example"
        code = code.replace(old, new)
    return code


def python(folder: Path, *words: str) -> str:
    """What a Python of its own, on one thread, prints in ``folder``; it must not fail."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
