"""Python examples of the README, of own training code and of the command line's page run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/own_training.md", "docs/cli.md")
EXAMPLES = [
    example
    for page in PAGES
    for example in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, tmp_path):
    code = EXAMPLES[number].replace("12_000", "300").replace("20_480", "2_048")
    if "mpe2" in code:
        pytest.importorskip("mpe2")
        code = code.replace("config.loggers,", SMALL + "config.loggers,")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"mean return: -?\d", done.stdout)


SMALL = """config.on_policy_collected_frames_per_batch = 300
config.on_policy_minibatch_size = 300
config.on_policy_n_minibatch_iters = 1
config.evaluation = False
"""
