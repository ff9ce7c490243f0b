"""One point of `growth.py`: a task of one size in a process of its own; prints a line of JSON.

    python benchmarks/growth_point.py retail --envs 64 --agents 5

The compiled collector with uniformly random actions: all steps of a batch are one graph, with the actions'
draws, the observations, the global state, rewards, information and automatic resets, everything kept.
The line has `seconds` (per step of all environments: processor time on a CPU, wall time on a GPU; median of
some batches), `bytes` (most memory of tensors at once while an environment starts and makes a batch, above
what was there before) and `compile_s`; or `skipped`, why there is no figure.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from common import parsed
from on_gpu import clock
from tensordict import TensorDictBase

from marl_td.collect.collector import CompiledCollector
from marl_td.models.compiling import CompileWarning
from marl_td.models.cuda_graph import WARM_UPS
from marl_td.tasks import make_env
from marl_td.tasks.base import Box, Task
from marl_td.tasks.specs import random_available

MIN_BATCHES, MAX_BATCHES = 3, 50


def random_policy(task: Task[Any, Any]) -> Callable[[TensorDictBase], TensorDictBase]:
    """A policy that draws every action uniformly among the available ones, and compiles."""

    def act(data: TensorDictBase) -> TensorDictBase:
        for group, spec in task.groups.items():
            shape = (*data.batch_size, spec.n_agents)
            if isinstance(spec.action, Box):
                low = torch.tensor(spec.action.low, device=task.device)
                width = torch.tensor(spec.action.high, device=task.device) - low
                action = low + width * torch.rand((*shape, len(low)), device=task.device)
            elif spec.masked:
                action = random_available(data[group, "action_mask"])
            else:
                action = torch.randint(spec.action.n, shape, device=task.device)
            data[group, "action"] = action
        return data

    return act


def peak_of(events: list[tuple[int, int]]) -> int:
    """The highest running total of allocations and releases ``(time, bytes)``, at least 0."""
    total = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        total += size
        peak = max(peak, total)
    return peak


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """Most memory of tensors that ``run`` holds at once, beyond what was held before."""
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        run()
    results: Any = profile.profiler.kineto_results  # type: ignore[union-attr]
    found = [event for event in results.events() if event.name() == "[memory]"]
    return peak_of([(event.start_ns(), event.nbytes()) for event in found])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of one size."""
    params = {} if args.agents is None else {"n_agents": args.agents}
    params |= parsed(args.parameters)
    env = make_env(args.task, n_envs=args.envs, device=args.device, **params)
    task = env.task
    policy, frames = random_policy(task), args.envs * args.steps
    collector = CompiledCollector(env, policy, frames_per_batch=frames)

    def batch() -> float:
        start = clock(args.device)
        collector.rollout()
        return (clock(args.device) - start) / args.steps

    for _ in range(WARM_UPS + 1):  # compiles and records
        batch()
    seconds, start = [], time.perf_counter()
    while len(seconds) < MIN_BATCHES or (
        time.perf_counter() - start < args.seconds and len(seconds) < MAX_BATCHES
    ):
        seconds.append(batch())
    collector.reset()
    env.state = None
    used = peak_bytes(collector.rollout, args.device)
    return {
        "agents": sum(spec.n_agents for spec in task.groups.values()),
        "seconds": statistics.median(seconds),
        "bytes": used,
        "compile_s": round(collector.compile_seconds, 1),
    }


def limit_memory(gib: float) -> None:
    """Let allocations beyond ``gib`` GiB fail instead of filling the machine (Linux)."""
    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--envs", type=int, default=64, help="number of environments")
    parser.add_argument("--agents", type=int, help="number of agents; default: the task's")
    parser.add_argument("--parameters", nargs="*", default=[], help="of the task, name=value")
    parser.add_argument("--steps", type=int, default=20, help="steps of a batch")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for batches")
    parser.add_argument("--memory", type=float, default=20.0, help="limit in GiB")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", CompileWarning)  # an uncompiled point would be another curve
    if args.device == "cpu":
        limit_memory(args.memory)
    try:
        found = measure(args)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        found = {"skipped": f"more than {args.memory:g} GiB of memory"}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
