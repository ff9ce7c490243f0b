"""Dynamic programmes and bounds of the retail task, against known and hand-made values."""

from dataclasses import replace

import pytest
import torch

from marl_td.tasks import make_task
from marl_td.tasks.retail.demand import convolve, newsvendor_level, poisson_pmf, total_pmf
from marl_td.tasks.retail.dp import (
    average_cost,
    buying,
    cost_to_go,
    expected_sales,
    left_over,
    selling,
)
from marl_td.tasks.retail.hindsight import hindsight, path_cost
from marl_td.tasks.retail.optimum import (
    affordable_lead,
    alone,
    market,
    pooled,
    pooled_point,
    stock_point,
)
from marl_td.tasks.retail.search import (
    best_base_stock,
    best_reorder_point,
    map_parameters,
    simulate,
)


def poisson(mean):
    return poisson_pmf(torch.tensor([float(mean)]))


def params(**changes):
    return make_task("retail", **changes).params


# ------------------------------------------------------------------------------------ known values
@pytest.mark.parametrize(
    ("lead", "costs"), [(1, [4.04, 5.44, 6.68, 7.84]), (2, [4.40, 6.09, 7.66, 9.11])]
)
def test_the_programme_returns_zipkins_costs(lead, costs):
    """Zipkin 2008, Table 1: Poisson demand 5, holding cost 1, lost sales at 4, 9, 19, 39."""
    for lost, cost in zip((4, 9, 19, 39), costs, strict=True):
        point = stock_point(poisson(5), 34, lead, 13, 1.0, float(lost))
        assert average_cost(point, tolerance=1e-4) == pytest.approx(cost, abs=0.006)


def test_the_programme_returns_zipkins_costs_at_lead_time_3():
    for lost, cost in ((4, 4.60), (9, 6.53), (19, 8.36), (39, 10.04)):
        point = stock_point(poisson(5), 36, 3, 13, 1.0, float(lost))
        assert average_cost(point, tolerance=1e-4) == pytest.approx(cost, abs=0.006)


def test_the_newsvendor_at_lead_time_0():
    """The level 11 and cost 0.68577 are what stockpyl's `newsvendor_poisson` returns for h 0.1, p 10."""
    point = stock_point(poisson(5), 30, 0, 29, 0.1, 10.0)
    assert newsvendor_level(params(), 5.0) == 11
    assert average_cost(point) == pytest.approx(0.68577, abs=1e-5)
    assert average_cost(point, level=11) == pytest.approx(0.68577, abs=1e-5)
    assert (
        average_cost(point, level=12)
        > average_cost(point, level=11)
        < average_cost(point, level=10)
    )


def test_base_stock_is_close_to_the_programme():
    """3.0 % above it for h 1, p 4, lead time 1."""
    point = stock_point(poisson(5), 34, 1, 13, 1.0, 4.0)
    best = min(average_cost(point, level) for level in range(9, 14))
    assert best / average_cost(point) == pytest.approx(1.030, abs=0.001)


# ------------------------------------------------------------------------------------ building blocks
def test_what_is_left_and_sold():
    pmf = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    left = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    assert torch.allclose(left_over(pmf, 3), left)
    assert left_over(pmf, 5).sum(-1).tolist() == pytest.approx([1] * 5)
    assert expected_sales(pmf, 4).tolist() == pytest.approx([0, 0.5, 0.7, 0.7])


def test_a_market_moves_the_cost_to_go():
    value = torch.tensor([[9.0, 5.0, 4.0, 4.0]], dtype=torch.float64)
    assert buying(1.5)(value).tolist() == [[6.5, 5.0, 4.0, 4.0]]
    assert selling(0.5)(value).tolist() == [[9.0, 5.0, 4.0, 3.5]]


def test_the_law_of_total_demand():
    pmf = poisson_pmf(torch.tensor([2.0, 3.0, 4.0]))
    total = convolve(pmf)
    assert torch.allclose(total[:30], poisson(9)[0][:30], atol=1e-12)
    linked = total_pmf(params(n_agents=3, correlation=0.5))[0]
    value = torch.arange(len(linked))
    mean = (linked * value).sum()
    assert mean.item() == pytest.approx(15, abs=1e-4)
    variance = (linked * (value - mean) ** 2).sum().item()
    assert 15 + 0.4 * 30 < variance < 15 + 0.5 * 30


