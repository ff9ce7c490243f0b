"""Pricing: steps by hand, equilibria against other ways to find them, what is seen, failures, baselines."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import lambertw
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.pricing import PricingParams
from marl_td.tasks.pricing.market import joint_prices, logit_market, nash_prices
from marl_td.tasks.pricing.optimum import price_points

UNEQUAL = {"n_agents": 3, "quality": [2.0, 2.3, 1.8], "cost": [1.0, 1.1, 0.8]}
MODES = {
    "market": {
        "n_agents": 2,
        "shock": 0.3,
        "memory": 2,
        "dead_agents": 0.4,
        "message_dropout": 0.3,
    },
    "unequal, one owner": {**UNEQUAL, "store_id": True, "cooperative": True},
    "inventory": {"inventory": True, "stock": 3, "max_steps": 30, "message_dropout": 0.2},
}


def started(task, n_envs, seed=0):
    """A state after two random steps, and the generator."""
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, generator))
    for _ in range(2):
        action, noise = random_action(task, n_envs, generator), task.draw_step(n_envs, generator)
        state = task.step(state, action, noise).state
    return state, generator


def random_action(task, n_envs, generator):
    shape = (n_envs, task.params.n_agents)
    if task.continuous:
        return {"agents": torch.rand((*shape, 1), generator=generator) * 1.4 - 0.2}
    return {"agents": torch.randint(task.params.n_prices, shape, generator=generator)}


# ------------------------------------------------------------------------------------- equilibria
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_markups_of_equal_stores_are_the_fixed_points(n):
    market = logit_market(PricingParams(n_agents=max(n, 2))).of(tuple(range(n)))
    nash, joint = nash_prices(market), joint_prices(market)
    share, joint_share = market.shock_shares(nash)[0], market.shock_shares(joint)[0]
    torch.testing.assert_close(nash - 1.0, 0.25 / (1.0 - share), rtol=0, atol=1e-11)
    torch.testing.assert_close(
        joint - 1.0, 0.25 / (1.0 - joint_share.sum()).expand(n), rtol=0, atol=1e-11
    )
    if n == 2:  # the prices that Calvano et al. (2020) give
        assert [round(float(p[0]), 3) for p in (nash, joint)] == [1.473, 1.925]


@pytest.mark.parametrize("shock", [0.0, 0.5])
def test_equilibria_of_unequal_stores_are_what_a_search_finds(shock):
    params = PricingParams(**UNEQUAL, shock=shock)
    nash, joint = price_points(params)

    def profits(price):
        """Written out, customer type by customer type."""
        total = np.zeros(3)
        for outside in (-shock, shock):
            weight = [math.exp((a - p) / 0.25) for a, p in zip(params.quality, price, strict=True)]
            whole = sum(weight) + math.exp(outside / 0.25)
            margins = zip(weight, price, params.cost, strict=True)
            total += [0.5 * w / whole * (p - c) for w, p, c in margins]
        return total

    np.testing.assert_allclose(logit_market(params).profit(nash).numpy(), profits(nash.tolist()))
    found = minimize(lambda price: -profits(price).sum(), nash.numpy(), tol=1e-12)
    np.testing.assert_allclose(joint.numpy(), found.x, atol=1e-4)
    for store in range(3):
        tried = np.linspace(0.8, 4.0, 3201)
        price = nash.numpy().copy()
        earned = []
        for value in tried:
            price[store] = value
            earned.append(profits(price)[store])
        assert abs(tried[int(np.argmax(earned))] - float(nash[store])) < 1.1e-3


def test_a_best_response_is_that_of_the_closed_form():
    """Without shocks p = c + mu (1 + W(z)), W Lambert's function."""
    market = logit_market(PricingParams(**UNEQUAL))
    price = 1.0 + 2.0 * torch.rand((50, 3), dtype=torch.float64)
    weight = ((market.quality - price) / 0.25).exp()
    rest = weight.sum(-1, keepdim=True) - weight + 1.0
    z = ((market.quality - market.cost) / 0.25 - 1.0).exp() / rest
    expected = market.cost + 0.25 * (1.0 + torch.tensor(lambertw(z.numpy()).real))
    torch.testing.assert_close(market.best_response(price), expected)


