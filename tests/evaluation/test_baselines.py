"""The table a policy is judged by."""

import json
from typing import ClassVar

import pytest
from judging import BOUND, ROWS, always
from torchrl.envs import SerialEnv

from marl_td.evaluation.baselines import BaselineRow, BaselineTable, baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.matrix_game import MatrixGame, MatrixGameParams


class GameWithRules(MatrixGame):
    """A matrix game with a classical policy."""

    unit: ClassVar[str] = "points"

    def baselines(self):
        return {"always 1": always(1)}


def test_rows_and_json():
    task = GameWithRules(MatrixGameParams(payoff=[[1.0, 0.0], [0.0, 4.0]]))
    told = []
    table = baseline_table("mine/game", task, 8, seed=0, notify=told.append)
    assert [row.policy for row in table.rows] == ["random", "always 1"]
    assert told == ["optimum or bound", "random", "always 1"]
    assert table.rows[1] == BaselineRow("always 1", 4.0, 4.0, 4.0)
    data = json.loads(json.dumps(table.as_dict()))
    assert data["task"] == "mine/game"
    assert data["unit"] == "points"
    assert set(data["rows"][0]) == {"policy", "value", "low", "high"}
    assert data["rows"][0]["low"] <= data["rows"][0]["value"] <= data["rows"][0]["high"]
    assert set(data["optimum"]) == {"value", "kind", "how"}
    assert (data["optimum"]["value"], data["optimum"]["kind"]) == (4.0, "exact")


@pytest.mark.parametrize("n_episodes, fewer", [(8, {"always 1": 3}), (2, {})])
def test_a_slow_policy_plays_fewer_episodes_and_the_table_says_so(n_episodes, fewer):
    class Slow(GameWithRules):
        slow_baselines: ClassVar[dict[str, int]] = {"always 1": 3}

        def baselines(self):
            def counted(data):
                played.append(data.batch_size.numel())
                return always(1)(data)

            return {"always 1": counted}

    played = []
    task = Slow(MatrixGameParams(payoff=[[1.0, 0.0], [0.0, 4.0]]))
    table = baseline_table("mine/game", task, n_episodes, seed=0)
    assert table.fewer_episodes == table.as_dict()["fewer_episodes"] == fewer
    assert sum(played) == min(n_episodes, 3)
    remark = "always 1: 3 episodes only, since it plans agent by agent."
    assert table.remarks() == ([remark] if fewer else [])


def test_an_environment_without_task_has_the_random_policy_only():
    env = SerialEnv(2, lambda: make_env("matrix_game", 2))
    table = baseline_table("other/env", env, 4, seed=0, max_steps=1)
    assert [row.policy for row in table.rows] == ["random"]
    assert table.unit == "return"
    assert table.as_dict()["optimum"] is None


def test_the_best_row_and_the_scale_of_a_cost():
    table = BaselineTable("t", "$", higher_is_better=False, rows=ROWS, optimum=BOUND)
    assert table.best_row().policy == "a"
    assert table.reference() == ("lower bound", 2.0)
    assert table.normalised(4.0) == pytest.approx(0.75)  # (4 - 10) / (2 - 10)


def test_without_optimum_the_best_row_is_the_scale():
    table = BaselineTable("t", "$", higher_is_better=False, rows=ROWS, optimum=None)
    assert table.reference() == ("a", 4.0)
    assert table.normalised(4.0) == 1.0
    gain = BaselineTable("t", "$", higher_is_better=True, rows=ROWS, optimum=None)
    assert gain.reference() == ("random", 10.0)
    assert gain.normalised(4.0) is None


def test_the_same_seed_is_used_for_every_policy():
    """Two copies of one policy meet the same random numbers, and score the same."""

    class Twice(GameWithRules):
        def baselines(self):
            return {"one": always(0), "two": always(0)}

    rows = baseline_table("t", Twice(MatrixGameParams()), 4, seed=3).rows
    assert rows[1].value == rows[2].value


def test_tables_of_our_tasks_have_the_promised_shape():
    table = baseline_table("marl_td/two_step", make_task("two_step"), 4, seed=0)
    shape = {"task", "unit", "higher_is_better", "rows", "optimum", "fewer_episodes"}
    assert set(table.as_dict()) == shape
