"""Order, places and totals of a few numbers: as the library's own functions make them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.tasks.order import FEW, VERY_FEW, argsort, one_hot, ranks, running_total, smallest


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_places_are_those_of_a_stable_sort(n, n_values, seed):
    value = torch.randint(
        n_values, (3, 2, n), generator=torch.Generator().manual_seed(seed)
    ).float()
    right = value.sort(dim=-1, stable=True).indices
    assert torch.equal(argsort(value), right)
    assert torch.equal(ranks(value), right.argsort(dim=-1))


@pytest.mark.parametrize("n", [FEW, FEW + 1])
def test_many_numbers_are_sorted_by_the_library(n):
    value = torch.randint(7, (2, n), generator=torch.Generator().manual_seed(0)).float()
    right = value.sort(dim=-1, stable=True).indices
    assert torch.equal(argsort(value), right)
    assert torch.equal(ranks(value), right.argsort(dim=-1))


def test_infinite_numbers_have_places():
    value = torch.tensor([2.0, float("inf"), -1.0, float("inf"), float("-inf")])
    assert ranks(value).tolist() == [2, 3, 1, 4, 0]
    assert argsort(value).tolist() == [4, 2, 0, 1, 3]


def test_what_is_not_a_number_gives_indices_all_the_same():
    """Several NaNs share a place, which leaves gaps; memory is made dirty first."""
    value = torch.full((1000, 8), float("nan"))
    value[:, 3] = 1.0
    for _ in range(3):
        dirty = [torch.full((1000, 8), 2**40) for _ in range(8)]
        del dirty
        assert argsort(value).min() >= 0 and argsort(value).max() < 8
        assert smallest(value, 2).max() < 8


def test_an_index_out_of_range_is_a_row_of_zeros():
    assert one_hot(torch.tensor([[2, 0], [3, -1]]), 3).tolist() == [
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    ]


@pytest.mark.parametrize("n", [1, 5, VERY_FEW, VERY_FEW + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_running_totals(n, dtype):
    value = torch.randint(9, (2, 3, n), generator=torch.Generator().manual_seed(n)).to(dtype)
    total = running_total(value)
    assert total.dtype == dtype
    assert torch.equal(total, value.cumsum(-1))


@pytest.mark.parametrize("n", [4, VERY_FEW, VERY_FEW + 1])
@pytest.mark.parametrize("k", [1, 3])
def test_the_smallest_few(n, k):
    value = torch.rand((2, 3, n), generator=torch.Generator().manual_seed(n))
    assert torch.equal(smallest(value, k), value.sort(dim=-1).indices[..., :k])
