"""The training loops of ``docs/own_loops.md`` and the pool of opponents run, with fewer steps."""

import re

import pytest
from page_runs import blocks, python, replaced

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
    printed = python(tmp_path, "-c", code)
    assert re.search(r"mean return: -?\d|adversary 0: -?\d", printed), printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [("mappo", (12, 40)), ("masac", (-21, -12)), ("memory", (0.95, 1.0))],
)
def test_loop_learns_what_the_page_says(name, expected, tmp_path):
    printed = python(tmp_path, "-c", LOOPS[name][0])
    value = float(re.search(r"mean return: (-?[\d.]+)", printed)[1])
    assert expected[0] <= value <= expected[1]
