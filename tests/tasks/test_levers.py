"""The lever game: a round by hand, chances by counting, codes, failures, and what may be learned silently."""

import itertools
from statistics import mean

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.levers import LeversState
from marl_td.tasks.levers.chances import random_share, silent_share

CODES = ("one_hot", "bits", "number")


def drawn(task, *ids, alive=None):
    """One environment with these numbers, all heard."""
    m = len(ids)
    living = torch.tensor([alive or [True] * m])
    heard = living[:, task.others]
    return LeversState(torch.tensor([ids]), living, heard, torch.full((1, m), -1))


def started(task, n_envs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return task.reset(n_envs, task.draw_reset(n_envs, generator)), generator


def pulled(task, state, *levers):
    return task.step(state, {"agents": torch.tensor([levers])}, {})


# ------------------------------------------------------------------------------------- by hand
def test_the_team_is_paid_by_the_number_of_different_levers():
    task = make_task("levers", n_agents=4, pool=9)
    state = drawn(task, 8, 2, 5, 0)
    step = pulled(task, state, 3, 1, 3, 0)
    assert step.reward["agents"].tolist() == [[0.75] * 4]
    assert step.info["distinct"].tolist() == [3.0] and step.terminated.tolist() == [True]
    assert step.state.pulled.tolist() == [[3, 1, 3, 0]]
    theirs = make_task("levers", n_agents=4, pool=9, count_from_one=True)
    assert pulled(theirs, state, 3, 1, 3, 0).reward["agents"][0, 0].item() == pytest.approx(2 / 3)
    assert pulled(theirs, state, 3, 3, 3, 3).reward["agents"][0, 0].item() == 0.0
    assert task.score({"distinct": torch.tensor([3.0, 4.0])}).tolist() == [0.75, 1.0]


def test_the_dead_pull_nothing_and_are_not_counted_in_ranks():
    task = make_task("levers", n_agents=4, pool=9, dead_agents=0.25)
    state = drawn(task, 8, 2, 5, 0, alive=[True, True, True, False])
    step = pulled(task, state, 0, 0, 1, 3)
    assert step.info["distinct"].tolist() == [2.0]
    assert step.state.pulled.tolist() == [[0, 0, 1, -1]]
    assert task.rank(state).tolist() == [[2, 0, 1, 0]]
    assert task.rank(drawn(task, 8, 2, 5, 0)).tolist() == [[3, 1, 2, 0]]
    assert task.optimum().value == 0.75


def test_numbers_in_their_codes():
    one_hot, bits, number = (make_task("levers", n_agents=2, pool=6, id_code=c) for c in CODES)
    ids = torch.tensor([0, 4])
    assert one_hot.encode(ids).tolist() == [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    assert bits.encode(ids).tolist() == [[1, 0, 0], [1, 0, 1]]
    assert number.encode(ids).flatten().tolist() == pytest.approx([1 / 6, 5 / 6])
    for task in (make_task("levers", n_agents=2, pool=33, id_code=c) for c in CODES):
        codes = {tuple(code) for code in task.encode(torch.arange(33)).tolist()}
        assert len(codes) == 33 and (0.0,) * task.width not in codes


def test_what_is_seen_of_the_others():
    state = drawn(make_task("levers", n_agents=3, pool=5), 4, 0, 2)
    alone = make_task("levers", n_agents=3, pool=5)
    assert alone.observe(state)["agents"].shape == (1, 3, 5)
    row = make_task("levers", n_agents=3, pool=5, see_others=True)
    assert row.observe(state)["agents"][0, 1].tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert row.team_state(state)[0].tolist() == [1, 0, 1, 0, 1]
    listed = make_task("levers", n_agents=3, pool=5, see_others=True, id_code="number")
    assert listed.observe(state)["agents"][0, 1].tolist() == pytest.approx([0.2, 0.6, 1.0])
    assert listed.team_state(state)[0].tolist() == pytest.approx([1.0, 0.2, 0.6])


def test_lost_numbers_are_zeros():
    for code in CODES:
        task = make_task(
            "levers", n_agents=3, pool=5, see_others=True, id_code=code, message_dropout=1.0
        )
        state, _ = started(task, 4)
        seen = task.observe(state)["agents"]
        assert (seen[..., : task.width] != 0).any(-1).all() and (seen[..., task.width :] == 0).all()
        assert task.optimum().kind == "upper"
    half = make_task("levers", see_others=True, message_dropout=0.3)
    state, _ = started(half, 2000)
    assert abs(half.observe(state)["agents"][..., 500:].sum(-1).mean() - 4 * 0.7) < 0.05


# ----------------------------------------------------------------------------------------- chances
@pytest.mark.parametrize(
    ("n_levers", "n_agents", "pool"), [(2, 2, 4), (3, 3, 5), (3, 2, 4), (2, 2, 2)]
)
def test_the_best_silent_share_is_that_of_the_best_assignment(n_levers, n_agents, pool):
    """Every assignment of numbers to levers tried, every draw counted."""
    draws = list(itertools.combinations(range(pool), n_agents))
    best = max(
        mean(len({lever[i] for i in draw}) for draw in draws) / n_levers
        for lever in itertools.product(range(n_levers), repeat=pool)
    )
    assert silent_share(n_levers, n_agents, pool) == pytest.approx(best)
    every = itertools.product(range(n_levers), repeat=n_agents)
    counted = mean(len(set(levers)) for levers in every) / n_levers
    assert random_share(n_levers, n_agents) == pytest.approx(counted)


def test_the_published_game_leaves_nothing_to_silent_agents():
    chances = make_task("levers").chances()
    assert chances["random"] == pytest.approx(0.67232)
    assert 0.6739 < chances["best_silent"] < 0.6740
    counted_from_one = (5 * chances["random"] - 1) / 4
    assert round(counted_from_one, 2) == 0.59  # what the paper reports of independent agents


@pytest.mark.parametrize("params", [{}, {"n_agents": 3, "pool": 6}, {"dead_agents": 0.4}])
def test_policies_by_rule_make_what_is_computed(params):
    task = make_task("levers", **params)
    table = baseline_table("t", task, 3000, seed=0)
    found = {row.policy: row for row in table.rows}
    for name, value in (("random", "random"), ("partition", "best_silent")):
        row, expected = found[name], task.chances()[value]
        spread = 2.0 * (row.high - row.value)
        assert abs(row.value - expected) < spread
    assert found["rank"].value == pytest.approx(table.optimum.value)


# -------------------------------------------------------------------------------------- properties
@given(
    m=st.integers(2, 6),
    extra=st.integers(0, 20),
    seed=st.integers(0, 1000),
    code=st.sampled_from(CODES),
)
@settings(max_examples=30, deadline=None)
def test_draws_are_different_and_rewards_in_range(m, extra, seed, code):
    task = make_task("levers", n_agents=m, pool=m + extra, id_code=code, see_others=True)
    state, generator = started(task, 20, seed)
    assert (state.id.sort(-1).values.diff(dim=-1) > 0).all()
    assert (state.id >= 0).all() and (state.id < m + extra).all()
    assert torch.equal(task.rank(state).sort(-1).values, torch.arange(m).expand(20, -1))
    action = torch.randint(m, (20, m), generator=generator)
    step = task.step(state, {"agents": action}, {})
    assert ((step.reward["agents"] >= 1 / m - 1e-6) & (step.reward["agents"] <= 1.0)).all()
    order = torch.randperm(m, generator=generator)
    again = state._replace(id=state.id[:, order], alive=state.alive[:, order])
    turned = task.step(again, {"agents": action[:, order]}, {})
    assert torch.equal(turned.reward["agents"], step.reward["agents"])
    assert torch.equal(task.rank(again), task.rank(state)[:, order])


def test_draws_are_uniform():
    task = make_task("levers", n_agents=3, pool=6)
    state, _ = started(task, 20_000)
    share = torch.stack([(state.id == number).float().mean(0) for number in range(6)])
    assert (share - 1 / 6).abs().max() < 0.01


# ------------------------------------------------------------------------------------ environments
@pytest.mark.parametrize("code", CODES)
def test_specs_hold(code):
    params = {"pool": 9, "id_code": code, "dead_agents": 0.2, "message_dropout": 0.5}
    check_env_specs(make_env("levers", 3, see_others=code != "bits", **params))


def test_a_round_terminates():
    env = make_env("levers", 3)
    td = env.step(env.rand_action(env.reset()))["next"]
    assert td["terminated"].all() and not td["truncated"].any()


def test_a_series_and_a_picture():
    env = make_env("levers", 2, n_agents=3)
    td = env.reset()
    before = env.render()
    assert before.shape == (260, 312, 3) and before.dtype == np.uint8
    env.step(env.rand_action(td))
    assert not np.array_equal(before, env.render())
    (line,) = env.task.episode_series(env.state).values()
    assert line.shape == (2, 3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 1}, "n_agents must be at least 2; got 1"),
        ({"pool": 4}, "pool must be at least n_agents = 5; got 4"),
        ({"id_code": "gray"}, "id_code must be one of one_hot, bits, number; got 'gray'"),
        ({"dead_agents": 1.0}, "dead_agents is a share of the agents"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("levers", **params)
