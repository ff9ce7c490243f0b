"""Informed traders: the law of their orders beside its closed form, what they cost, the exact programme."""

import itertools
import math

import pytest
import torch

from marl_td.tasks import make_task
from marl_td.tasks.market_making import flow, optimum
from marl_td.tasks.market_making.book import order_pmf
from marl_td.tasks.market_making.fills import fills
from marl_td.tasks.market_making.policies import Quoting, from_table, reservation
from marl_td.tasks.vector_env import VectorEnv

ALL_ORDERS = {"n_agents": 1, "size": 12, "max_inventory": 10_000, "adverse": 0.0}
"""A maker who quotes at the mid price is hit by every order."""


def market(n_envs=4, seed=0, **params):
    task = make_task("market_making", **params)
    generator = torch.Generator().manual_seed(seed)
    return task, task.reset(n_envs, task.draw_reset(n_envs, generator)), generator


def played(task, state, generator, rule):
    """States of an episode, and its rewards ``[n_envs, n_steps, n_agents]``."""
    states, rewards = [state], []
    for _ in range(task.params.max_steps):
        noise = task.draw_step(state.price.shape[0], generator)
        step = task.step(state, {"agents": rule(state)}, noise)
        state = step.state
        states.append(state)
        rewards.append(step.reward["agents"])
    return states, torch.stack(rewards, 1)


def correlation(x, y):
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


# ------------------------------------------------------------------------------------ the law
@pytest.mark.parametrize(("share", "horizon"), [(0.5, 1), (0.4, 3), (0.9, 8)])
def test_orders_go_with_the_next_moves_as_the_closed_form_says(share, horizon):
    """Measured in whole episodes: orders of a step, and how far the mid price goes from before it on."""
    params = {"toxic_share": share, "toxic_horizon": horizon, "max_steps": horizon + 3}
    task, state, generator = market(40_000, **ALL_ORDERS, **params)
    states, _ = played(task, state, generator, lambda s: torch.zeros(*s.inventory.shape, 2))
    mean, root = task.params.orders_per_step, math.sqrt(2 / math.pi)
    spread = math.sqrt(2 * mean + (2 * share * mean) ** 2)
    expected = 2 * share * mean * root / spread
    near = 4 / 40_000**0.5
    for t in range(3):  # at the start, and when all that is known was once the newest
        sells, buys = states[t + 1].filled[:, 0].unbind(-1)
        excess = buys - sells
        move = states[t + horizon].price - states[t].price
        assert correlation(excess, move) == pytest.approx(expected, abs=near)
        one = states[t + 1].price - states[t].price  # of the moves they know, a single one
        assert correlation(excess, one) == pytest.approx(expected / horizon**0.5, abs=near)
        after = states[t + horizon + 1].price - states[t + horizon].price
        assert correlation(excess, after) == pytest.approx(0.0, abs=near)
        for side in (sells, buys):  # each side alone is as busy as without them
            assert side.mean().item() == pytest.approx(mean, abs=0.024)
        # a unit sold loses known_move x share
        lost = (excess * move).mean() / (buys + sells).mean()
        assert lost.item() == pytest.approx(share * task.params.known_move, rel=0.05)
        assert excess.std().item() == pytest.approx(spread, rel=0.02)


def test_orders_of_a_step_by_hand():
    params = make_task("market_making", toxic_share=0.5, toxic_horizon=2, dt=0.01).params
    table = flow.cdf(params)
    assert table.shape == (2, params.max_orders)
    few, many = 1.4 * 0.5, 1.4 * 1.5
    assert table[:, 0].tolist() == pytest.approx([math.exp(-few), math.exp(-many)])
    assert table[1, 1].item() == pytest.approx(math.exp(-many) * (1 + many))
    known = torch.tensor([[1.0, -0.5], [0.5, -1.0]])  # the sum of both counts: up, down
    draw = torch.tensor([[0.3, 0.3], [0.3, 0.3]])  # P(0 of few) = 0.50, P(0 of many) = 0.12
    assert flow.count(table, draw, known).tolist() == [[0, 1], [1, 0]]
    assert params.known_move == pytest.approx(2.0 * math.sqrt(0.02) * math.sqrt(2 / math.pi))


