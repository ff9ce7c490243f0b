"""The task contract's own checks."""

import pytest

from marl_td.tasks.base import Box, Discrete, TaskParams


def test_the_time_limit_must_be_positive():
    with pytest.raises(ValueError, match="max_steps must be at least 1; got 0"):
        TaskParams(max_steps=0)


@pytest.mark.parametrize(("low", "high"), [((), ()), ((0.0,), (0.0,)), ((0.0, 0.0), (1.0,))])
def test_a_box_needs_an_interval_per_element(low, high):
    with pytest.raises(ValueError, match="Box needs one low < high per element"):
        Box(low, high)


def test_discrete_needs_an_action():
    with pytest.raises(ValueError, match="Discrete needs at least 1 action; got 0"):
        Discrete(0)
