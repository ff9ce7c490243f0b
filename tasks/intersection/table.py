"""Delays of crossing schedules: ``python -m marl_td.tasks.intersection.table``.

Only the order counts here: equal separations, no driving. Mean delay per vehicle over random sequences.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from marl_td.tasks.intersection import schedule
from marl_td.tasks.intersection.params import IntersectionParams
from marl_td.tasks.intersection.schedule import Array, Problem
from marl_td.tasks.intersection.task import Intersection

SEPARATION, HEADWAY = 2.5, 2.0


def problems(n_vehicles: int, n_sequences: int, rate: float, seed: int = 0) -> list[Problem]:
    """Random sequences of arrivals at the line, with equal separations."""
    task = Intersection(IntersectionParams(n_agents=n_vehicles, arrival_rate=rate, dt=0.01))
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(n_sequences, task.draw_reset(n_sequences, generator))
    conflict = task.paths.conflict.numpy()
    rows = zip(0.01 * state.comes.numpy(), state.movement.numpy(), strict=True)
    return [schedule.simple(at, way, conflict, SEPARATION, HEADWAY) for at, way in rows]


def delays(problem: Problem) -> dict[str, float]:
    """Mean delay per vehicle in s of each rule, and the optimum."""
    n = len(problem.release)

    def mean(time: Array) -> float:
        return float(problem.delay(time).mean())

    return {
        "one at a time": mean(schedule.one_at_a_time(problem, SEPARATION)),
        "first come, first served, in order": mean(schedule.in_order(problem)),
        "first come, first served, reservation": mean(schedule.reserve(problem)),
        "optimum (mixed-integer programme)": schedule.best(problem) / n,
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Delays of crossing schedules.")
    parser.add_argument("--vehicles", type=int, nargs="+", default=[8, 12], help="(8 12)")
    parser.add_argument("--sequences", type=int, default=100, help="sequences of arrivals (100)")
    parser.add_argument("--rate", type=float, default=0.6, help="vehicles per second (0.6)")
    chosen = parser.parse_args(arguments)
    print("| vehicles | rule | mean delay, s |\n| --- | --- | --- |")
    for n in chosen.vehicles:
        rows = [delays(problem) for problem in problems(n, chosen.sequences, chosen.rate)]
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
            print(f"| {n} | {name} | {values.mean():.2f} +- {half:.2f} |", flush=True)


if __name__ == "__main__":
    main()
