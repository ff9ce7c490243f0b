"""The optimum of market making: by brute force, by simulation, in the limit of short steps, and the bound."""

import itertools
import math

import pytest
import torch

from marl_td.tasks import make_env, make_task
from marl_td.tasks.market_making import optimum
from marl_td.tasks.market_making.policies import Quoting, avellaneda_stoikov, from_table

CARD = {"n_agents": 1, "inventory_penalty": 0.01, "adverse": 0.0}
"""One maker with the figures that the closed form is usually shown for."""


def params_of(**changes):
    return make_task("market_making", **{**CARD, **changes}).params


def start_value(**changes):
    params = params_of(**changes)
    return optimum.solve(params, True).value[0, params.max_inventory].item()


def test_tiny_markets_by_brute_force():
    """Two steps, discrete actions: every order's reach level enumerated, no tensors."""
    p = params_of(
        max_steps=2, max_inventory=1, size=2, order_rate=160.0, inventory_penalty=9.0, adverse=0.2
    )
    mean, k = p.orders_per_step, p.decay
    depths = [*[(j + 1) / 5 * p.max_depth for j in range(5)], math.inf]
    pmf = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(p.max_orders)]
    pmf.append(1 - sum(pmf))

    def side(depth, room, size):
        """(fills, orders, probability): how many of the orders reach the quote."""
        reach = 0.0 if math.isinf(depth) else math.exp(-k * depth)
        for n, weight in enumerate(pmf):
            for r in range(n + 1):
                chance = weight * math.comb(n, r) * reach**r * (1 - reach) ** (n - r)
                yield min(r, room, size), n, chance

    def value(q, step):
        if step == 2:
            return -p.closing_penalty * q * q
        best = -math.inf
        for bid, ask, size in itertools.product(depths, depths, (1, 2)):
            total = 0.0
            for (b, sells, x), (a, buys, y) in itertools.product(
                list(side(bid, 1 - q, size)), list(side(ask, 1 + q, size))
            ):
                if x * y == 0.0:
                    continue
                new = q + b - a
                won = (b * bid if b else 0.0) + (a * ask if a else 0.0)
                won += new * p.adverse * (buys - sells)
                total += x * y * (won - p.inventory_penalty * p.dt * new * new + later[step][new])
            best = max(best, total)
        return best

    later = {1: {q: value(q, 2) for q in (-1, 0, 1)}}
    later[0] = {q: value(q, 1) for q in (-1, 0, 1)}
    first = [value(q, 0) for q in (-1, 0, 1)]
    plan = optimum.solve(p, False)
    # charging q * adverse * (buys - sells) for the whole inventory equals charging the fills' covariance
    assert plan.value[0].tolist() == pytest.approx(first, abs=1e-9)


def simulated(task, policy, n_envs=3000, seed=0):
    """Mean reward of an episode, and its standard error."""
    from marl_td.tasks import VectorEnv

    env = VectorEnv(task, n_envs, seed=seed)
    td, total = env.reset(), 0.0
    for _ in range(task.params.max_steps):
        td = env.step(policy(td))["next"]
        total = total + td["agents", "reward"].mean((1, 2))
    return total.mean().item(), total.std().item() / n_envs**0.5


@pytest.mark.parametrize(
    ("continuous", "params"),
    [
        (True, {}),
        (True, {"size": 2, "adverse": 0.3, "inventory_penalty": 5.0, "price_noise": True}),
        (False, {"size": 2, "inventory_penalty": 5.0, "adverse": 0.3}),
    ],
)
def test_the_programme_s_value_is_what_its_policy_earns(continuous, params):
    p = {**CARD, "volatility": 0.5, "max_steps": 60, **params}
    task = make_task("market_making", continuous=continuous, **p)
    plan = optimum.solve(task.params, continuous)
    policy = Quoting(task, from_table(task.params, plan.depth, task.device), plan.size)
    mean, error = simulated(task, policy)
    best = plan.value[0, 6].item()
    assert abs(mean - best) < 3.5 * error and error < 0.01 * best
    worse, _ = simulated(task, task.baselines()["fixed"])
    assert worse < mean


def test_in_short_steps_it_becomes_the_matrix_exponential():
    limit = optimum.continuous(params_of(), torch.tensor(0.1))[6].item()
    gaps = []
    for n in (20, 40, 80):  # a tenth of a day
        gaps.append(limit - start_value(max_steps=n, dt=0.1 / n, size=6))
    assert 0.0 < gaps[2] < gaps[1] < gaps[0]
    assert gaps[0] / gaps[1] == pytest.approx(2.0, abs=0.15)  # an error of first order
    assert abs(2 * gaps[2] - gaps[1]) < 0.01 * limit * 0.1  # extrapolated, nothing is left


