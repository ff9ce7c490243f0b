"""Market making: matching beside a plain loop, steps by hand, conservation, masks, ends."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.market_making import actions, book
from marl_td.tasks.specs import random_available

INF = math.inf


def made(n_envs=3, continuous=True, seed=0, **params):
    task = make_task("market_making", continuous=continuous, **params)
    generator = torch.Generator().manual_seed(seed)
    return task, task.reset(n_envs, task.draw_reset(n_envs, generator)), generator


def random_action(task, state, generator):
    shape = tuple(state.inventory.shape)
    if task.continuous:
        draw = torch.rand((*shape, 2), generator=generator)
        return {"agents": draw * task.params.max_depth}
    return {"agents": random_available(task.action_mask(state)["agents"])}


def advance(task, state, generator, n_steps=1):
    n_envs = state.price.shape[0]
    for _ in range(n_steps):
        noise = task.draw_step(n_envs, generator)
        state = task.step(state, random_action(task, state, generator), noise).state
    return state


# ------------------------------------------------------------------------------------ by hand
def loop_match(depth, units, priority, reach):
    """The same rule, order by order."""
    left, sold = list(units), [0.0] * len(units)
    for order in reach:
        open_ = [i for i in range(len(left)) if left[i] > 0]
        best = min(open_, key=lambda i: (depth[i], priority[i]), default=None)
        if best is not None and depth[best] <= order:
            left[best] -= 1
            sold[best] += 1
    return sold


def test_orders_are_matched_as_one_after_the_other():
    generator = torch.Generator().manual_seed(0)
    depth = torch.randint(0, 4, (400, 4), generator=generator).float() / 2
    depth[torch.rand(400, 4, generator=generator) < 0.1] = INF
    units = torch.randint(0, 3, (400, 4), generator=generator).float()
    units = torch.where(depth.isinf(), 0.0, units)
    priority = torch.rand((400, 4), generator=generator)
    reach = torch.rand((400, 6), generator=generator) * 3
    reach[torch.rand(400, 6, generator=generator) < 0.3] = -INF
    found = book.match(depth, units, priority, reach)
    rows = (depth.tolist(), units.tolist(), priority.tolist(), reach.tolist())
    expected = [loop_match(*row) for row in zip(*rows, strict=True)]
    assert found.tolist() == expected and found.sum() > 400


def noise_for(task, sells, buys, price=0.0):
    """Orders with the given reaches in $, nothing random."""
    n, most, k = task.params.n_agents, task.params.max_orders, task.params.decay
    cdf = torch.cat([torch.zeros(1), task._cdf])
    reach = torch.zeros(1, 2, most)
    for side, orders in enumerate((sells, buys)):
        reach[0, side, : len(orders)] = 1 - torch.exp(-k * torch.tensor(orders))
    return {
        "orders": torch.stack([cdf[len(sells)], cdf[len(buys)]]).unsqueeze(0),
        "reach": reach,
        "priority": torch.arange(float(n)).expand(1, 2, n),
        "price": torch.tensor([price]),
    }


def test_a_step_by_hand():
    params = {"n_agents": 2, "inventory_penalty": 2.0, "adverse": 0.1, "reward": "own"}
    params["price_noise"] = True
    task, state, _ = made(1, **params)
    action = torch.tensor([[[0.5, 1.0], [0.75, 0.5]]])
    noise = noise_for(task, sells=[0.6, 0.7], buys=[2.0, 0.9, 1.5], price=1.0)
    step = task.step(state, {"agents": action}, noise)
    # sells: 0.6 hits the bid at 0.5, 0.7 falls short of 0.75; buys: 2.0 takes 0.5, 0.9 < 1.0, 1.5 takes 1.0
    assert step.state.filled.tolist() == [[[1.0, 1.0], [0.0, 1.0]]]
    assert step.state.inventory.tolist() == [[0.0, -1.0]]
    change = 2.0 * math.sqrt(0.005) + 0.1 * (3 - 2)
    assert step.state.price.item() == pytest.approx(100 + change, rel=1e-6)
    won = [1.5, 0.5 - change]
    torch.testing.assert_close(step.state.wealth, torch.tensor([won]))
    reward = torch.tensor([[won[0], won[1] - 2.0 * 0.005]])
    torch.testing.assert_close(step.reward["agents"], reward)
    fair, _, _ = made(1, **{**params, "price_noise": False})
    state_now = state._replace(inventory=torch.tensor([[2.0, -1.0]]))
    shown = fair.step(state_now, {"agents": action}, noise)
    torch.testing.assert_close(
        shown.reward["agents"], torch.tensor([[1.5 - 0.04, 0.5 - 0.1 - 0.04]])
    )
    totals = {name: value.item() for name, value in step.info.items()}
    assert totals["fills"] == 3.0 and totals["orders"] == 5.0
    assert totals["earned"] == pytest.approx(2.0) and totals["spread"] == pytest.approx(1.0)
    assert totals["penalty"] == pytest.approx(0.01)
    team, _, _ = made(1, **{**params, "reward": "team"})
    shared = team.step(state, {"agents": action}, noise).reward["agents"]
    torch.testing.assert_close(shared, reward.mean(-1, keepdim=True).expand(1, 2))
    seen = task.observe(step.state)["agents"][0, 1].tolist()
    assert seen[:2] == pytest.approx([-1 / 6, 199 / 200]) and seen[5:] == [0.0, 1.0]
    assert seen[3:5] == pytest.approx([0.75, 0.75]) and 0.0 < seen[2] < 0.2


def test_the_inventory_limit_closes_a_side():
    task, state, _ = made(1, n_agents=1, size=3, max_inventory=2)
    full = state._replace(inventory=torch.tensor([[1.0]]))
    noise = noise_for(task, sells=[2.0] * 3, buys=[])
    step = task.step(full, {"agents": torch.ones(1, 1, 2)}, noise)
    assert step.state.inventory.item() == 2.0 and step.info["fills"].item() == 1.0
    again = task.step(step.state, {"agents": torch.ones(1, 1, 2)}, noise)
    assert again.info["fills"].item() == 0.0 and again.state.depth[0, 0].tolist() == [INF, 1.0]


def test_the_close_charges_the_inventory_and_terminates():
    task, state, _ = made(1, n_agents=1, max_steps=1, closing_penalty=3.0, inventory_penalty=0.0)
    state = state._replace(inventory=torch.tensor([[2.0]]))
    step = task.step(state, {"agents": torch.ones(1, 1, 2)}, noise_for(task, [], []))
    assert step.terminated.item() and step.reward["agents"].item() == -12.0
    task, _, _ = made(1, n_agents=1, max_steps=1, inventory_penalty=0.0, lifelong=True)
    step = task.step(state, {"agents": torch.ones(1, 1, 2)}, noise_for(task, [], []))
    assert not step.terminated.item() and step.reward["agents"].item() == 0.0


@pytest.mark.parametrize(("lifelong", "ends"), [(False, "terminated"), (True, "truncated")])
def test_which_end_an_episode_has(lifelong, ends):
    env = make_env("market_making", 2, max_steps=4, lifelong=lifelong)
    td = env.rollout(9, break_when_any_done=False)["next"]
    other = {"terminated": "truncated", "truncated": "terminated"}[ends]
    assert td[ends][0, :, 0].nonzero().flatten().tolist() == [3, 7] and not td[other].any()
    left = td["agents", "observation"][0, :3, 0, 1]
    assert left.tolist() == pytest.approx([1.0] * 3 if lifelong else [0.75, 0.5, 0.25])


# ------------------------------------------------------------------------------- conservation
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.integers(0, 10_000),
)
def test_units_and_money_are_conserved(n_agents, size, most, continuous, dead, seed):
    params = {"n_agents": n_agents, "size": size, "max_inventory": most, "dead_agents": dead}
    params |= {"price_noise": seed % 2 == 0, "order_rate": 400.0}
    task, state, generator = made(8, continuous, seed, **params)
    for _ in range(6):
        noise = task.draw_step(8, generator)
        step = task.step(state, random_action(task, state, generator), noise)
        new, old = step.state, state
        bought, sold = new.filled.unbind(-1)
        assert torch.equal(new.inventory, old.inventory + bought - sold)
        assert (new.inventory.abs() <= most).all() and (new.filled <= size).all()
        assert (new.filled.sum((1, 2)) <= step.info["orders"]).all()
        paid = torch.where(new.filled > 0, new.filled * new.depth, 0.0).sum(-1)
        cash = paid + (sold - bought) * old.price.unsqueeze(-1)
        expected = cash + new.inventory * new.price.unsqueeze(-1)
        expected = expected - old.inventory * old.price.unsqueeze(-1)
        torch.testing.assert_close(new.wealth - old.wealth, expected, rtol=1e-4, atol=2e-3)
        assert step.reward["agents"].isfinite().all()
        if task.params.price_noise:
            total = step.info["wealth"] - step.info["penalty"]
            torch.testing.assert_close(step.reward["agents"].sum(-1), total, rtol=1e-4, atol=1e-4)
        dead_ones = ~new.alive
        assert dead_ones.sum(-1).eq(min(round(dead * n_agents), n_agents - 1)).all()
        assert (new.filled[dead_ones] == 0).all()
        assert (
            task.observe(new)["agents"].isfinite().all() and task.team_state(new).isfinite().all()
        )
        state = new


@pytest.mark.parametrize("size", [1, 2])
def test_the_mask_leaves_quotes_with_room(size):
    task, state, _ = made(1, continuous=False, n_agents=4, size=size)
    state = state._replace(
        inventory=torch.tensor([[6.0, -6.0, 0.0, 0.0]]),
        alive=torch.tensor([[True, True, True, False]]),
    )
    mask = task.action_mask(state)["agents"][0]
    action = torch.arange(mask.shape[-1])
    bid, ask = action // size // 6, action // size % 6
    proper = (bid < 5) | (ask < 5) | (action % size == 0)
    for agent, expected in enumerate([(bid == 5), (ask == 5), bid >= 0, (bid == 5) & (ask == 5)]):
        assert torch.equal(mask[agent], expected & proper)
    depth, units = actions.quotes(task, state, torch.full((1, 4), (1 * 6 + 4) * size + size - 1))
    assert depth[0, 2].tolist() == pytest.approx([0.8, 2.0]) and units[0, 2].tolist() == [size] * 2
    assert depth[0, 0].tolist() == [INF, 2.0] and depth[0, 3].tolist() == [INF, INF]


# ------------------------------------------------------------------------------------ contract
@pytest.mark.parametrize(
    ("continuous", "params"),
    [
        (True, {}),
        (False, {"size": 2, "dead_agents": 0.4}),
        (True, {"n_agents": 1, "lifelong": True}),
    ],
)
def test_specs_hold(continuous, params):
    check_env_specs(make_env("market_making", 3, continuous=continuous, **params))


def test_makers_are_alike():
    task, state, generator = made(8, reward="own")
    state = advance(task, state, generator, 10)
    action, noise = random_action(task, state, generator)["agents"], task.draw_step(8, generator)
    order = torch.tensor([3, 0, 4, 1, 2])
    each = ("inventory", "wealth", "depth", "filled", "alive")
    other = state._replace(**{name: getattr(state, name)[:, order] for name in each})
    first = task.step(state, {"agents": action}, noise)
    noise["priority"] = noise["priority"][:, :, order]
    second = task.step(other, {"agents": action[:, order]}, noise)
    assert torch.equal(first.state.filled[:, order], second.state.filled)
    torch.testing.assert_close(first.reward["agents"][:, order], second.reward["agents"])


def test_a_series_and_a_picture():
    env = make_env("market_making", 2)
    td = env.reset()
    blank = env.render()
    for _ in range(30):
        td = env.step(env.rand_action(td))["next"]
    series = env.task.episode_series(env.state)
    assert [value.shape for value in series.values()] == [(2, 5), (2, 2)]
    shown = env.render(index=1)
    assert shown.dtype == np.uint8 and shown.ndim == 3
    assert not np.array_equal(shown, blank) and not np.array_equal(shown, env.render(index=0))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"max_inventory": 0}, "max_inventory must be at least 1; got 0"),
        ({"size": 0}, "size must be at least 1; got 0"),
        ({"dt": 0.0}, "dt must be positive; got 0"),
        ({"order_rate": -1.0}, "order_rate must be positive; got -1"),
        ({"adverse": -0.1}, "adverse must be at least 0; got -0.1"),
        ({"reward": "both"}, "reward must be one of team, own; got 'both'"),
        ({"dt": 1.0}, "140 orders per step and side are too many"),
        ({"dead_agents": 1.0}, r"dead_agents is a share of the agents and must be in \[0, 1\)"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("market_making", **params)


# -------------------------------------------------------------------------------------- judging
@pytest.mark.parametrize("continuous", [True, False])
def test_policies_by_rule_come_in_their_known_order(continuous):
    params = {"n_agents": 2, "inventory_penalty": 5.0, "adverse": 0.0, "max_steps": 60}
    task = make_task("market_making", continuous=continuous, **params)
    table = baseline_table("t", task, 64, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["reservation"] < found["lone_optimum"] < table.optimum.value
    assert (
        found["fixed"] - 0.01 < found["avellaneda_stoikov_0.01"] < found["avellaneda_stoikov_0.1"]
    )
    assert found["random"] < found["fixed"]
