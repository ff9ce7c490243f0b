"""Intervals and the common scale, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.evaluation.statistics import (
    interval_of,
    mean_interval,
    normalised_score,
    share_interval,
)


def test_interval_by_hand():
    """1, 2, 3, 4: s = sqrt(5 / 3), t(0.975, 3) = 3.182446 (any table), so 2.5 -+ 3.182446 s / 2."""
    interval = mean_interval(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    half = 3.182446 * (5 / 3) ** 0.5 / 2
    assert interval == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-6)


def test_other_levels_by_hand():
    """t(0.95, 10) = 1.812461."""
    interval = interval_of(mean=0.0, std=2.0, n=11, level=0.90)
    assert interval.high == pytest.approx(1.812461 * 2 / 11**0.5, rel=1e-6)


def test_equal_scores_have_no_width():
    assert mean_interval(torch.full((5,), 3.0)) == (3.0, 3.0, 3.0)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """2000 samples of 8 normal numbers: the true mean lies inside in 95 % (binomial s.d. 0.5 %)."""
    samples = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    intervals = [mean_interval(sample) for sample in samples]
    covered = sum(interval.low <= 0.0 <= interval.high for interval in intervals) / 2000
    assert 0.93 < covered < 0.97


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(-5, 5))
def test_shifting_scores_shifts_the_interval(scores, shift):
    one = mean_interval(torch.tensor(scores, dtype=torch.float64))
    two = mean_interval(torch.tensor(scores, dtype=torch.float64) + shift)
    assert two == pytest.approx([end + shift for end in one], abs=1e-6)


def test_too_few_scores_are_refused():
    with pytest.raises(ValueError, match="at least 2 episodes; got 1"):
        mean_interval(torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\); got 1.5"):
        interval_of(0.0, 1.0, 5, level=1.5)


@pytest.mark.parametrize(
    "score, random, best, expected",
    [
        (15.0, 10.0, 20.0, 0.5),
        (10.0, 10.0, 20.0, 0.0),
        (3.0, 9.0, 1.0, 0.75),
        (12.0, 9.0, 1.0, -0.375),
    ],
)
def test_normalised_score_by_hand(score, random, best, expected):
    assert normalised_score(score, random, best) == pytest.approx(expected)


def test_a_scale_without_length_has_no_score():
    assert normalised_score(1.0, 2.0, 2.0) is None


# ---------------------------------------------------------------------- shares
def test_share_interval_by_hand():
    """All or none of n: (1 - (tail)^(1/n)) in closed form; one of two: solved by hand, 0.0126 to 0.9874."""
    edge = 0.025 ** (1 / 8)
    assert share_interval(8, 8) == pytest.approx((1.0, edge, 1.0))
    assert share_interval(0, 8) == pytest.approx((0.0, 0.0, 1.0 - edge))
    low = 1.0 - 0.975**0.5  # P(at least 1 of 2) = 1 - (1 - p)^2 = 0.025
    assert share_interval(1, 2) == pytest.approx((0.5, low, 1.0 - low))


@pytest.mark.parametrize(("n_successes", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_impossible_shares_are_named(n_successes, n):
    with pytest.raises(ValueError, match=f"0 <= successes <= runs; got {n_successes} of {n}"):
        share_interval(n_successes, n)
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\); got 1"):
        share_interval(1, 2, level=1.0)
