"""The reference numbers of the retail task, as in ``docs/tasks/retail.md``.

``python benchmarks/retail_table.py`` prints them as Markdown.
All figures are $ per period over all sites, at the task's default costs. First the long-run costs for
demand rates 1, 5, 20 and lead times 0, 1, 2; then, for both transfer modes, what transfers can gain in the
task as it is played (100 periods from the random start).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from marl_td.tasks import VectorEnv
from marl_td.tasks.retail import Retail, RetailParams
from marl_td.tasks.retail.demand import demand_pmf, newsvendor_level, total_pmf
from marl_td.tasks.retail.dp import average_cost
from marl_td.tasks.retail.optimum import alone, bound, pooled_point, stock_point
from marl_td.tasks.retail.policies import StockPolicy
from marl_td.tasks.retail.search import best_base_stock, best_transfers, map_parameters, simulate

N_SITES = 5
LONG_RUN = ["lambda", "L", "exact DP", "best base-stock", "all lent", "bound, all lent", "one pool"]
PLAYED = ["mode", "L", "exact, alone", "base_stock", "transfers", "bound", "gain", "gain at most"]


def long_run_rows(
    rates: list[float], leads: list[int], n_paths: int, n_periods: int
) -> Iterator[list[str]]:
    """Rows of the table of long-run costs."""
    for rate in rates:
        for lead in leads:
            task = retail(
                demand=rate, lead_time=lead, capacity=8 * round(rate) + 40, max_steps=n_periods
            )
            params = task.params
            law = demand_pmf(params)[:, 0]
            level = newsvendor_level(params, (lead + 1) * rate)
            size = level + 2 * round(rate) + 10
            costs = (params.holding_cost, params.lost_cost)
            site = stock_point(law, size, lead, round(3 * rate) + 8, *costs)
            exact = N_SITES * average_cost(site, tolerance=1e-6)
            fixed = {s: N_SITES * average_cost(site, s, 1e-6) for s in range(level - 2, level + 2)}
            best = min(fixed, key=lambda s: fixed[s])
            shared, cost, half_width = best_reactive(task, best, n_paths)
            below = (
                average_cost(pooled_point(params, lead), tolerance=1e-5)
                if rate < 20 or lead < 2
                else None
            )
            pool = stock_point(
                total_pmf(params), round(5 * rate + 60), 0, round(5 * rate + 59), *costs
            )
            yield [
                f"{rate:g}",
                str(lead),
                f"{exact:.3f}",
                f"{fixed[best]:.3f} (S = {best})",
                f"{cost:.3f} +- {half_width:.3f} (S = {shared})",
                "-" if below is None else f"{below:.3f}",
                f"{average_cost(pool):.3f}" if lead == 0 else "",
            ]


def best_reactive(task: Retail, level: int, n_paths: int) -> tuple[int, float, float]:
    """Best symmetric base-stock level with everything lent; its long-run cost and 95 % half-width."""
    levels = torch.arange(max(1, round(0.6 * level) - 1), level + 1, dtype=torch.float32)
    tables = levels.reshape(-1, 1, 1).expand(-1, 1, task.n_agents)
    cost = simulate(StockPolicy(task, tables, lend=True), n_paths, burn_in=50).sum(-1)
    best = int(cost.mean(-1).argmin())
    half_width = 1.96 * float(cost[best].std()) / n_paths**0.5
    return int(levels[best]), float(cost[best].mean()), half_width


def headroom_rows(leads: list[int], n_paths: int) -> Iterator[list[str]]:
    """Rows of the table of what transfers can gain, in the task as it is played."""
    for mode in ("reactive", "action"):
        for lead in leads:
            task = retail(transfer_mode=mode, lead_time=lead)
            costs = [played(found(task), n_paths) for found in (best_base_stock, best_transfers)]
            best = bound(task)
            lower = 0.0 if best is None else best.value
            exact = alone(task.params)
            gains = [1 - costs[1][0] / costs[0][0], 1 - lower / costs[0][0]]
            yield [
                mode,
                str(lead),
                f"{exact:.3f}",
                *[f"{mean:.3f} +- {half_width:.3f}" for mean, half_width in costs],
                f"{lower:.3f}",
                *[f"{100 * gain:.1f} %" for gain in gains],
            ]


def played(policy: StockPolicy, n_paths: int) -> tuple[float, float]:
    """Mean score of a policy over fresh episodes and its 95 % half-width."""
    one = map_parameters(policy, lambda parameter: parameter.unsqueeze(0))
    cost = simulate(one, n_paths, seed=12345)[0].sum(-1)
    return float(cost.mean()), 1.96 * float(cost.std()) / n_paths**0.5


def retail(capacity: int = 40, **params: Any) -> Retail:
    """The retail task with orders of at most half the capacity, as in the default."""
    order = capacity // 2
    return Retail(RetailParams(n_agents=N_SITES, capacity=capacity, max_order=order, **params))


def picture(path: Path) -> None:
    """Draw a period in which stock is moved and some demand is lost, with levels set low for it."""
    from PIL import Image

    task = retail()
    policy = StockPolicy(task, torch.full((1, N_SITES), 12.0), lend=True)
    env = VectorEnv(task, 64)
    tensordict = env.reset()
    for _ in range(20):
        tensordict = env.step(policy(tensordict))["next"]
    busy = env.state.moved.abs().sum(-1) * (env.state.lost.sum(-1) > 0)
    Image.fromarray(env.render(index=int(busy.argmax()))).quantize(64).save(path, optimize=True)


def show(title: str, header: list[str], rows: Iterator[list[str]]) -> None:
    """Print a Markdown table row by row."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--paths", type=int, default=256, help="simulated paths per candidate")
    parser.add_argument(
        "--periods", type=int, default=550, help="periods per path, 50 of them burn-in"
    )
    parser.add_argument(
        "--picture", type=Path, help="write the picture of the page there, no tables"
    )
    parser.add_argument("--table", choices=["long-run", "played", "both"], default="both")
    parser.add_argument("--demand", type=float, nargs="+", default=[1.0, 5.0, 20.0])
    parser.add_argument(
        "--lead-time", type=int, nargs="+", help="default: 0 1 2, and 0 1 2 4 played"
    )
    arguments = parser.parse_args()
    if arguments.picture:
        return picture(arguments.picture)
    if arguments.table != "played":
        leads = arguments.lead_time or [0, 1, 2]
        rows = long_run_rows(arguments.demand, leads, arguments.paths, arguments.periods)
        show("Long-run cost", LONG_RUN, rows)
    if arguments.table != "long-run":
        show(
            "As played", PLAYED, headroom_rows(arguments.lead_time or [0, 1, 2, 4], arguments.paths)
        )


if __name__ == "__main__":
    main()
