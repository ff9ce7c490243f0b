"""Perishable stock: demand by hand, and the optimum by other ways: recursion, differential equation, play."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.integrate import solve_ivp

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.pricing.optimum import revenue_of
from marl_td.tasks.pricing.params import PricingParams
from marl_td.tasks.pricing.season import (
    best_revenue,
    demand_rates,
    dynamic_programme,
    poisson,
    top_price,
)

ALONE = {"inventory": True, "n_agents": 1}


def test_the_closed_form_solves_the_equation_of_its_problem():
    """dJ_n/dm = max over p of exp(-p) (p + J_{n-1} - J_n) = exp(-1 - J_n + J_{n-1})."""

    def slope(_, value):
        return np.exp(-1.0 - np.diff(np.concatenate([[0.0], value])))

    found = solve_ivp(slope, (0.0, 12.0), np.zeros(6), rtol=1e-10, atol=1e-12).y[:, -1]
    expected = best_revenue(6, torch.tensor(12.0), 1.0)[1:]
    np.testing.assert_allclose(expected.numpy(), found, rtol=1e-7)
    twice = best_revenue(6, torch.tensor(12.0), 2.0)
    torch.testing.assert_close(twice[1:], 2.0 * expected)


def test_the_programme_is_the_best_of_all_policies():
    """Two steps, two units, three prices: every policy tried."""
    params = PricingParams(**ALONE, max_steps=2, stock=2, customers=3.0)
    prices = torch.tensor([0.5, 1.2, 2.0])
    law = [scipy.stats.poisson(1.5 * math.exp(-p)) for p in prices.tolist()]

    def earned(first, *second):
        """Revenue of price `first`, then `second[units left]`."""
        total = 0.0
        for sold in range(3):
            chance = law[first].pmf(sold) if sold < 2 else law[first].sf(1)
            later, left = second[2 - sold], 2 - sold
            sells = sum(law[later].sf(k) for k in range(left))
            total += chance * (prices[first].item() * sold + prices[later].item() * sells)
        return total

    value, best = dynamic_programme(params, prices)
    choices = {c: earned(*c) for c in itertools.product(range(3), repeat=4)}
    assert float(value[0, 2]) == pytest.approx(max(choices.values()), rel=1e-6)
    chosen = (int(best[0, 2]), *best[1].tolist())
    assert choices[chosen] == pytest.approx(max(choices.values()))


def test_the_programme_tends_to_the_closed_form_with_finer_steps():
    bound = revenue_of(PricingParams(**ALONE, customers=20.0, stock=5), 1)
    gaps = []
    for n_steps in (10, 40, 160):
        task = make_task("pricing", **ALONE, customers=20.0, stock=5, max_steps=n_steps)
        gaps.append(1.0 - task.optimum().value)
    assert 0.0 < gaps[2] < gaps[1] < gaps[0]
    assert gaps[2] < 0.4 * gaps[1] and gaps[2] * bound < 0.02


def test_demand_by_hand():
    params = PricingParams(inventory=True, customers=100.0, max_steps=50, reservation=2.0)
    price = torch.tensor([[1.0, 1.5, 0.2], [1.0, 1.5, 0.2]], dtype=torch.float64)
    stocked = torch.tensor([[True, True, False], [False] * 3])
    found = demand_rates(params, price, stocked)
    first = math.exp(-1.0 / 0.25) / (math.exp(-1.0 / 0.25) + math.exp(-1.5 / 0.25))
    expected = [2.0 * first * math.exp(-0.5), 2.0 * (1.0 - first) * math.exp(-0.75), 0.0]
    assert found[0].tolist() == pytest.approx(expected)
    assert found[1].tolist() == [0.0] * 3


def test_uniform_numbers_become_poisson_ones():
    uniform = torch.rand(3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for mean in (0.0, 0.4, 2.5):
        means = torch.full((3000,), mean, dtype=torch.float64)
        expected = scipy.stats.poisson.ppf(uniform.numpy(), mean)
        assert np.array_equal(poisson(uniform, means, 20).numpy(), expected)


def test_a_step_by_hand():
    task = make_task("pricing", inventory=True, n_agents=2, stock=2, customers=120.0, max_steps=30)
    state = task.reset(1, task.draw_reset(1, torch.Generator().manual_seed(0)))
    price = torch.tensor([[0.4, 0.6]])
    chosen = math.exp(-0.4 / 0.25) / (math.exp(-0.4 / 0.25) + math.exp(-0.6 / 0.25))
    means = 4.0 * chosen * math.exp(-0.4), 4.0 * (1.0 - chosen) * math.exp(-0.6)
    wanted = scipy.stats.poisson.ppf([0.95, 0.7], means)
    assert wanted.tolist() == [4.0, 1.0]  # of which store 1 has 2
    noise = task.draw_step(1, torch.Generator()) | {"demand": torch.tensor([[0.95, 0.7]])}
    step = task.step(state, {"agents": task.action_for(price)}, noise)
    assert step.state.stock.tolist() == [[0.0, 1.0]]
    assert step.reward["agents"][0].tolist() == pytest.approx([0.8, 0.6], rel=1e-5)
    assert step.info["sold"].tolist() == [3.0]
    seen = task.observe(step.state)["agents"][0]
    assert seen[:, -2:].tolist() == [[0.0, pytest.approx(29 / 30)], [0.5, pytest.approx(29 / 30)]]


def test_the_last_unit_s_price_tops_the_range():
    task = make_task("pricing", **ALONE, customers=50.0)
    expected = 1.0 + math.log(1.0 + 50.0 / math.e)
    assert top_price(task.params) == pytest.approx(expected)
    assert task.prices(torch.tensor([[[2.0]]])).item() == pytest.approx(expected)


@pytest.mark.parametrize("continuous", [True, False])
def test_play_earns_what_the_programme_says(continuous):
    params = {"customers": 40.0, "stock": 6, "max_steps": 40, "continuous": continuous}
    table = baseline_table("t", make_task("pricing", **ALONE, **params), 500, seed=0)
    found = {row.policy: row for row in table.rows}
    best = found["optimal"]
    assert table.optimum.kind == "exact"
    assert best.low - 0.01 < table.optimum.value < best.high + 0.01
    assert found["random"].value < found["fixed_price"].value < best.value
    assert found["own_stock"].value == pytest.approx(found["pooled"].value)
    assert best.high - best.low < 0.06


def test_rules_of_several_stores_come_in_their_known_order():
    table = baseline_table("t", make_task("pricing", inventory=True, max_steps=100), 200, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["undercut"] < found["fixed_price"] < found["own_stock"]
    assert found["random"] < found["fixed_price"] and found["pooled"] < 1.05
    assert (table.optimum.value, table.optimum.kind) == (1.0, "upper")


def test_stock_of_closed_stores_bounds_less():
    task = make_task("pricing", inventory=True, dead_agents=0.3)
    params = task.params
    assert task.optimum().value == pytest.approx(revenue_of(params, 2) / revenue_of(params, 3))


def test_a_sold_out_season_goes_on_quietly():
    env = make_env("pricing", 2, inventory=True, stock=1, customers=2000.0, max_steps=20)
    td = env.reset()
    for _ in range(12):
        td["agents", "action"] = torch.zeros(2, 3, 1)
        td = env.step(td)["next"]
    assert (env.state.stock == 0).all() and not td["done"].any()
    assert (td["agents", "reward"] == 0).all() and td["agents", "observation"].isfinite().all()