def test_the_best_response_of_a_grid_is_its_best_price():
    task = make_task("pricing", continuous=False, **UNEQUAL, shock=0.2)
    price = 1.2 + torch.rand((20, 3), generator=torch.Generator().manual_seed(0))
    found = task.best_response(price)
    for env in range(20):
        for store in range(3):
            rows = price[env].repeat(15, 1)
            rows[:, store] = task.prices(torch.arange(15).unsqueeze(-1).expand(-1, 3))[:, store]
            assert found[env, store] == task.market.profit(rows)[:, store].argmax()


# --------------------------------------------------------------------------------------- by hand
def test_a_step_by_hand():
    task = make_task("pricing", n_agents=2, memory=2)
    generator = torch.Generator().manual_seed(0)
    state = task.reset(1, task.draw_reset(1, generator))
    nash, joint = 1.4729266600, 1.9249809190
    low, high = 1.0, joint + 0.1 * (joint - nash)
    action = torch.tensor([[(1.5 - low) / (high - low)], [(1.8 - low) / (high - low)]])
    step = task.step(state, {"agents": action.unsqueeze(0)}, task.draw_step(1, generator))
    weights = [math.exp(2.0), math.exp(0.8), 1.0]
    share = [weight / sum(weights) for weight in weights]
    profit = [0.5 * share[0], 0.8 * share[1]]
    money = 0.3374904595
    assert step.reward["agents"][0].tolist() == pytest.approx([x / money for x in profit], rel=1e-5)
    info = {name: value.item() for name, value in step.info.items()}
    expected = {"profit": sum(profit), "sold": share[0] + share[1], "price": 1.65}
    assert info == pytest.approx(expected, rel=1e-5)
    assert not step.terminated.any()
    first, second = task.observe(step.state)["agents"][0]
    old = (state.price[0, 1] - nash) / (joint - nash)
    new = [(1.5 - nash) / (joint - nash), (1.8 - nash) / (joint - nash)]
    row = [old[0], new[0], old[1], new[1], 1.0, profit[0] / money, 0.0]
    assert first.tolist() == pytest.approx([float(x) for x in row], abs=1e-5)
    assert second[:4].tolist() == pytest.approx(
        [float(old[1]), new[1], float(old[0]), new[0]], abs=1e-5
    )
    assert task.observe(state)["agents"][0, :, -1].tolist() == [1.0, 1.0]  # the opening


def test_one_owner_pays_everybody_the_mean():
    kind = {"n_agents": 2, "continuous": False}
    own, shared = make_task("pricing", **kind), make_task("pricing", **kind, cooperative=True)
    state, generator = started(own, 5)
    action, noise = random_action(own, 5, generator), own.draw_step(5, generator)
    alone = own.step(state, action, noise).reward["agents"]
    together = shared.step(state, action, noise).reward["agents"]
    torch.testing.assert_close(together, alone.mean(-1, keepdim=True).expand(-1, 2))


def test_a_shock_moves_what_buying_nowhere_is_worth():
    task = make_task("pricing", n_agents=2, shock=0.5)
    state, generator = started(task, 2)
    noise = task.draw_step(2, generator) | {"shock": torch.tensor([0.2, 0.7])}
    action = {"agents": torch.full((2, 2, 1), 0.5)}
    sold = task.step(state, action, noise).info["sold"]
    price = task.prices(action["agents"])[0].double()
    weight = ((2.0 - price) / 0.25).exp().sum()
    expected = [weight / (weight + math.exp(sign * 0.5 / 0.25)) for sign in (-1, 1)]
    assert sold.tolist() == pytest.approx([float(x) for x in expected], rel=1e-5)


