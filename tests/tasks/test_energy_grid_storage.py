"""Batteries in the energy grid: charges by hand, energy conserved, the levelling rule, the bound."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.energy_grid import bound, dynamics, network, storage
from marl_td.tasks.energy_grid.pooled import pooled
from marl_td.tasks.energy_grid.reference import mean_net_load
from marl_td.tasks.specs import random_available

SMALL = {"n_agents": 4, "n_loads": 5, "n_buses": 4}


def made(n_envs=1, continuous=True, seed=0, **params):
    task = make_task("energy_grid", continuous=continuous, **{**SMALL, "n_storage": 2, **params})
    generator = torch.Generator().manual_seed(seed)
    return task, task.reset(n_envs, task.draw_reset(n_envs, generator)), generator


def random_action(task, state, generator):
    if not task.continuous:
        return {name: random_available(mask) for name, mask in task.action_mask(state).items()}
    shapes = {"agents": state.power.shape, "storage": state.charge.shape}
    return {k: 2 * torch.rand((*v, 1), generator=generator) - 1 for k, v in shapes.items()}


def stepped(task, state, share):
    calm = {"wind": torch.zeros(1), "load": torch.zeros(1, 5)}
    action = {"agents": torch.zeros(1, 4, 1), "storage": torch.tensor(share).view(1, -1, 1)}
    return task.step(state, action, calm)


# ------------------------------------------------------------------------------------ by hand
def test_charges_by_hand():
    """Root of the efficiency: 0.9 each way. 50 MW, 20 MWh, quarters of an hour."""
    params = {"storage_efficiency": 0.81, "storage_power": 50.0, "storage_energy": 20.0}
    task, state, _ = made(agc=False, **params)
    for share, fed, charge in [
        ((-1.0, -0.5), (-50.0, -25.0), (11.25, 5.625)),  # a quarter of 50 MW, times 0.9
        ((-3.0, 0.0), (-8.75 / 0.225, 0.0), (20.0, 5.625)),  # cut by what is free
        ((1.0, 1.0), (50.0, 20.25), (20.0 - 12.5 / 0.9, 0.0)),  # 5.625 x 0.9 in a quarter
        ((0.0, 1.0), (0.0, 0.0), (20.0 - 12.5 / 0.9, 0.0)),  # empty
    ]:
        before, step = state, stepped(task, state, share)
        state = step.state
        assert state.fed[0].tolist() == pytest.approx(fed, abs=1e-4)
        assert state.charge[0].tolist() == pytest.approx(charge, abs=1e-4)
        gap = state.power.sum() + sum(fed) - state.net_load.sum()
        hertz = gap / (0.1 * task.peak)
        assert state.frequency.item() == pytest.approx(hertz.item(), abs=1e-4)
        paid = 0.25 * (1000 * max(-gap.item(), 0) + 500 * max(gap.item(), 0))
        found = (step.info["unserved"] + step.info["surplus"]).item()
        assert found == pytest.approx(paid, rel=1e-4)
        torch.testing.assert_close(step.reward["storage"], step.reward["agents"][:, :2])
        assert task.agent_info(before)["charge"]["storage"].shape == (1, 2, 1)


def test_what_batteries_see():
    task, state, _ = made(storage_efficiency=0.81, storage_power=50.0, storage_energy=20.0)
    state = state._replace(charge=torch.tensor([[15.0, 2.0]]), fed=torch.tensor([[30.0, -10.0]]))
    seen = task.observe(state)["storage"][0]
    assert seen.shape == (2, 14)
    assert seen[:, 0].tolist() == pytest.approx([0.75, 0.1])
    assert seen[:, 1].tolist() == pytest.approx([1.0, 2.0 * 0.9 / 0.25 / 50])
    assert seen[:, 2].tolist() == pytest.approx([5.0 / 0.225 / 50, 1.0])
    idle = task.observe(state._replace(fed=torch.zeros(1, 2)))["agents"]
    made_more = (idle - task.observe(state)["agents"])[0, :, 11:14] * task.grid.ramp.sum()
    torch.testing.assert_close(made_more, torch.full((4, 3), 20.0), rtol=1e-3, atol=1e-3)
    whole = task.team_state(state)[0]
    assert whole.shape == (task.d_state,)
    assert whole[-4:].tolist() == pytest.approx([0.75, 0.1, 0.6, -0.2])


def test_the_mask_follows_the_charge():
    task, state, _ = made(continuous=False, storage_energy=100.0)
    state = state._replace(charge=torch.tensor([[0.0, 100.0]]))
    mask = task.action_mask(state)["storage"][0].tolist()
    assert mask == [[True, True, True, False, False], [False, False, True, True, True]]
    assert task.groups["storage"].action.names[4] == "feed in +1 largest power"


# ------------------------------------------------------------------------------- conservation
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.5, 0.9, 1.0]),
    st.sampled_from([5.0, 200.0]),
    st.integers(0, 10_000),
)
def test_energy_is_conserved(n_storage, continuous, agc, efficiency, energy, seed):
    params = {"n_storage": n_storage, "storage_efficiency": efficiency, "storage_energy": energy}
    task, state, generator = made(6, continuous, seed, agc=agc, **params, grid_seed=seed)
    grid, one_way, dt = task.grid, efficiency**0.5, task.params.dt
    taken = torch.zeros(6, n_storage)
    given = torch.zeros(6, n_storage)
    for _ in range(6):
        noise = task.draw_step(6, generator)
        new = task.step(state, random_action(task, state, generator), noise).state
        # what is stored is what was taken and not given up, and lies between empty and full
        taken, given = taken - dt * new.fed.clamp_max(0), given + dt * new.fed.clamp_min(0)
        torch.testing.assert_close(
            new.charge, one_way * taken - given / one_way, rtol=1e-4, atol=1e-2
        )
        assert (new.charge >= 0).all() and (new.charge <= energy).all()
        assert (new.fed.abs() <= task.params.storage_power + 1e-4).all()
        # what generators make and batteries feed in is taken, but for the gap; flows carry the difference
        gap = new.frequency * task.params.frequency_drop * task.peak
        made_minus_taken = new.power.sum(-1) + new.fed.sum(-1) - new.net_load.sum(-1)
        torch.testing.assert_close(made_minus_taken, gap, rtol=1e-4, atol=2e-2)
        injection = new.power @ grid.at_bus + new.fed @ grid.storage_bus - new.net_load
        incidence = torch.zeros(len(grid.ends), task.params.n_buses)
        incidence.scatter_(1, grid.ends[:, :1], 1.0).scatter_(1, grid.ends[:, 1:], -1.0)
        out = new.flow @ incidence
        torch.testing.assert_close(out[:, 1:], injection[:, 1:], rtol=1e-4, atol=2e-2)
        if agc:  # a gap is left only where generators and batteries are all at their bounds
            reach, room = (
                dynamics.window(grid, state.power, state.alive),
                storage.window(task.params, state.charge),
            )
            up = (gap < 0).unsqueeze(-1)
            left = (new.power - torch.where(up, reach.high, reach.low)).abs().sum(-1)
            left = left + (new.fed - torch.where(up, room.high, room.low)).abs().sum(-1)
            assert ((gap.abs() < 0.05) | (left < 0.05)).all()
        state = new
    assert (given <= efficiency * taken + 1e-2).all()


def test_without_batteries_nothing_changes():
    task, state, generator = made(5, agc=False)
    plain, other, _ = made(5, agc=False, n_storage=0)
    assert list(plain.groups) == ["agents"] and plain.d_state == task.d_state - 4
    assert other.charge.shape == (5, 0)
    for _ in range(5):
        move = 2 * torch.rand((5, 4, 1), generator=generator) - 1
        noise = task.draw_step(5, generator)
        step = task.step(state, {"agents": move, "storage": torch.zeros(5, 2, 1)}, noise)
        alone = plain.step(other, {"agents": move}, noise)
        state, other = step.state, alone.state
        for name, value in other._asdict().items():
            if name not in ("fed", "charge"):
                assert torch.equal(value, getattr(state, name)), name
        assert torch.equal(step.reward["agents"], alone.reward["agents"])
        assert torch.equal(plain.observe(other)["agents"], task.observe(state)["agents"])
        assert torch.equal(plain.team_state(other), task.team_state(state)[:, :-4])


# -------------------------------------------------------------------------------- the rule
def test_levels_by_hand():
    """Four quarters at 100 MW and four at 200 MW; 36 MWh lose a tenth on each way."""
    demand = torch.tensor([100.0] * 4 + [200.0] * 4, dtype=torch.float64)
    price = demand / 10
    params = made(n_storage=2, storage_energy=18.0, storage_efficiency=0.81)[0].params
    low, high = storage.levels(params, demand, price)
    assert high == pytest.approx(200 - 36 * 0.9) and low == pytest.approx(100 + 36 / 0.9)
    cheap = storage.levels(params, demand, 10 + demand / 1000)
    assert cheap == pytest.approx((100.0, 200.0))  # losses cost more than the prices' difference
    large = made(n_storage=2, storage_energy=900.0, storage_efficiency=1.0)[0].params
    assert storage.levels(large, demand, price) == pytest.approx((150.0, 150.0), abs=1.0)


def test_batteries_level_as_far_as_two_hours_of_it_go():
    params = made(storage_efficiency=1.0, storage_power=50.0, storage_energy=200.0)[0].params
    demand = torch.tensor([150.0, 340.0, 200.0, 500.0])
    charge = torch.tensor([[100.0, 20.0], [100.0, 20.0], [100.0, 20.0], [200.0, 0.0]])
    share = storage.level_load(params, (180.0, 300.0), demand, charge)
    expected = [[-0.3, -0.3], [0.4, 0.2], [0.0, 0.0], [1.0, 0.0]]
    assert share.tolist() == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("continuous", [True, False])
def test_rules_with_batteries_stay_above_the_bound(continuous):
    task = make_task("energy_grid", continuous=continuous, n_storage=3)
    table = baseline_table("t", task, 32, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert table.optimum.kind == "lower" and table.optimum.value < min(found.values())
    assert found["economic_dispatch_ramp"] < found["merit_order"] < found["agc_only"]
    assert found["economic_dispatch_ramp_idle_storage"] < found["agc_only"]


# ------------------------------------------------------------------------------- the programme
def by_search(params, grid, net):
    """Least cost of a low and a high step over what one battery takes in the first, by trying all."""
    eta, costs = params.storage_efficiency, []
    for taken in np.linspace(0.0, params.storage_power, 501):
        moved = net.copy()
        moved[0, 0] += taken
        moved[1, 0] -= eta * taken
        costs.append(bound.unconstrained(params, grid, moved))
    return min(costs), costs[0]


@pytest.mark.parametrize("efficiency", [0.3, 0.8, 1.0])
def test_the_programmes_gain_is_that_of_a_search(efficiency):
    """A night and an evening quarter of an hour, without ramps and lines."""
    params = {"ramp_scale": 50.0, "line_capacity": 100.0, "storage_efficiency": efficiency}
    params = made(n_storage=1, storage_energy=1000.0, **params)[0].params
    grid = network.draw_grid(params)
    day = mean_net_load(grid).numpy()
    total = day.sum(1)
    net = np.stack([day[total.argmin()], day[total.argmax()]])
    best, without = by_search(params, grid, net)
    gains = best < without - 1.0
    assert gains == (efficiency > 0.5)  # at 0.3 the losses cost more than the evening is dearer
    for find in (bound.lower_bound, pooled):
        found = find(params, grid, net)
        assert 0.995 * best < found <= best + 1e-6
    coarse = bound.lower_bound(params, grid, net)
    small = made(n_storage=1, storage_energy=1e-9, ramp_scale=50.0, line_capacity=100.0)[0].params
    gain = bound.lower_bound(small, grid, net) - coarse
    assert gain == pytest.approx(without - best, rel=0.1, abs=1.0)


def test_batteries_gain_most_where_ramps_and_lines_bind():
    costs = {}
    for ramp, lines in ((50.0, 100.0), (0.3, 0.6)):
        for n in (0, 2):
            task = made(n_storage=n, ramp_scale=ramp, line_capacity=lines, storage_power=20.0)[0]
            costs[ramp, n] = task.optimum().value
    assert costs[0.3, 2] < costs[0.3, 0] and costs[50.0, 2] < costs[50.0, 0]
    assert costs[0.3, 0] - costs[0.3, 2] > costs[50.0, 0] - costs[50.0, 2]


def test_a_large_grid_has_the_pooled_bound():
    params = {"n_agents": 61, "n_loads": 10}
    with_batteries = make_task("energy_grid", n_storage=6, **params).optimum()
    without = make_task("energy_grid", **params).optimum()
    assert "batteries as one" in with_batteries.how and "batteries" not in without.how
    assert with_batteries.value < without.value
    tiny = make_task("energy_grid", n_storage=1, storage_power=1e-6, **params).optimum()
    assert 0.999 * without.value < tiny.value <= without.value


# ------------------------------------------------------------------------------------ the rest
def test_a_series_and_a_picture():
    env = make_env("energy_grid", 2, **SMALL, n_storage=3)
    td = env.reset()
    blank = env.render()
    for _ in range(5):
        td = env.step(env.rand_action(td))["next"]
    assert env.task.episode_series(env.state)["stored in each battery (MWh)"].shape == (2, 3)
    assert not np.array_equal(env.render(), blank)
    at = env.task.grid.storage_bus.argmax(-1).tolist()
    assert at == [0, 1, 2]  # evenly over four buses


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_storage": -1}, "n_storage must be at least 0; got -1"),
        ({"storage_energy": 0.0}, "storage_energy must be positive; got 0"),
        ({"storage_power": -5.0}, "storage_power must be positive; got -5"),
        ({"storage_efficiency": 0.0}, r"storage_efficiency must be in \(0, 1\]; got 0"),
        ({"storage_efficiency": 1.1}, r"storage_efficiency must be in \(0, 1\]; got 1.1"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("energy_grid", **params)
