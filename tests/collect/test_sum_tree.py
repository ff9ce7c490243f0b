"""Sums of many numbers, and draws in proportion to them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.collect.sum_tree import SumTree

SIZES = (1, 2, 31, 32, 33, 200, 1000)
DOUBLE = torch.float64


NARROW = {"fan_out": 3, "top": 4}  # many levels in a small tree
SHAPES = pytest.mark.parametrize("shape", [{}, NARROW], ids=["wide", "narrow"])


@settings(deadline=None)
@given(st.data())
def test_sums_equal_brute_force_under_random_updates(data):
    size = data.draw(st.sampled_from(SIZES))
    tree, expected = SumTree(size, **NARROW), np.zeros(size)
    for _ in range(data.draw(st.integers(1, 6))):
        index = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
        value = data.draw(st.lists(st.floats(0.0, 1e6), min_size=len(index), max_size=len(index)))
        tree.set(torch.tensor(index), torch.tensor(value, dtype=DOUBLE))
        for place in set(index):
            given_here = [v for i, v in zip(index, value, strict=True) if i == place]
            expected[place] = max(given_here)
    np.testing.assert_array_equal(tree.numbers.numpy(), expected)
    np.testing.assert_allclose(float(tree.total()), expected.sum(), rtol=1e-12)
    for upper, lower in zip(tree.levels, tree.levels[1:], strict=False):
        torch.testing.assert_close(upper[: len(lower) // 3], lower.view(-1, 3).sum(-1))


@settings(deadline=None)
@given(st.data())
def test_what_is_found_equals_a_running_sum_and_is_never_zero(data):
    size = data.draw(st.sampled_from(SIZES))
    numbers = st.one_of(st.just(0.0), st.floats(1e-9, 1e6), st.integers(1, 9).map(float))
    values = data.draw(st.lists(numbers, min_size=size, max_size=size).filter(any))
    fractions = data.draw(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
    tree = SumTree(size, **NARROW)
    tree.set(torch.arange(size), torch.tensor(values, dtype=DOUBLE))
    index, value = tree.find(torch.tensor(fractions, dtype=DOUBLE))
    assert (value > 0.0).all()
    assert torch.equal(value, tree.numbers[index])
    sums = np.cumsum(values)
    mass = np.asarray(fractions) * sums[-1]
    before, after = sums[index] - np.asarray(values)[index], sums[index]
    slack = 1e-9 * sums[-1]
    assert (before <= mass + slack).all()
    assert (mass <= after + slack).all()


@SHAPES
@pytest.mark.parametrize("size", [10, 5000, 140_000])
def test_even_fractions_find_everything_once(size, shape):
    tree = SumTree(size, **shape)
    tree.set(torch.arange(size), torch.full((size,), 2.0, dtype=DOUBLE))
    index, _ = tree.find((torch.arange(size, dtype=DOUBLE) + 0.5) / size)
    assert torch.equal(index, torch.arange(size))


@SHAPES
def test_the_ends_find_the_first_and_last_that_are_not_zero(shape):
    tree = SumTree(9000, **shape)
    tree.set(torch.tensor([17, 8000]), torch.tensor([0.1, 0.3], dtype=DOUBLE))
    index, _ = tree.find(torch.tensor([0.0, 1.0 - 2**-53, 1.0], dtype=DOUBLE))
    assert index.tolist() == [17, 8000, 8000]


def test_a_saved_tree_is_the_same_to_the_last_bit():
    tree, other = SumTree(200, **NARROW), SumTree(200, **NARROW)
    for _ in range(50):
        tree.set(torch.randint(200, (7,)), torch.rand(7, dtype=DOUBLE))
    other.load(tree.state())
    for mine, loaded in zip(tree.levels, other.levels, strict=True):
        assert torch.equal(mine, loaded)
    with pytest.raises(
        ValueError, match=r"this tree of 5 numbers takes a state .* of another size"
    ):
        SumTree(5).load(tree.state())


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 number; got size=0"):
        SumTree(0)