# ------------------------------------------------------------------------------------- properties
@given(
    n=st.integers(2, 5),
    share=st.lists(st.floats(-10, 10), min_size=5, max_size=5),
    inventory=st.booleans(),
    dead=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_nothing_is_sold_that_is_not_there(n, share, inventory, dead, seed):
    task = make_task(
        "pricing", n_agents=n, inventory=inventory, stock=2, dead_agents=dead, max_steps=8
    )
    state, generator = started(task, 6, seed)
    action = {"agents": torch.tensor(share[:n]).view(1, n, 1).expand(6, -1, -1)}
    step = task.step(state, action, task.draw_step(6, generator))
    assert step.reward["agents"].isfinite().all()
    assert task.observe(step.state)["agents"].isfinite().all()
    sold = step.info["sold"]
    assert (step.state.profit[~state.open] == 0).all()
    price = step.state.price[:, -1]
    assert (price >= task.low).all() and (price <= task.high).all()
    if inventory:
        torch.testing.assert_close((state.stock - step.state.stock).sum(-1), sold)
        assert (step.state.stock >= 0).all()
    else:
        assert ((sold > 0) & (sold < 1)).all()
    torch.testing.assert_close(step.info["profit"], step.state.profit.sum(-1))


def test_equal_stores_may_be_renamed():
    task = make_task("pricing", n_agents=3, memory=2)
    state, generator = started(task, 4)
    action, noise = random_action(task, 4, generator), task.draw_step(4, generator)
    order = [2, 0, 1]  # a rotation, under which the cyclic order of the others stays
    turned = state._replace(price=state.price[..., order], profit=state.profit[:, order])
    step, again = (
        task.step(s, {"agents": a}, noise)
        for s, a in ((state, action["agents"]), (turned, action["agents"][:, order]))
    )
    torch.testing.assert_close(again.reward["agents"], step.reward["agents"][:, order])
    seen = task.observe(step.state)["agents"][:, order]
    torch.testing.assert_close(task.observe(again.state)["agents"], seen)


# ------------------------------------------------------------------------------------ environments
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_specs_hold(mode, continuous):
    check_env_specs(make_env("pricing", 3, continuous=continuous, **MODES[mode]))


def test_markets_truncate_and_seasons_terminate():
    for inventory in (False, True):
        env = make_env("pricing", 2, max_steps=4, inventory=inventory)
        td = env.rollout(9, break_when_any_done=False)["next"]
        kind, other = ("terminated", "truncated") if inventory else ("truncated", "terminated")
        assert td[kind][0, :, 0].nonzero().flatten().tolist() == [3, 7]
        assert not td[other].any()


# ---------------------------------------------------------------------------------------- failures
def test_lost_prices_are_not_seen_and_flagged():
    lost = make_task("pricing", n_agents=3, message_dropout=1.0)
    state, _ = started(lost, 2)
    row = lost.observe(state)["agents"][0, 0]
    assert row[0] != 0 and row[1:5].tolist() == [0.0] * 4
    half = make_task("pricing", n_agents=3, message_dropout=0.3)
    state = half.reset(2000, half.draw_reset(2000, torch.Generator().manual_seed(0)))
    assert abs(state.seen.float().mean() - 0.7) < 0.02


def test_a_closed_store_sells_nothing_and_its_customers_go_elsewhere():
    task = make_task("pricing", n_agents=3, dead_agents=0.3)
    state = task.reset(4, task.draw_reset(4, torch.Generator().manual_seed(0)))
    assert state.open.sum(-1).tolist() == [2] * 4
    action = task.action_for(torch.full((4, 3), 1.5))
    step = task.step(state, {"agents": action}, task.draw_step(4, torch.Generator()))
    weight = math.exp(2.0)
    expected = torch.where(state.open, 0.5 * weight / (2 * weight + 1.0), 0.0)
    torch.testing.assert_close(step.state.profit, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(task.alive(step.state)["agents"], state.open)
    seen = task.observe(step.state)["agents"][..., 3:5] > 0.5
    assert torch.equal(seen, state.open[:, task.others])


# ----------------------------------------------------------------------------------------- judging
@pytest.mark.parametrize("continuous", [True, False])
def test_policies_by_rule_come_in_their_known_order(continuous):
    table = baseline_table(
        "t", make_task("pricing", continuous=continuous, max_steps=50), 8, seed=0
    )
    found = {row.policy: row.value for row in table.rows}
    assert found["undercut"] < found["static_nash"] - 0.1
    assert abs(found["static_nash"]) < 0.03 and abs(found["best_response"]) < 0.03
    best = table.optimum.value
    assert found["grim_trigger"] == pytest.approx(found["monopoly"], abs=1e-5)
    assert found["monopoly"] == pytest.approx(best, abs=1e-3)
    assert table.optimum.kind == "exact"


def test_the_optimum_of_a_grid_is_below_that_of_all_prices():
    coarse = make_task("pricing", continuous=False, n_prices=4).optimum()
    assert coarse.kind == "exact" and 0.8 < coarse.value < 1.0
    task = make_task("pricing", continuous=False, n_agents=5, n_prices=50)
    assert (task.optimum().kind, task.optimum().value) == ("upper", pytest.approx(1.0))


def test_the_optimum_of_survivors_is_their_joint_price():
    task = make_task("pricing", **UNEQUAL, dead_agents=0.3)
    total = 0.0
    for pair in ((0, 1), (0, 2), (1, 2)):
        market = task.market.of(pair).to(torch.device("cpu"), torch.float64)
        total += float(market.profit(joint_prices(market)).sum()) / 3
    scale = task.yardstick
    expected = (total - scale.nash_profit) / (scale.joint_profit - scale.nash_profit)
    assert task.optimum().value == pytest.approx(expected)


def test_grim_triggers_never_forgive():
    env = make_env("pricing", 1, n_agents=2)
    policy = env.task.baselines()["grim_trigger"]
    td, prices = env.reset(), []
    for step in range(6):
        td = policy(td)
        if step == 2:
            td["agents", "action"][:, 0] = 0.3
        td = env.step(td)["next"]
        prices.append(td["agents", "info", "price"][0, 1, 0].item())
    nash, joint = (float(price[0]) for price in price_points(env.task.params))
    assert prices == pytest.approx([joint] * 3 + [nash] * 3, rel=1e-5)


def test_a_series_and_a_picture():
    for params in ({"dead_agents": 0.3}, {"inventory": True}):
        env = make_env("pricing", 2, **params)
        td = env.reset()
        start = env.render()
        env.step(env.rand_action(td))
        series = env.task.episode_series(env.state)
        assert all(value.shape == (2, 3) for value in series.values())
        shown = env.render(index=1)
        assert shown.shape == (360, 560, 3) and shown.dtype == np.uint8
        assert not np.array_equal(shown, start)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 1}, r"n_agents must be at least 2 \(1 store only with inventory\); got 1"),
        (
            {"quality": [2.0, 1.0]},
            r"quality must be a number or a list of 3 numbers.*got \[2.0, 1.0\]",
        ),
        ({"cost": "low"}, "cost must be a number or a list of 3 numbers, one per store; got 'low'"),
        ({"substitution": 0.0}, "substitution must be positive; got 0"),
        ({"shock": -0.1}, "shock must be at least 0; got -0.1"),
        ({"n_prices": 1}, "n_prices must be at least 2; got 1"),
        ({"memory": 0}, "memory must be at least 1; got 0"),
        ({"stock": 0, "inventory": True}, "stock must be at least 1; got 0"),
        ({"message_dropout": 2.0}, "message_dropout is a probability"),
        ({"quality": -20.0}, "stores hardly compete at these parameters"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("pricing", **params)