def test_depths_become_those_of_continuous_time():
    p = params_of(max_steps=200, dt=0.0005, size=2)
    plan, limit = optimum.solve(p, True), optimum.continuous_depths(p)
    inside = limit[0].isfinite()
    assert (plan.depth[0] - limit[0])[inside].abs().max() < 0.02
    middle = limit[0, 6]
    assert (middle[0] - middle[1]).abs() < 1e-9 and limit[0, 0, 1].isinf()


def test_the_matrix_exponential_solves_the_bellman_equation():
    p = params_of(inventory_penalty=2.0)
    h, k = 1e-5, p.decay
    value, after = optimum.continuous(p, torch.tensor([0.5, 0.5 - h], dtype=torch.float64))
    rate = (after - value) / h  # dv/dt
    q = optimum.inventories(p)
    gain = torch.zeros_like(value)
    for shift in (-1, 1):  # max over d of A exp(-k d) (d + dv) = A / (e k) exp(k dv)
        there = (torch.arange(13) + shift).clamp(0, 12)
        jump = p.order_rate / (math.e * k) * (k * (value[there] - value)).exp()
        gain += torch.where(there == torch.arange(13), 0.0, jump)
    torch.testing.assert_close(rate, p.inventory_penalty * q**2 - gain, rtol=1e-3, atol=1e-3)


def test_the_bound_without_adverse_selection_is_linear_algebra():
    """Penalties at the steps' ends between matrix exponentials: the same relaxation, another way."""
    p = params_of(n_agents=2, inventory_penalty=3.0, max_steps=40, closing_penalty=0.1)
    q = torch.arange(-12, 13, dtype=torch.float64)
    beside = torch.full((24,), p.order_rate / math.e, dtype=torch.float64)
    flow = torch.matrix_exp((torch.diag(beside, 1) + torch.diag(beside, -1)) * p.dt)
    weight = (-p.decay * p.closing_penalty / 2 * q**2).exp()
    for _ in range(40):
        weight = flow @ ((-p.decay * p.inventory_penalty / 2 * p.dt * q**2).exp() * weight)
    exact = weight[12].log().item() / p.decay
    assert optimum.joint_bound(p) == pytest.approx(exact, rel=2e-4)


@pytest.mark.parametrize("adverse", [0.0, 0.3])
@pytest.mark.parametrize("size", [1, 4])
def test_the_bound_is_above_the_best_lone_maker(adverse, size):
    changes = {"adverse": adverse, "size": size, "max_steps": 50, "inventory_penalty": 1.0}
    bound, best = optimum.joint_bound(params_of(**changes)), start_value(**changes)
    assert best < bound < 1.2 * best


def test_dead_makers_earn_nothing_and_lower_the_bound():
    full = make_task("market_making", adverse=0.0).optimum()
    fewer = make_task("market_making", adverse=0.0, dead_agents=0.4).optimum()
    three = make_task("market_making", adverse=0.0, n_agents=3).optimum()
    assert (full.kind, fewer.kind) == ("upper", "upper")
    assert fewer.value == pytest.approx(three.value * 3 / 5, rel=1e-9) and fewer.value < full.value


def test_what_is_exact_and_what_is_a_bound():
    assert make_task("market_making", **CARD, max_steps=5).optimum().kind == "exact"
    assert make_task("market_making", **CARD, max_steps=5, lifelong=True).optimum().kind == "upper"
    assert make_task("market_making", **CARD, max_steps=5, continuous=False).optimum().value < (
        make_task("market_making", **CARD, max_steps=5).optimum().value
    )


def test_avellaneda_and_stoikov_by_hand():
    p = params_of(volatility=2.0)
    rule = avellaneda_stoikov(p, 0.1)
    depth = rule(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.5]))
    half = math.log(1 + 0.1 / 1.5) / 0.1
    assert depth[0].tolist() == pytest.approx([half + 0.2] * 2)
    assert depth[1].tolist() == pytest.approx([half + 0.1 + 0.2, half + 0.1 - 0.2])


def test_rules_keep_their_depths_in_an_environment():
    env = make_env("market_making", 4)
    td = env.reset()
    for name, policy in env.task.baselines().items():
        action = policy(td.clone())["agents", "action"]
        assert env.action_spec["agents", "action"].is_in(action), name
