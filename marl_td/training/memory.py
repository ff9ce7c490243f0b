"""Freed memory that stays in the process, for the next batch."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Have the C library reuse what large tensors have freed instead of handing it back to the system.

    A training loop frees and wants the same megabytes again and again. Memory that comes back from the
    system is cleared page by page, which took a third of collecting where observations are wide (``mapf``,
    100 environments). For the whole process, from now on.

    Returns:
        Whether there was such a setting (Linux with glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
