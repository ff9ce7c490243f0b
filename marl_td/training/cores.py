"""Cores that this process may use. Loads no torch, which reads its settings when it is loaded."""

from __future__ import annotations

import os
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def usable_cores(groups: Path = CONTROL_GROUPS) -> int:
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
