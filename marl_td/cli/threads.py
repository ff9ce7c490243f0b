"""How many threads a command computes with, and how long they wait for one another."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from marl_td.training.cores import CONTROL_GROUPS, usable_cores

MOST_THREADS = 8
"""Networks of some hundred units should have no work for more; measured on two cores only."""
SPINS = 2000
"""Rounds, some microseconds, that a waiting thread looks for work before it sleeps.

The C library's hundreds of thousands let two threads keep each other from the core where cores are busy.
"""


def settle_threads(
    environ: MutableMapping[str, str] = os.environ, groups: Path = CONTROL_GROUPS
) -> None:
    """Choose threads by the cores that this process may use; before torch is loaded, which reads this.

    What the user has set (``OMP_NUM_THREADS``, ``GOMP_SPINCOUNT``, ``OMP_WAIT_POLICY``) stays.
    """
    environ.setdefault("OMP_NUM_THREADS", str(min(usable_cores(groups), MOST_THREADS)))
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
