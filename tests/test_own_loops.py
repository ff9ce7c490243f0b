"""The training loops of ``docs/own_loops.md`` and the pool of opponents run, with fewer steps."""

import os
import re
import subprocess
import sys

import pytest
from page_runs import blocks, replaced

MAPPO, MASAC, MEMORY = blocks("docs/own_loops.md", "python")
POOL = blocks("docs/self_play.md", "python")[-1]
LOOPS = {
    "mappo": (MAPPO, {"total_frames=204_800": "total_frames=3_200"}),
    "masac": (MASAC, {"total_frames=40_960": "total_frames=1_024", "range(50)": "range(2)"}),
    "memory": (MEMORY, {"total_frames=32_000": "total_frames=320", "range(25)": "range(2)"}),
    "pool": (POOL, {"range(8)": "range(1)", "12_800": "3_200", "n_episodes=256": "n_episodes=8"}),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loop_runs_without_benchmarl(name, tmp_path):
    code = replaced(*LOOPS[name])
    if name != "pool":
        code += "\nimport sys\nassert not {'benchmarl', 'hydra'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"mean return: -?\d|adversary 0: -?\d", done.stdout)
    assert found, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [("mappo", (12, 40)), ("masac", (-21, -12)), ("memory", (0.95, 1.0))],
)
def test_loop_learns_what_the_page_says(name, expected, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOOPS[name][0]],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    value = float(re.search(r"mean return: (-?[\d.]+)", done.stdout)[1])
    assert expected[0] <= value <= expected[1]