@pytest.mark.parametrize("horizon", [1, 5])
def test_a_share_of_zero_is_the_market_without_them(horizon):
    plain, one, generator = market(6, n_agents=3)
    other, two, same = market(6, n_agents=3, toxic_share=0.0, toxic_horizon=horizon)
    assert one.ahead.shape == (6, 0)
    for _ in range(20):
        depth = 2 * torch.rand((6, 3, 2), generator=generator)
        same.set_state(generator.get_state())
        noise = plain.draw_step(6, generator)
        found, expected = (
            other.step(two, {"agents": depth}, other.draw_step(6, same)),
            plain.step(one, {"agents": depth}, noise),
        )
        one, two = expected.state, found.state
        for x, y in zip(one, two, strict=True):
            assert torch.equal(x, y)
        assert torch.equal(found.reward["agents"], expected.reward["agents"])
    assert other.optimum() == plain.optimum()
    # the old rule, written out: as many orders as the cumulated law has values below the draw
    pmf = order_pmf(plain.params.orders_per_step, plain.params.max_orders)
    draw = torch.rand((6, 2), generator=generator)
    expected = (draw.unsqueeze(-1) >= pmf.cumsum(0)[:-1].float()).sum(-1)
    assert torch.equal(flow.count(plain._cdf, draw, torch.randn(6, 1)), expected)


def test_who_knows_is_what_moves_the_price():
    task, state, generator = market(5, toxic_share=0.5, toxic_horizon=3, adverse=0.0)
    for _ in range(4):
        noise = task.draw_step(5, generator)
        new = task.step(state, {"agents": torch.ones(5, 5, 2)}, noise).state
        step = 2.0 * math.sqrt(0.005) * state.ahead[:, 0]
        torch.testing.assert_close(new.price - state.price, step, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(new.ahead[:, 0], state.ahead[:, 1])
        assert torch.equal(new.ahead[:, 1], noise["price"])
        state = new


# -------------------------------------------------------------------------------- the reward
@pytest.mark.parametrize("adverse", [0.0, 0.3])
@pytest.mark.parametrize("horizon", [1, 3])
def test_the_reward_without_the_fair_game_has_the_mean_of_the_wealth(horizon, adverse):
    """A maker who learns from its fills, in episodes so short that much is known when the market closes."""
    params = {"n_agents": 1, "toxic_share": 0.8, "toxic_horizon": horizon, "max_steps": 4}
    params |= {"adverse": adverse, "inventory_penalty": 0.0, "closing_penalty": 0.0, "dt": 0.01}

    def follow(state):
        """Quotes where orders were hit last, and hides on the other side: goes with the flow."""
        bid, ask = state.filled.unbind(-1)
        return torch.stack([0.2 + 0.6 * bid, 0.2 + 0.6 * ask], -1)

    totals = []
    for noise in (False, True):
        task, state, generator = market(60_000, price_noise=noise, **params)
        states, rewards = played(task, state, generator, follow)
        totals.append(rewards.sum((1, 2)))
    gap = totals[0] - totals[1]
    assert gap.mean().abs().item() < 3.5 * gap.std().item() / 60_000**0.5
    torch.testing.assert_close(totals[1], states[-1].wealth[:, 0], atol=1e-4, rtol=1e-4)
    # informed orders take something: more than chance, and less than if all of them knew
    harmless, state, generator = market(60_000, **(params | {"toxic_share": 0.0}))
    _, rewards = played(harmless, state, generator, follow)
    assert totals[0].mean() < rewards.sum((1, 2)).mean() - 0.05


# ------------------------------------------------------------------------------ the programme
def test_a_tiny_market_with_informed_traders_by_brute_force():
    """One step, discrete actions: direction, orders and their reach enumerated, no tensors."""
    changes = {"max_steps": 1, "max_inventory": 1, "size": 2, "order_rate": 160.0, "n_agents": 1}
    changes |= {"toxic_share": 0.6, "adverse": 0.2, "inventory_penalty": 9.0}
    p = make_task("market_making", **changes).params
    depths = [*[(j + 1) / 5 * p.max_depth for j in range(5)], math.inf]
    move = 2.0 * math.sqrt(p.dt) * math.sqrt(2 / math.pi)

    def side(mean, depth, room, size):
        reach = 0.0 if math.isinf(depth) else math.exp(-p.decay * depth)
        pmf = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(p.max_orders)]
        pmf.append(1 - sum(pmf))
        for n, weight in enumerate(pmf):
            for r in range(n + 1):
                chance = weight * math.comb(n, r) * reach**r * (1 - reach) ** (n - r)
                yield min(r, room, size), n, chance

    def value(q):
        best = -math.inf
        for bid, ask, size in itertools.product(depths, depths, (1, 2)):
            total = 0.0
            for z in (-1, 1):
                sells = side(p.orders_per_step * (1 - 0.6 * z), bid, 1 - q, size)
                buys = list(side(p.orders_per_step * (1 + 0.6 * z), ask, 1 + q, size))
                for (b, n_sells, x), (a, n_buys, y) in itertools.product(sells, buys):
                    new = q + b - a
                    won = (b * bid if b else 0.0) + (a * ask if a else 0.0)
                    won += new * (p.adverse * (n_buys - n_sells) + z * move)
                    penalty = (p.inventory_penalty * p.dt + p.closing_penalty) * new * new
                    total += 0.5 * x * y * (won - penalty)
            best = max(best, total)
        return best

    plan = optimum.solve(p, False)
    assert plan.value[0].tolist() == pytest.approx([value(q) for q in (-1, 0, 1)], abs=1e-9)


