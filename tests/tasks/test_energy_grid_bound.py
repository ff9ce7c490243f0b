"""The bound of the energy grid: beside closed forms, other programmes, and every policy."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from marl_td.tasks import make_task
from marl_td.tasks.energy_grid import bound, dispatch, network
from marl_td.tasks.energy_grid.reference import make_reference, mean_net_load


def system(**params):
    made = make_task("energy_grid", **{"n_agents": 4, "n_loads": 5, "n_buses": 4, **params}).params
    return made, network.draw_grid(made)


def test_without_ramps_and_lines_it_is_economic_dispatch():
    params, grid = system(ramp_scale=50.0, line_capacity=100.0)
    net = mean_net_load(grid)[:24]
    demand = net.sum(-1)
    shape = (demand.shape[0], 4)
    power, _ = dispatch.economic_dispatch(
        grid, demand, grid.least.expand(shape), grid.most.expand(shape)
    )
    exact = params.dt * dispatch.fuel_cost(grid, power).sum().item()
    found = bound.lower_bound(params, grid, net.numpy())
    widest = ((grid.most - grid.least) / bound.SEGMENTS).square()
    slack = params.dt * 24 * (grid.quadratic * widest / 4).sum().item()
    assert exact - slack <= found <= exact and slack < 0.01 * exact


def test_with_ramps_and_lines_it_is_just_below_the_quadratic_programme():
    """Six steps of four generators, written row by row, with 400 tangents for each quadratic cost."""
    params, grid = system(ramp_scale=0.3, line_capacity=0.6)
    net = mean_net_load(grid)[66:72].numpy()
    reference = make_reference(params, grid)
    n_gen, n_lines = 4, grid.ptdf.shape[0]
    limit, ptdf, at_bus = reference.limit.numpy(), grid.ptdf.numpy(), grid.at_bus.numpy()
    width = 2 * n_gen + 2 + n_lines  # outputs, fuel costs, unserved, surplus, overload
    rows, high, equal, equal_to = [], [], [], []

    def row(t, places, values, before=None):
        out = np.zeros((6, width))
        out[t, places] = values
        if before is not None:
            out[t - 1, before] = -np.asarray(values)
        return out.ravel()

    gens = list(range(n_gen))
    for t in range(6):
        equal.append(row(t, [*gens, 8, 9], [*[1.0] * n_gen, 1.0, -1.0]))
        equal_to.append(net[t].sum())
        for line in range(n_lines):
            for sign in (1.0, -1.0):
                rows.append(row(t, [*gens, 10 + line], [*sign * ptdf[line] @ at_bus.T, -1.0]))
                high.append(limit[line] + sign * (ptdf[line] @ net[t]))
        for g in gens:
            a, b, ramp = grid.quadratic[g].item(), grid.linear[g].item(), grid.ramp[g].item()
            for sign in (1.0, -1.0):
                rows.append(row(t, [g], [sign], before=[g] if t else None))
                high.append(ramp + (0.0 if t else sign * reference.start[g].item()))
            for p in np.linspace(grid.least[g].item(), grid.most[g].item(), 400):
                rows.append(row(t, [g, n_gen + g], [2 * a * p + b, -1.0]))  # tangent <= fuel cost
                high.append(a * p * p)
    ends = [*zip(grid.least.tolist(), grid.most.tolist(), strict=True)]
    price = [*[0.0] * n_gen, *[1.0] * n_gen, 1000.0, 500.0, *[100.0] * n_lines]
    found = linprog(
        0.25 * np.tile(price, 6),
        A_ub=np.stack(rows),
        b_ub=high,
        A_eq=np.stack(equal),
        b_eq=equal_to,
        bounds=[*ends, *[(0, None)] * (n_gen + 2 + n_lines)] * 6,
    )
    value = bound.lower_bound(params, grid, net)
    assert 0.99 * found.fun < value <= found.fun * (1 + 1e-6)
    free = bound.lower_bound(*system(ramp_scale=50.0, line_capacity=100.0), net)
    assert value > 1.01 * free
    assert bound.unconstrained(params, grid, net) == pytest.approx(free, rel=0.005)


def test_tangents_lie_below_the_cost_and_touch_it():
    _, grid = system()
    width, slope, base = bound.tangent_pieces(grid)
    width, slope = width.reshape(4, -1), slope.reshape(4, -1)
    ends = np.concatenate([np.zeros((4, 1)), width.cumsum(1)], 1)
    for fill in np.linspace(0, 1, 33):
        total = fill * width.sum(1, keepdims=True)
        piece = np.clip(total - ends[:, :-1], 0, width)
        below = base + (piece * slope).sum()
        power = grid.least + torch.tensor(total[:, 0])
        exact = dispatch.fuel_cost(grid, power).item()
        assert below <= exact + 1e-9
        if round(fill * 32) % 4 == 2:  # in the middle of a piece
            assert below == pytest.approx(exact, rel=1e-9)


def test_noise_only_adds_cost():
    """Mean cost of known noisy days against the cost of the mean day: what makes the bound one."""
    params, grid = system(max_steps=24)
    net = mean_net_load(grid)[:24].numpy()
    rng = np.random.default_rng(0)
    days = []
    for _ in range(6):
        wind = 0.3 * rng.normal(size=(24, 1)).cumsum(0) / 4 * grid.wind.numpy()
        days += [
            bound.lower_bound(params, grid, net + wind),
            bound.lower_bound(params, grid, net - wind),
        ]
    assert np.mean(days) > bound.lower_bound(params, grid, net)
