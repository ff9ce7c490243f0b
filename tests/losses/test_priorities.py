"""Priorities of steps and sequences, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.losses.functional.priorities import (
    item_priority,
    mean_over_agents,
    sequence_priority,
)

NAN = float("nan")


def test_a_sequence_by_hand():
    error = torch.tensor([[1.0, -4.0, 1.0], [2.0, 2.0, 2.0]])
    expected = torch.tensor([0.9 * 4.0 + 0.1 * 2.0, 2.0])
    torch.testing.assert_close(sequence_priority(error), expected)


def test_what_does_not_count_changes_nothing():
    error = torch.tensor([[1.0, -3.0, NAN, 100.0], [NAN, 5.0, 5.0, 5.0]])
    counts = torch.tensor([[True, True, False, False], [False] * 4])
    expected = torch.tensor([0.9 * 3.0 + 0.1 * 2.0, 0.0])
    torch.testing.assert_close(sequence_priority(error, counts), expected)


def test_agents_by_hand():
    error = torch.tensor([[1.0, -3.0], [5.0, NAN], [7.0, 7.0]])
    counts = torch.tensor([[True, True], [True, False], [False, False]])
    mean, any_counts = mean_over_agents(error, counts)
    assert mean.tolist() == [2.0, 5.0, 0.0]
    assert any_counts.tolist() == [True, True, False]
    assert mean_over_agents(error[:1])[1] is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(0.0, 1.0))
def test_between_the_mean_and_the_largest_whatever_the_padding(errors, eta):
    error = torch.tensor([errors], dtype=torch.float64)
    padded = torch.cat([error, torch.full((1, 3), NAN, dtype=torch.float64)], dim=-1)
    counts = torch.arange(padded.shape[-1]).unsqueeze(0) < len(errors)
    found = item_priority(padded, counts, sequences=True, eta=eta)
    torch.testing.assert_close(found, sequence_priority(error, eta=eta))
    assert error.abs().mean() - 1e-9 <= found <= error.abs().max() + 1e-9


def test_of_a_single_step_the_error_is_the_priority():
    found = item_priority(
        torch.tensor([1.0, -3.0, NAN]), torch.tensor([True, True, False]), sequences=False
    )
    assert found.tolist() == [1.0, 3.0, 0.0]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"`eta` must lie in \[0, 1\]; got 1.5"):
        sequence_priority(torch.ones(2, 3), eta=1.5)
    with pytest.raises(ValueError, match="`counts` must have the shape of `td_error`"):
        mean_over_agents(torch.ones(2, 3), torch.ones(2, dtype=torch.bool))
