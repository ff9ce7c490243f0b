"""Crossing schedules: rules by hand, the programme beside all orders, and the bound beside the task."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.tasks import make_env, make_task
from marl_td.tasks.intersection import optimum, schedule
from marl_td.tasks.intersection.schedule import Problem
from marl_td.tasks.intersection.table import delays, problems


def brute_force(problem):
    """The least sum of delays over all orders, each scheduled as early as it can be."""
    n = len(problem.release)
    best = np.inf
    for order in itertools.permutations(range(n)):
        rank = np.argsort(order)
        if any(problem.fixed[i, j] and rank[i] > rank[j] for i in range(n) for j in range(n)):
            continue
        time = np.zeros(n)
        for place, i in enumerate(order):
            before = [
                time[k] + problem.separation[k, i]
                for k in order[:place]
                if problem.separation[k, i]
            ]
            time[i] = max([problem.release[i], *before])
        best = min(best, problem.delay(time).sum())
    return best


def random_problem(seed, n, unequal):
    """Random vehicles; separations that differ by direction where `unequal`."""
    draw = np.random.default_rng(seed)
    conflict = make_task("intersection").paths.conflict.numpy()
    release = np.sort(draw.uniform(0, 6, n))
    found = schedule.simple(release, draw.integers(0, 12, n), conflict)
    if not unequal:
        return found
    factor = draw.uniform(0.3, 1.6, (n, n))
    slack = draw.uniform(-0.5, 0.5, n)
    return Problem(found.release, found.separation * factor, found.fixed, slack)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), unequal=st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_programme_equals_trying_all_orders(seed, n, unequal):
    problem = random_problem(seed, n, unequal)
    assert schedule.best(problem) == pytest.approx(brute_force(problem), abs=1e-4)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_rules_keep_every_separation_and_come_in_their_order(seed, n):
    problem = random_problem(seed, n, False)
    for time in (schedule.in_order(problem), schedule.reserve(problem)):
        assert (time >= problem.release - 1e-9).all()
        gap = np.abs(time[:, None] - time[None, :])
        apart = np.maximum(problem.separation, problem.separation.T)
        assert (gap >= apart - 1e-6).all()
        assert (time[:, None] < time[None, :] + 1e-9)[problem.fixed].all()


def test_rules_by_hand():
    """South straight, west straight (conflict), north straight (only with the west), south again."""
    conflict = make_task("intersection").paths.conflict.numpy()
    release, movement = np.array([0.0, 0.5, 1.0, 1.5]), np.array([1, 4, 7, 1])
    problem = schedule.simple(release, movement, conflict)
    assert schedule.in_order(problem).tolist() == [0.0, 2.5, 5.0, 5.0]
    assert schedule.reserve(problem).tolist() == [0.0, 2.5, 5.0, 5.0]
    assert schedule.one_at_a_time(problem, 2.5).tolist() == [0.0, 2.5, 5.0, 7.5]
    assert schedule.best(problem) == pytest.approx(
        0.5 + 4.0
    )  # both straight on first, the west at 4.5
    gap = schedule.simple(np.array([0.0, 0.1, 2.0]), np.array([1, 4, 7]), conflict)
    assert schedule.reserve(gap).tolist() == [0.0, 2.5, 5.0]
    early = Problem(
        np.zeros(3),
        np.array([[0, 5, 0], [5, 0, 1], [0, 1, 0.0]]),
        np.zeros((3, 3), bool),
        np.zeros(3),
    )
    assert schedule.in_order(early).tolist() == [0.0, 5.0, 6.0]
    assert schedule.reserve(early).tolist() == [0.0, 5.0, 0.0]


def test_the_table_of_schedules_is_in_order():
    rows = [delays(problem) for problem in problems(6, 12, 0.6)]
    mean = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    one, in_order, reserved, best = mean.values()
    assert 0 < best <= reserved <= in_order + 1e-9 and in_order < one


def test_the_fastest_way_from_a_commitment_by_trying_speeds():
    params = make_task("intersection").params
    distance = np.array([5.0, 15.0, 20.0])
    v = np.linspace(0, 12, 241)
    s, t = -np.array([optimum.braking_distance(params, speed) for speed in v]), 0.0
    least = np.full(3, np.inf)
    while not np.isfinite(least).all():
        new = np.minimum(v + 2.0 * 0.002, 12.0)
        s, v, t = s + (v + new) * 0.001, new, t + 0.002
        least = np.where((s.max() >= distance) & ~np.isfinite(least), t, least)
    np.testing.assert_allclose(optimum.fastest(params, distance), least, atol=0.005)


def test_no_rule_undercuts_the_bound_on_any_sequence_of_arrivals():
    env = make_env("intersection", 24, n_agents=5, arrival_rate=1.0, continuous=False)
    td, policy = env.reset(), env.task.baselines()["first_there_first"]
    start = env.state
    total, live = torch.zeros(24), torch.ones(24)
    for _ in range(160):
        td = env.step(policy(td))["next"]
        total += live * td["info", "delay"][:, 0]
        live = live * ~td["terminated"][:, 0]
    rows = zip(start.comes.numpy(), start.movement.numpy(), strict=True)
    bound = np.array([optimum.least_delay(env.task.params, *row) for row in rows])
    assert (bound <= total.numpy() + 1e-3).all() and bound.mean() > 0.1
    assert (bound > 0.25 * total.numpy() - 0.5).mean() > 0.3


def test_the_bound_without_a_shield_is_free_driving():
    bound = make_task("intersection", shield=False).optimum()
    assert (bound.value, bound.kind) == (0.0, "lower")
