"""Energy grid: steps by hand, balance, flows beside a linear solve, dispatch conditions, masks, ends."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.energy_grid import dispatch, dynamics, network, sensing
from marl_td.tasks.specs import random_available

SMALL = {"n_agents": 4, "n_loads": 5, "n_buses": 4}


def made(n_envs=3, continuous=True, seed=0, **params):
    task = make_task("energy_grid", continuous=continuous, **{**SMALL, **params})
    generator = torch.Generator().manual_seed(seed)
    return task, task.reset(n_envs, task.draw_reset(n_envs, generator)), generator


def random_action(task, state, generator):
    shape = tuple(state.power.shape)
    if task.continuous:
        return {"agents": 2 * torch.rand((*shape, 1), generator=generator) - 1}
    return {"agents": random_available(task.action_mask(state)["agents"])}


def calm(task, n_envs=1):
    return {"wind": torch.zeros(n_envs), "load": torch.zeros(n_envs, task.params.n_loads)}


# ------------------------------------------------------------------------------------ by hand
@pytest.mark.parametrize("agc", [False, True])
def test_a_step_by_hand(agc):
    task, state, _ = made(1, agc=agc, wind_share=0.0, line_capacity=0.5)
    grid, p = task.grid, task.params
    action = torch.tensor([[[1.0], [-1.0], [0.5], [7.0]]])
    step = task.step(state, {"agents": action}, calm(task))
    share = torch.tensor([1.0, -1.0, 0.5, 1.0])  # 7 is clipped
    low = torch.maximum(grid.least, state.power[0] - grid.ramp)
    high = torch.minimum(grid.most, state.power[0] + grid.ramp)
    power = torch.minimum(torch.maximum(state.power[0] + share * grid.ramp, low), high)
    demand = grid.load.sum() * grid.profile[0]
    gap = (power.sum() - demand).item()
    assert gap > 0
    if agc:
        room = power - low
        power = power - gap * room / room.sum()
        gap = 0.0
    torch.testing.assert_close(step.state.power[0], power)
    unit_cost = (grid.quadratic * power**2 + grid.linear * power).sum().item()
    info = {name: value.item() for name, value in step.info.items()}
    assert info["fuel"] == pytest.approx(0.25 * unit_cost, rel=1e-5)
    assert info["surplus"] == pytest.approx(0.25 * 500 * gap, abs=0.05)
    assert info["unserved"] == pytest.approx(0.0, abs=0.05)
    over = (step.state.flow[0].abs() - task.reference.limit).clamp_min(0).sum().item()
    assert info["overload"] == pytest.approx(0.25 * 100 * over, rel=1e-5) and over > 0
    total = info["fuel"] + info["surplus"] + info["unserved"] + info["overload"]
    assert info["cost"] == pytest.approx(total, rel=1e-5) and info["blackout"] == 0.0
    hertz = gap / (0.1 * task.peak)
    assert step.state.frequency.item() == pytest.approx(hertz, abs=1e-4)
    low_all, high_all = grid.least.double().unsqueeze(0), grid.most.double().unsqueeze(0)
    double = grid.to(task.device, torch.float64)
    best, _ = dispatch.economic_dispatch(double, demand.double().unsqueeze(0), low_all, high_all)
    cheapest = 0.25 * dispatch.fuel_cost(double, best).item()
    reward = step.reward["agents"][0]
    assert reward.tolist() == pytest.approx([-(total - cheapest) / task.mean_cost] * 4, abs=2e-4)
    assert p.dt * demand.item() == pytest.approx(info["energy"], rel=1e-5)


def test_a_blackout_terminates_and_charges_the_rest_of_the_day():
    task, state, _ = made(1, agc=False, frequency_limit=0.01, wind_share=0.0)
    step = task.step(state, {"agents": -torch.ones(1, 4, 1)}, calm(task))
    assert step.terminated.item() and step.state.frequency.item() < -0.01
    rest = 0.25 * task.peak * task.grid.profile[1:].sum().item()
    assert step.info["blackout"].item() == pytest.approx(1000 * rest, rel=1e-5)
    steady = made(1, wind_share=0.0)[0]
    after = steady.step(state, {"agents": torch.zeros(1, 4, 1)}, calm(task))
    assert not after.terminated.item() and after.info["blackout"].item() == 0.0


def test_a_day_truncates():
    td = make_env("energy_grid", 2, **SMALL, max_steps=3).rollout(7, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [2, 5]
    assert not td["next", "terminated"].any()


def test_what_is_expected_is_the_mean_of_what_comes():
    task, state, generator = made(4000, load_noise=0.1)
    evening = torch.full((4000,), 82)  # the load falls by some 3 % per step
    state = state._replace(wind=torch.full((4000,), 1.0), step=evening)
    expected = sensing.expected(task, state)[0]
    step = task.step(state, {"agents": torch.zeros(4000, 4, 1)}, task.draw_step(4000, generator))
    assert step.state.net_load.sum(-1).mean().item() == pytest.approx(expected[0].item(), rel=0.01)
    assert sensing.outlook(task, state)[0, 3] == pytest.approx(
        ((expected[0] - state.power[0].sum()) / task.grid.ramp.sum()).item(), rel=1e-4
    )


# ------------------------------------------------------------------------------- conservation
@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(3, 8),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 10_000),
)
def test_power_is_balanced(n_agents, n_buses, continuous, agc, dead, seed):
    params = {"n_agents": n_agents, "n_buses": n_buses, "agc": agc, "dead_agents": dead}
    task, state, generator = made(6, continuous, seed, **params, grid_seed=seed)
    grid = task.grid
    for _ in range(4):
        noise = task.draw_step(6, generator)
        step = task.step(state, random_action(task, state, generator), noise)
        new = step.state
        gap = new.frequency * task.params.frequency_drop * task.peak
        made_minus_taken = new.power.sum(-1) - new.net_load.sum(-1)
        torch.testing.assert_close(made_minus_taken, gap, rtol=1e-4, atol=1e-2)
        hours = task.params.dt * (1000.0 * (-gap).clamp_min(0) + 500.0 * gap.clamp_min(0))
        paid = step.info["unserved"] + step.info["surplus"]
        torch.testing.assert_close(paid, hours, rtol=1e-4, atol=1.0)
        # what flows into a bus and what is made there leaves it, but at bus 0, which takes the gap
        injection = new.power @ grid.at_bus - new.net_load
        incidence = torch.zeros(len(grid.ends), n_buses)
        incidence.scatter_(1, grid.ends[:, :1], 1.0).scatter_(1, grid.ends[:, 1:], -1.0)
        out = new.flow @ incidence
        torch.testing.assert_close(out[:, 1:], injection[:, 1:], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(out[:, 0], injection[:, 0] - gap, rtol=1e-4, atol=2e-2)
        reach = dynamics.window(grid, state.power, state.alive)
        assert (new.power >= reach.low - 1e-3).all() and (new.power <= reach.high + 1e-3).all()
        assert (new.power[~new.alive] == 0).all()
        if agc:  # a gap is left only where everybody is at a bound
            stuck = torch.where(gap.unsqueeze(-1) < 0, reach.high, reach.low)
            left = (new.power - stuck).abs().sum(-1)
            assert ((gap.abs() < 0.05) | (left < 0.05)).all()
        assert step.reward["agents"].isfinite().all() and (step.info["cost"] > 0).all()
        assert (
            task.observe(new)["agents"].isfinite().all() and task.team_state(new).isfinite().all()
        )
        state = new


@pytest.mark.parametrize(("n_buses", "seed"), [(3, 0), (6, 1), (40, 2)])
def test_transfer_factors_are_flows_of_a_linear_solve(n_buses, seed):
    grid = network.draw_grid(
        make_task("energy_grid", n_buses=n_buses, grid_seed=seed, n_loads=30).params
    )
    rng = np.random.default_rng(seed)
    injection = rng.normal(size=n_buses)
    injection[0] -= injection.sum()
    nodal = np.zeros((n_buses, n_buses))
    for (a, b), y in zip(grid.ends.tolist(), grid.susceptance.tolist(), strict=True):
        nodal[[a, b], [a, b]] += y
        nodal[a, b] -= y
        nodal[b, a] -= y
    angle = np.linalg.lstsq(nodal, injection, rcond=None)[0]
    expected = [
        y * (angle[a] - angle[b])
        for (a, b), y in zip(grid.ends.tolist(), grid.susceptance.tolist(), strict=True)
    ]
    np.testing.assert_allclose(grid.ptdf.numpy() @ injection, expected, atol=1e-10)


# ------------------------------------------------------------------------------------ dispatch
def test_dispatch_has_one_marginal_cost():
    params = make_task("energy_grid", n_agents=30, n_loads=30).params
    grid = network.draw_grid(params)
    rng = torch.Generator().manual_seed(0)
    shape = (50, 30)
    low = grid.least + 0.3 * (grid.most - grid.least) * torch.rand(shape, generator=rng)
    high = low + (grid.most - low) * torch.rand(shape, generator=rng)
    share = torch.rand(50, generator=rng)
    demand = low.sum(-1) + share * (high - low).sum(-1)
    power, price = dispatch.economic_dispatch(grid, demand, low, high)
    torch.testing.assert_close(power.sum(-1), demand, rtol=1e-9, atol=1e-7)
    cost, price = dispatch.marginal_cost(grid, power), price.unsqueeze(-1).expand(shape)
    inside = (power > low + 1e-6) & (power < high - 1e-6)
    assert inside.any() and (cost - price)[inside].abs().max() < 1e-6
    assert (cost >= price - 1e-6)[(power - low).abs() < 1e-9].all()
    assert (cost <= price + 1e-6)[(power - high).abs() < 1e-9].all()
    beyond, _ = dispatch.economic_dispatch(grid, 2 * high.sum(-1), low, high)
    torch.testing.assert_close(beyond, high)


def test_merit_order_fills_the_cheapest_first():
    grid = network.draw_grid(make_task("energy_grid").params)
    demand = torch.linspace(float(grid.least.sum()), float(grid.most.sum()), 9)
    power = dispatch.merit_order(grid, demand.double())
    torch.testing.assert_close(power.sum(-1), demand.double())
    order = (grid.quadratic * grid.most + grid.linear).argsort()
    share = ((power - grid.least) / (grid.most - grid.least))[:, order]
    assert (share.diff(dim=-1) <= 1e-9).all()
    partly = ((share > 1e-9) & (share < 1 - 1e-9)).sum(-1)
    assert (partly <= 1).all() and (share[4, 0] == 1.0)


# ------------------------------------------------------------------------------------ contract
@pytest.mark.parametrize(
    ("continuous", "params"), [(True, {}), (False, {"dead_agents": 0.3}), (True, {"agc": False})]
)
def test_specs_hold(continuous, params):
    check_env_specs(make_env("energy_grid", 3, continuous=continuous, **SMALL, **params))


def test_the_mask_follows_the_limits():
    task, state, _ = made(1, continuous=False)
    grid = task.grid
    power = state.power.clone()
    power[0, 0], power[0, 1] = grid.most[0], grid.least[1]
    power[0, 2] = 0.5 * grid.most[2]
    power[0, 3] = 0.0
    state = state._replace(power=power, alive=torch.tensor([[True, True, True, False]]))
    mask = task.action_mask(state)["agents"][0].tolist()
    assert mask[0] == [True, True, True, False, False]
    assert mask[1] == [False, False, True, True, True]
    assert mask[2] == [True] * 5 and mask[3] == [False, False, True, False, False]


def test_a_large_grid_runs():
    env = make_env("energy_grid", 4, n_agents=500, n_loads=1000, n_buses=100)
    td = env.reset()
    policy = env.task.baselines()["economic_dispatch_ramp"]
    for _ in range(5):
        td = env.step(policy(td))["next"]
    assert td["agents", "observation"].shape == (4, 500, 17)
    gap = env.state.power.sum(-1) - env.state.net_load.sum(-1)
    assert (gap.abs() < 1e-3 * env.task.peak).all() and not td["terminated"].any()


@pytest.mark.parametrize("dead", [0.0, 0.3])
def test_a_series_and_a_picture(dead):
    env = make_env("energy_grid", 2, **SMALL, dead_agents=dead)
    td = env.reset()
    blank = env.render()
    for _ in range(30):
        td = env.step(env.rand_action(td))["next"]
    series = env.task.episode_series(env.state)
    assert [value.shape for value in series.values()] == [(2, 4), (2, 1)]
    shown = env.render(index=1)
    assert shown.dtype == np.uint8 and shown.shape == (420, 840, 3)
    assert not np.array_equal(shown, blank) and not np.array_equal(shown, env.render(index=0))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 1}, "n_agents must be at least 2; got 1"),
        ({"n_buses": 2}, "n_buses must be at least 3; got 2"),
        ({"ramp_scale": 0.0}, "ramp_scale must be positive; got 0"),
        ({"wind_share": 0.5}, r"wind_share must be in \[0, 0.4\]; got 0.5"),
        ({"wind_memory": 1.0}, r"wind_memory must be in \[0, 1\); got 1"),
        ({"capacity_margin": 0.9}, "capacity_margin must be at least 1, or the peak cannot be"),
        ({"overload_cost": -1.0}, "overload_cost must be at least 0; got -1"),
        ({"dead_agents": -0.1}, r"dead_agents is a share of the agents and must be in \[0, 1\)"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("energy_grid", **params)


# -------------------------------------------------------------------------------------- judging
@pytest.mark.parametrize("continuous", [True, False])
def test_policies_by_rule_come_in_their_known_order(continuous):
    table = baseline_table("t", make_task("energy_grid", continuous=continuous), 32, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert table.optimum.kind == "lower"
    assert table.optimum.value < found["economic_dispatch_ramp"] < found["agc_only"]
    assert found["economic_dispatch_ramp"] < found["economic_dispatch"] < found["merit_order"]
    assert math.isfinite(found["random"])
