"""What a GPU was doing: the most memory it held, and the share of the time in which a kernel ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

MIB = 2**20


def clock(device: str) -> float:
    """Seconds on the processor, or of the clock when a GPU has done what it was given."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


class Watch:
    """Watches a GPU from :meth:`start` to :meth:`stop`.

    The profiler sees each kernel, those of CUDA graphs too. It slows launches: watch what is not timed.

    Args:
        device: "cuda", perhaps with a number; "cpu" watches its operations instead, for tests.
    """

    def __init__(self, device: str) -> None:
        self.device, self.on_gpu = device, device != "cpu"
        kind = torch.profiler.ProfilerActivity
        activity = kind.CUDA if self.on_gpu else kind.CPU
        self.profile = torch.profiler.profile(activities=[activity], acc_events=True)

    def start(self) -> None:
        """Begin."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self.profile.start()
        self._start = self._now()

    def stop(self) -> dict[str, Any]:
        """``peak MiB`` of the whole process on a GPU, and ``in kernels``, a share."""
        seconds = self._now() - self._start
        self.profile.stop()
        events = self.profile.key_averages()
        spent = "self_device_time_total" if self.on_gpu else "self_cpu_time_total"
        busy = sum(getattr(event, spent) for event in events) / 1e6
        peak = torch.cuda.max_memory_allocated() / MIB if self.on_gpu else 0.0
        return {"peak MiB": f"{peak:.0f}", "in kernels": f"{busy / seconds:.0%}"}

    def _now(self) -> float:
        """The time when all is done that was asked for."""
        return clock(self.device) if self.on_gpu else time.perf_counter()


def columns(run: Callable[[], object], device: str) -> dict[str, Any]:
    """The columns of a table about ``run``: none on the CPU."""
    if device == "cpu":
        return {}
    watch = Watch(device)
    watch.start()
    run()
    return watch.stop()
