"""The arithmetic of the pricing benchmarks: what tables learn from, how they act, and the row of a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from marl_td.evaluation.punishment import punishment
from marl_td.tasks import make_env, make_task
from marl_td.tasks.pricing.optimum import price_points


def test_profits_are_the_game_s_from_each_store_s_own_side(script):
    tabular = script("pricing_tabular")
    task = make_task("pricing", **tabular.TASK, quality=[2.0, 2.2])
    table = tabular.profit_table(task)
    price = task.prices(torch.tensor([[3, 9]]))
    expected = task.market.profit(price)[0].tolist()
    assert [table[0, 3, 9], table[1, 9, 3]] == pytest.approx(expected, rel=1e-5)


def test_tables_that_do_not_care_for_tomorrow_learn_what_is_best_now(script):
    """With a discount factor of 0 the values are mean profits against who prices at random for ever."""
    tabular = script("pricing_tabular")
    task = make_task("pricing", **tabular.TASK, n_prices=3)
    table = tabular.profit_table(task)
    args = SimpleNamespace(seed=0, sessions=4, periods=10_000, alpha=0.005, beta=0.0, gamma=0.0)
    greedy = tabular.learn(table, args)
    assert greedy.shape == (2, 4, 9)
    best = table[0].mean(-1).argmax()
    assert (greedy == best).all()


def test_a_table_answers_both_last_prices_from_its_own_side(script):
    tabular = script("pricing_tabular")
    env = make_env("pricing", 2, **tabular.TASK)
    greedy = np.arange(225) % 15  # the other's last price
    policy = tabular.Tables(env.task, np.broadcast_to(greedy, (2, 2, 225)).copy())
    td = env.reset()
    td["agents", "action"] = torch.tensor([[3, 9], [0, 14]])
    after = policy(env.step(td)["next"])
    assert after["agents", "action"].tolist() == [[9, 3], [14, 0]]


def test_the_row_of_a_grim_trigger(script):
    row_of = script("pricing_punishment").row_of
    env = make_env("pricing", 2, n_agents=2, max_steps=12)
    found = punishment(env, env.task.baselines()["grim_trigger"], cut_at=5, n_after=5)
    scale = env.task.yardstick
    row = row_of("grim", found, scale.nash_profit, scale.joint_profit)
    nash, joint = (float(p[0]) for p in price_points(env.task.params))
    cut = (joint - float(found.price[3, 0])) / (joint - nash)
    assert row["cut"] == f"{cut:.2f}"
    assert (row["who"], row["profit gain"]) == ("grim", "1.00")
    assert [row["after 1"], row["after 5"]] == ["1.00", "1.00"] and "after 10" not in row
