"""The table over all tasks: what it counts as learned, how it compares, and that it resumes."""

import sys

import pytest

from marl_td.tasks.registry import TASKS
from marl_td.training.compose import compose


def yard(policy, value, how=""):
    return {"task": "queue", "unit": "ms", "better": "lower", "policy": policy, "value": value} | {
        "how": how
    }


def test_every_task_is_learned_in_the_table_or_said_to_be_elsewhere(script):
    table = script("task_table")
    for task in TASKS:
        if task not in table.NOT_HERE:
            settings = compose(table.settings_of(task))
            assert settings.task == f"marl_td/{task}"
            assert settings.experiment_config.max_n_frames <= 10_000_000


def test_a_line_of_the_table_by_hand(script):
    """Drawn actions are better: 2.5 and 3.5 on the way from 10 to 2, +- 12.71 times 0.0625 (Student)."""
    table = script("task_table")
    yards = [yard("random", 10.0), yard("rule", 4.0), yard("worse", 5.0)]
    yards.append(yard("lower bound", 2.0, "by hand"))
    runs = [
        {"task": "queue", "algorithm": "mappo", "score": score, "drawn": drawn, "seconds": 120.0}
        for score, drawn in ((4.5, 2.5), (3.0, 3.5))
    ]
    (line,) = table.summary(runs, yards, ["queue"])
    assert line["random"] == "10"
    assert line["best classical policy"] == "4 (rule)"
    assert line["optimum or bound"] == "2 (lower bound)"
    assert line["task"] == "[queue](queue.md), ms, lower is better"
    assert line["learned: mean (least to most over seeds)"] == "3.75 (3 to 4.5) (MAPPO)"
    assert line["with drawn actions"] == "3"
    assert line["normalised"] == "0.875 +- 0.794"
    assert (line["minutes"], line["seeds"]) == ("2.0", 2)
    (alone,) = table.summary(runs[:1], yards[:3], ["queue"])
    assert (alone["optimum or bound"], alone["normalised"]) == ("-", "1.250")
    (nothing,) = table.summary([], yards, ["queue"])
    assert list(nothing.values())[3:] == ["-", "-", "2 (lower bound)", "-", 0, "-"]


def test_the_page_has_the_table_of_the_rows(script):
    table = script("task_table")
    page, text = table.PAGE.read_text(), table.table_of_rows()
    assert page == table.filled(page, text), "run `python benchmarks/task_table.py --summary`"


def test_a_task_is_trained_judged_both_ways_and_not_run_again(script, monkeypatch, tmp_path):
    table = script("task_table")
    ways, judge = [], table.evaluate_policy

    def noted(*args, deterministic, **options):
        ways.append(deterministic)
        return judge(*args, deterministic=deterministic, **options)

    monkeypatch.setattr(table, "evaluate_policy", noted)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")
    table.PAGE.write_text("before\n<!-- learned -->\nold\n<!-- /learned -->\nafter\n")
    small = ["experiment.max_n_frames=120", "experiment.off_policy_collected_frames_per_batch=60"]
    small += ["experiment.off_policy_n_optimizer_steps=1", "experiment.compile=off"]
    chosen = ["--tasks", "two_step", "matrix_game", "--seeds", "0", "--episodes", "8"]
    chosen += ["--set", *small]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["task_table", *chosen])
        table.main()
    assert ways == [True, False]
    (row,) = table.read_rows(tmp_path / "task_table.csv")
    assert (row["task"], row["algorithm"], row["frames"]) == ("two_step", "qmix", "120")
    assert float(row["score"]) in (0.0, 1.0, 7.0, 8.0)  # every episode alike
    assert 0.0 <= float(row["drawn"]) <= 8.0
    names = [r["policy"] for r in table.read_rows(tmp_path / "task_table_yardsticks.csv")]
    assert names == ["random", "optimum"]
    head, line, end = table.PAGE.read_text().partition("| [two_step](two_step.md), return |")
    assert head.startswith("before\n<!-- learned -->\n| task | random |") and "old" not in end
    assert line and end.endswith("|\n<!-- /learned -->\nafter\n")
    assert pytest.approx(8.0) == float(
        table.read_rows(tmp_path / "task_table_yardsticks.csv")[1]["value"]
    )
