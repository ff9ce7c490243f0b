"""How many threads a command computes with, and how long they wait for one another."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

MOST_THREADS = 8
"""Networks of some hundred units should have no work for more; measured on two cores only."""
SPINS = 2000
"""Rounds, some microseconds, that a waiting thread looks for work before it sleeps.

The C library's hundreds of thousands let two threads keep each other from the core where cores are busy.
"""


def settle_threads(
    environ: MutableMapping[str, str] = os.environ, groups: Path = Path("/sys/fs/cgroup")
) -> None:
    """Choose threads by the cores that this process may use; before torch is loaded, which reads this.

    What the user has set (``OMP_NUM_THREADS``, ``GOMP_SPINCOUNT``, ``OMP_WAIT_POLICY``) stays.
    """
    environ.setdefault("OMP_NUM_THREADS", str(min(usable_cores(groups), MOST_THREADS)))
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def usable_cores(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may run on, or fewer where its container may use less time than that, at least 1."""
    has_affinity = hasattr(os, "sched_getaffinity")  # macOS has not
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, int(min(cores, _time_limit(groups))))


def _time_limit(groups: Path) -> float:
    """Processor time per time that the container may use, as ``docker run --cpus`` sets it."""
    try:  # version 2 of control groups: "<microseconds> <period>" or "max <period>"
        used, period = (groups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:  # version 1: -1 without a limit
            used = (groups / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (groups / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return float("inf")
    return int(used) / int(period) if used not in ("max", "-1") else float("inf")