# ----------------------------------------------------------------------------------------- bounds
def test_the_single_site_is_solved_exactly():
    """No policy beats the programme, and base-stock, known to be close to optimal, comes close."""
    task = make_task("retail", n_agents=1)
    optimum = task.optimum()
    assert optimum.kind == "exact"
    policy = best_base_stock(task)
    cost = simulate(map_parameters(policy, lambda x: x.unsqueeze(0)), 1000, seed=5)[0].sum(-1)
    error = 3 * cost.std().item() / 1000**0.5
    assert optimum.value - error < cost.mean() < 1.01 * optimum.value + error


def test_reorder_points_reach_the_programme_where_they_are_optimal():
    """In the long run, with a fixed order cost and no lead time."""
    task = make_task("retail", n_agents=1, lead_time=0, order_cost=5.0, max_steps=60)
    point = replace(stock_point(poisson(5), 41, 0, 20, 0.1, 10.0), order_cost=5.0)
    exact = average_cost(point)
    longer = make_task("retail", n_agents=1, lead_time=0, order_cost=5.0, max_steps=320)
    policy = map_parameters(best_reorder_point(task), lambda x: x.unsqueeze(0))
    cost = simulate(replace(policy, task=longer), 200, seed=3, burn_in=20)
    error = 3 * cost.std().item() / 200**0.5
    assert exact - error < cost.mean() < 1.02 * exact + error
    assert exact > 1.5 * average_cost(replace(point, order_cost=0.0))


def test_sites_alone_cost_n_times_one():
    assert alone(params(max_steps=20)) == pytest.approx(5 * alone(params(max_steps=20, n_agents=1)))


@pytest.mark.parametrize("mode", ["reactive", "action"])
def test_bounds_are_below_what_no_transfers_cost(mode):
    p = params(transfer_mode=mode, max_steps=10)
    assert 0 < pooled(p) < alone(p) and 0 < market(p) < alone(p)


def test_transfers_that_cost_too_much_are_worth_nothing():
    for mode in ("reactive", "action"):
        p = params(transfer_mode=mode, max_steps=30, transfer_cost=25.0)
        assert market(p, price=0.0) == pytest.approx(alone(p))


def test_a_pooled_chain_without_lead_time_is_a_newsvendor_on_total_demand():
    p = params(lead_time=0, transfer_cost=0.0)
    point = stock_point(poisson(25), 60, 0, 59, 0.1, 10.0)
    assert average_cost(pooled_point(p, 0)) == pytest.approx(average_cost(point), abs=1e-6)


def test_without_lead_time_lending_and_holding_less_is_optimal():
    """Eight units at every site reach the bound: nothing is left over that orders would not level."""
    point = pooled_point(params(lead_time=0), 0)
    assert average_cost(point, level=5 * 8) == pytest.approx(average_cost(point), rel=1e-3)


def test_transfers_before_demand_gain_little_at_lead_time_1():
    """Why the default is the reactive mode: before demand, no policy saves 6 %."""
    p = params(transfer_mode="action")
    assert market(p, price=0.1) > 0.94 * alone(p)
    assert pooled(params()) < 0.5 * alone(p)


def test_a_chain_too_large_to_solve_relaxes_its_lead_time_or_has_no_bound():
    assert affordable_lead(params(lead_time=6), pooled=True) < 6
    huge = make_task("retail", n_agents=40, demand=150.0, capacity=5000, max_order=300)
    assert huge.optimum() is None


def test_a_relaxed_lead_time_is_a_lower_bound():
    values = [alone(params(lead_time=lead, max_steps=40)) for lead in (1, 2)]
    assert values[0] < values[1]


# -------------------------------------------------------------------------------------- hindsight
def test_a_path_by_hand():
    """Two sites, two periods, lead time 1; orders of at most 20."""
    task = make_task("retail", n_agents=2, max_steps=2)
    state = task.reset(1, task.draw_reset(1, torch.Generator().manual_seed(0)))
    state = state._replace(
        stock=torch.tensor([[1.0, 3.0]]), pipeline=torch.tensor([[[1.0], [0.0]]])
    )
    # Period 1: site 1 has 2 and needs 4, site 2 has 3 and needs 2: one unit moves, one sale is lost.
    # Period 2: site 2 gets 20 and needs 25: five units move.
    assert path_cost(task, state, torch.tensor([[4.0, 2.0], [7.0, 25.0]])) == pytest.approx(
        10 + 0.5 * 1 + 0.5 * 5
    )


def test_hindsight_is_a_weak_bound():
    task = make_task("retail", max_steps=30)
    assert 0 < hindsight(task, 3).mean() < 0.5 * task.optimum().value


def test_the_cost_to_go_is_convex_in_stock_at_lead_time_1():
    value = cost_to_go(stock_point(poisson(5), 40, 1, 20, 0.1, 10.0), 30)[0]
    assert value.diff().diff().min() > -1e-9
