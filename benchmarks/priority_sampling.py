"""One draw and one priority update: our sum tree, a binary one, and a running sum over all priorities.

    python benchmarks/priority_sampling.py --batch 128

The three are timed in turns; each figure is the fastest of them, in microseconds. The binary tree is the
same code with two numbers under a sum. ``sampler`` is all of ``ProportionalSampler``, the rest the bare
arithmetic.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from marl_td.collect.prioritised import ProportionalSampler
from marl_td.collect.sum_tree import SumTree


class RunningSum:
    """The obvious way: all priorities are added up for every draw."""

    def __init__(self, size: int) -> None:
        self.numbers = torch.zeros(size, dtype=torch.float64)

    def set(self, index: Tensor, value: Tensor) -> None:
        """Change some priorities."""
        self.numbers[index] = value

    def find(self, fraction: Tensor) -> Tensor:
        """Draw by fractions of the sum."""
        sums = self.numbers.cumsum(0)
        return torch.searchsorted(sums, fraction * sums[-1], right=True)


class Sampler(ProportionalSampler):
    """Draws and updates with the two methods of the trees."""

    def __init__(self, size: int) -> None:
        super().__init__(size, 0.6, 0.4)
        self.storage = type("Full", (), {"ndim": 1, "shape": (size,), "__len__": lambda _: size})()

    def set(self, index: Tensor, value: Tensor) -> None:
        """Change some priorities."""
        self.update_priority(index, value)

    def find(self, fraction: Tensor) -> None:
        """Draw as many as there are fractions."""
        self.sample(self.storage, len(fraction))


def fastest(
    calls: dict[str, Callable[[], object]], turns: int, repeat: int = 5
) -> dict[str, float]:
    """Microseconds of each call: the fastest of ``turns`` turns of ``repeat`` calls."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(turns):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            found[name] = min(found[name], (time.perf_counter() - start) / repeat * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=[60_000, 100_000, 1_000_000])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for size in args.sizes:
        kinds: dict[str, Any] = {
            "sampler": Sampler(size),
            "tree": SumTree(size),
            "binary tree": SumTree(size, fan_out=2, top=2),
            "running sum": RunningSum(size),
        }
        index = torch.randint(size, (args.batch,))
        value, fraction = torch.rand(2, args.batch, dtype=torch.float64)
        for kind in kinds.values():
            kind.set(torch.arange(size), torch.rand(size, dtype=torch.float64))
        draws = fastest({n: partial(k.find, fraction) for n, k in kinds.items()}, args.turns)
        writes = fastest({n: partial(k.set, index, value) for n, k in kinds.items()}, args.turns)
        shown = ", ".join(f"{name} {draws[name]:.0f} + {writes[name]:.0f}" for name in kinds)
        print(f"{size:9,d} items, draw + update, us: {shown}", flush=True)


if __name__ == "__main__":
    main()
