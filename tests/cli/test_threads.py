"""How many threads a command computes with: the cores it may use, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from marl_td.cli.threads import MOST_THREADS, SPINS, settle_threads
from marl_td.training.cores import usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.parametrize(
    "files, cores",
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "3200000 100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_containers_share_of_the_processors_counts(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


def test_threads_are_bounded_and_soon_sleep(tmp_path):
    chosen = {}
    settle_threads(chosen, tmp_path)
    assert chosen == {"OMP_NUM_THREADS": str(MOST_THREADS), "GOMP_SPINCOUNT": str(SPINS)}
    (tmp_path / "cpu.max").write_text("200000 100000")
    chosen = {}
    settle_threads(chosen, tmp_path)
    assert chosen["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    "own",
    [
        {"OMP_NUM_THREADS": "12", "GOMP_SPINCOUNT": "7"},
        {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "active"},
    ],
)
def test_what_the_user_has_set_stays(tmp_path, own):
    chosen = dict(own)
    settle_threads(chosen, tmp_path)
    assert chosen == own


def test_a_command_has_chosen_before_torch_is_loaded():
    """`doctor` says how many threads torch took, never more than there are cores: so one is asked for."""
    script = """
import sys
from marl_td.cli import main, threads
threads.usable_cores = lambda groups: 1
assert "torch" not in sys.modules
main(["doctor"])
"""
    own = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=own, check=True
    )
    assert "CPU, 1 thread (" in done.stdout or ", CUDA " in done.stdout
