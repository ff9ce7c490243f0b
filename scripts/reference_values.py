"""Asks stockpyl and ciw, which no one here wrote, and writes what they say to `tests/tasks/references.json`.

    python -m venv ENV && ENV/bin/pip install stockpyl==1.0.2 ciw==3.2.7
    ENV/bin/python scripts/reference_values.py

`newsvendor`: base-stock level and cost per period of one site with Poisson demand, from
`stockpyl.newsvendor.newsvendor_poisson`. `queues`: mean time in the system in ms, simulated by `ciw` event by
event, of payments that three channels of M/M/c servers serve; the mean of the replications, its standard
error, and the load.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "tests" / "tasks" / "references.json"
STOCK = [
    {"holding": h, "lost": p, "mean": mean}
    for h, p, mean in (
        (0.1, 10.0, 5.0),
        (0.1, 10.0, 1.0),
        (0.1, 10.0, 20.0),
        (1.0, 4.0, 5.0),
        (1.0, 19.0, 5.0),
        (1.0, 1.0, 2.5),
    )
]
SERVERS, RATES = (2, 4, 8), (50.0, 12.5, 5.0)
"""Of the channels internal, external and chain: number, and payments per server and second."""
LOADS = [
    {"arrivals": 117.55, "split": [1 / 3, 1 / 3, 1 / 3]},
    {"arrivals": 117.55, "split": [0.6, 0.25, 0.15]},
    {"arrivals": 60.0, "split": [0.5, 0.3, 0.2]},
]
SECONDS, WARM_UP, REPLICATIONS = 400.0, 60.0, 12


def newsvendor(case: dict[str, float]) -> dict[str, Any]:
    """One site, one period."""
    from stockpyl.newsvendor import newsvendor_poisson

    level, cost = newsvendor_poisson(case["holding"], case["lost"], case["mean"])
    return {**case, "level": int(level), "cost": float(cost)}


def queue(case: dict[str, Any]) -> dict[str, Any]:
    """Three channels side by side; every payment is sent to one by the split."""
    import ciw

    rates = [case["arrivals"] * share for share in case["split"]]
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate) for rate in rates],
        service_distributions=[ciw.dists.Exponential(rate) for rate in RATES],
        number_of_servers=list(SERVERS),
        routing=[[0.0] * 3] * 3,
    )
    means = []
    for seed in range(REPLICATIONS):
        ciw.seed(seed)
        simulation = ciw.Simulation(network)
        simulation.simulate_until_max_time(WARM_UP + SECONDS + 20.0)
        times = [
            record.exit_date - record.arrival_date
            for record in simulation.get_all_records()
            if WARM_UP <= record.arrival_date < WARM_UP + SECONDS
        ]
        means.append(1000 * statistics.mean(times))
    error = statistics.stdev(means) / REPLICATIONS**0.5
    return {**case, "mean_ms": statistics.mean(means), "error_ms": error}


def main() -> None:
    """Ask, and write."""
    found = {
        "newsvendor": [newsvendor(case) for case in STOCK],
        "queues": [queue(case) for case in LOADS],
    }
    OUT.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written: {OUT}")


if __name__ == "__main__":
    main()