@pytest.mark.parametrize(
    ("continuous", "params"),
    [(True, {}), (False, {"size": 2, "adverse": 0.3, "inventory_penalty": 5.0})],
)
def test_the_programme_s_value_is_what_its_policy_earns(continuous, params):
    changes = {"n_agents": 1, "toxic_share": 0.6, "max_steps": 60, "adverse": 0.0} | params
    changes["volatility"] = 6.0
    task = make_task("market_making", continuous=continuous, **changes)
    best = task.optimum()
    assert best.kind == "exact"
    plan = optimum.solve(task.params, continuous)
    knowing = Quoting(task, from_table(task.params, plan.depth, task.device), plan.size)
    harmless = make_task("market_making", **{**changes, "toxic_share": 0.0}).params
    naive = optimum.solve(harmless, continuous)
    naive = Quoting(task, from_table(task.params, naive.depth, task.device), naive.size)
    found = []
    for policy in (knowing, naive):
        env = VectorEnv(task, 6000, seed=0)
        td, total = env.reset(), 0.0
        for _ in range(60):
            td = env.step(policy(td))["next"]
            total = total + td["agents", "reward"].mean((1, 2))
        found.append((total.mean().item(), total.std().item() / 6000**0.5))
    (mean, error), (other, _) = found
    assert abs(mean - best.value) < 3.5 * error and error < 0.02 * best.value
    assert other < mean - 3 * error  # who does not know of them quotes too narrow
    assert best.value < optimum.solve(harmless, continuous).value[0, 6].item()


def test_fills_lean_to_the_side_that_loses():
    params = make_task("market_making", toxic_share=0.5, adverse=0.0, dt=0.01).params
    depth, room = torch.tensor([0.4], dtype=torch.float64), torch.tensor([6.0])
    against, with_it = (fills(params, depth, room, 1, lean) for lean in (0.5, -0.5))
    for found, mean, sign in ((against, 2.1, 1), (with_it, 0.7, -1)):
        hit = 1 - math.exp(-mean * math.exp(-1.5 * 0.4))  # any of a Poisson number reaches it
        assert found.law[0].tolist() == pytest.approx([1 - hit, hit], abs=1e-5)
        worth = hit * (0.4 - sign * params.known_move)
        assert found.worth.item() == pytest.approx(worth, abs=1e-5)


@pytest.mark.parametrize(
    "params", [{"n_agents": 2}, {"n_agents": 1, "toxic_horizon": 2}, {"toxic_horizon": 4}]
)
def test_no_bound_is_claimed_where_orders_tell_of_later_moves(params):
    task = make_task("market_making", toxic_share=0.3, **params)
    assert task.optimum() is None
    assert make_task("market_making", **params).optimum() is not None


def test_the_competitive_end_covers_what_informed_traders_take():
    plain = make_task("market_making").params
    toxic = make_task("market_making", toxic_share=0.4, toxic_horizon=4).params
    empty, left = torch.zeros(3), torch.tensor([0.1, 0.5, 1.0])
    more = reservation(toxic)(empty, left) - reservation(plain)(empty, left)
    expected = 0.4 * 2.0 * math.sqrt(0.02) * math.sqrt(2 / math.pi)
    cut = 2.0 - reservation(plain)(empty, left)  # quotes end at max_depth
    torch.testing.assert_close(more, cut.clamp_max(expected))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"toxic_share": 1.0}, r"toxic_share must be in \[0, 1\); got 1"),
        ({"toxic_share": -0.1}, r"toxic_share must be in \[0, 1\); got -0.1"),
        ({"toxic_horizon": 0}, "toxic_horizon must be at least 1; got 0"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("market_making", **params)
