"""The report as text, JSON and picture."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from judging import BOUND, ROWS
from matplotlib.image import imread

from marl_td.evaluation.baselines import BaselineRow, BaselineTable
from marl_td.evaluation.episode import EpisodeDrawing
from marl_td.evaluation.plots import reference_lines
from marl_td.evaluation.report import CurvePoint, RunReport, totals_of, training_curve
from marl_td.evaluation.statistics import Interval, interval_of
from marl_td.training.metrics import MetricsFile


@pytest.fixture
def report():
    table = BaselineTable("t", "$ per period", higher_is_better=False, rows=ROWS, optimum=BOUND)
    return RunReport(
        table=table,
        learned=BaselineRow("learned", 3.0, 2.5, 3.5),
        mean_return=Interval(-30.0, -31.0, -29.0),
        algorithm="marl_td/mappo",
        frames=1000,
        train_seconds=12.0,
        episodes=16,
        seed=0,
        curve=[CurvePoint(500, 8.0, 7.0, 9.0), CurvePoint(1000, 3.0, 2.5, 3.5)],
    )


def test_verdict_on_a_cost(report):
    assert report.verdict() == (
        "The learned policy beats 2 of 3 policies; the best of these is b (by 3, 50.0%); whether it is "
        "better than a is open: their 95 % intervals overlap. "
        "Normalised score: 0.875 (0 = random, 1 = lower bound)."
    )


def test_verdict_between_two_policies(report):
    report.learned = BaselineRow("learned", 5.0, 4.5, 5.5)
    assert report.verdict().startswith(
        "The learned policy beats 1 of 3 policies; the best of these is random (by 5, 50.0%); whether it "
        "is better than a or b is open: the 95 % intervals overlap. Normalised"
    )


def test_verdict_on_a_gain(report):
    table = dataclasses.replace(report.table, higher_is_better=True, optimum=None)
    worse = dataclasses.replace(report, table=table)
    assert worse.verdict() == (
        "The learned policy beats 0 of 3 policies; the best one ahead of it is random (by 7, 70.0%); "
        "whether it is better than a is open: their 95 % intervals overlap."
    )


@pytest.mark.parametrize(
    ("low", "value", "high", "expected"),
    [
        (7.5, 8.0, 8.5, "is random (by 2, 20.0%); the best one ahead of it is a (by 4, 100.0%). Norm"),
        (5.0, 5.0, 5.0, "beats 1 of 3 policies; the best of these is random (by 5, 50.0%); whether"),
        (2.0, 2.5, 2.9, "beats 3 of 3 policies; the best of these is a (by 1.5, 37.5%). Norm"),
        (11.1, 12.0, 13.0, "beats 0 of 3 policies; the best one ahead of it is a (by 8, 200.0%). Norm"),
        (10.0, 10.0, 10.0, "ahead of it is a (by 6, 150.0%); whether it is better than random is open"),
    ],
)  # fmt: skip
def test_better_is_only_said_where_intervals_are_apart(report, low, value, high, expected):
    report.learned = BaselineRow("learned", value, low, high)
    assert expected in report.verdict()


def test_json(report):
    data = json.loads(json.dumps(report.as_dict()))
    assert data["learned"] == {"policy": "learned", "value": 3.0, "low": 2.5, "high": 3.5}
    assert data["normalised_score"] == pytest.approx(7 / 8)
    assert data["reference"] == {"policy": "lower bound", "value": 2.0}
    assert [row["policy"] for row in data["rows"]] == ["random", "a", "b"]
    assert data["optimum"]["kind"] == "lower"


def test_markdown(report):
    page = report.markdown()
    assert "| learned (mappo) | 3.000 | 2.500 to 3.500 |" in page
    assert "| lower bound | 2.000 | lower |" in page
    assert "lower is better" in page


@pytest.mark.parametrize("n_series", [0, 1, 6])
def test_files(report, tmp_path, n_series):
    series = {f"quantity {i} [units]": torch.rand(20, i + 1) for i in range(n_series)}
    picture = np.zeros((30, 40, 3), dtype=np.uint8) if n_series else None
    report.drawing = EpisodeDrawing(series, picture)
    report.write(tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.md",
        "report.json",
        "report.png",
    }
    image = imread(tmp_path / "report" / "report.png")
    assert image.shape[1] > 1000
    assert image[..., :3].std() > 0.05  # something is drawn


def test_values_that_are_mostly_zero_are_drawn_whole(report, tmp_path):
    """Such as collisions; matplotlib's warning about an axis from 0 to 0 would be an error here."""
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    rows = [ROWS[0], *(dataclasses.replace(row, **nothing) for row in ROWS[1:])]
    report.table = dataclasses.replace(report.table, rows=rows)
    report.learned = dataclasses.replace(report.learned, **nothing)
    report.write(tmp_path / "report")
    assert (tmp_path / "report" / "report.png").exists()


def test_the_curve_shows_the_best_baselines_and_the_bound(report):
    assert [line[0] for line in reference_lines(report.table)] == [
        "a",
        "b",
        "random",
        "lower bound",
    ]


def test_the_curve_comes_from_the_metrics(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    evaluation = {"eval/score_mean": 5.0, "eval/score_std": 2.0, "eval/episodes": 4}
    counters = {"counters/total_frames": 100, "timers/total_time": 1.5}
    file.write({**counters, **evaluation})
    file.write({"counters/total_frames": 200, "timers/total_time": 2.5})
    points = training_curve(tmp_path / "metrics.csv")
    assert points == [CurvePoint(100, *interval_of(5.0, 2.0, 4))]
    assert totals_of(tmp_path / "metrics.csv") == (200, 2.5)


def test_without_scores_the_curve_shows_returns(tmp_path):
    row = {"counters/total_frames": 100, "eval/episodes": 1}
    row |= {"eval/reward/episode_reward_mean": -3.0, "eval/reward/episode_reward_std": 0.0}
    MetricsFile(tmp_path / "metrics.csv").write(row)
    assert training_curve(tmp_path / "metrics.csv") == [CurvePoint(100, -3.0, -3.0, -3.0)]
