"""Retail and banking beside packages that no one here wrote: `scripts/reference_values.py` asked them."""

import json
from pathlib import Path

import pytest
import torch

from marl_td.tasks import make_task
from marl_td.tasks.banking import BankingParams, queueing
from marl_td.tasks.banking.table import simulate
from marl_td.tasks.retail import RetailParams
from marl_td.tasks.retail.demand import newsvendor_level, poisson_pmf
from marl_td.tasks.retail.dp import average_cost
from marl_td.tasks.retail.optimum import stock_point

FOUND = json.loads((Path(__file__).parent / "references.json").read_text())


@pytest.mark.parametrize("case", FOUND["newsvendor"], ids=lambda case: f"mean {case['mean']:g}")
def test_a_single_site_without_lead_time_is_stockpyls_newsvendor(case):
    params = RetailParams(holding_cost=case["holding"], lost_cost=case["lost"])
    assert newsvendor_level(params, case["mean"]) == case["level"]
    law = poisson_pmf(torch.tensor([case["mean"]]))
    most = case["level"] + 20
    point = stock_point(law, most, 0, most, case["holding"], case["lost"])
    assert average_cost(point, level=case["level"]) == pytest.approx(case["cost"], rel=1e-5)
    assert average_cost(point) == pytest.approx(case["cost"], rel=1e-5)


@pytest.mark.parametrize("case", FOUND["queues"], ids=lambda case: f"{case['arrivals']:g} per s")
def test_erlangs_formula_agrees_with_ciws_simulation(case):
    params = BankingParams(arrival_rate=case["arrivals"])
    latency = 1000 * queueing.split_latency(params, case["split"])
    assert abs(latency - case["mean_ms"]) < 3.5 * case["error_ms"]


def test_the_event_clock_runs_as_long_as_ciws_queues():
    """The task itself, event by event, with payments sent by a fixed split at random."""
    case = FOUND["queues"][2]
    task = make_task(
        "banking",
        clock="event",
        arrival_rate=case["arrivals"],
        start="empty",
        max_steps=6000,
    )
    generator = torch.Generator().manual_seed(0)
    share = torch.tensor([*case["split"], 0.0])

    def by_split(data):
        shape = data["agents", "observation"].shape[:2]
        drawn = torch.multinomial(share.expand(shape.numel(), -1), 1, generator=generator)
        return data.set(("agents", "action"), drawn.view(shape))

    latency = task.score(simulate(task, by_split, 48))
    error = latency.std().item() / 48**0.5
    assert abs(latency.mean().item() - case["mean_ms"]) < 3.5 * error + 0.01 * case["mean_ms"]
