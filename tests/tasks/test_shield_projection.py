"""Projection onto a box cut by half-spaces: by hand, against SciPy, and what always holds."""

import numpy as np
import pytest
import torch
from half_spaces import as_rows, nearest, random_set
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.tasks.shield.projection import Block, SafeSet


def row(*weights, limit):
    """One half-space over all columns."""
    columns = np.arange(len(weights))[None]
    return Block(columns, np.array([weights], dtype=float), np.array([float(limit)]))


def box(width, low=-1.0, high=1.0):
    return np.full(width, low), np.full(width, high)


def project(safe_set, *points):
    return safe_set.project(torch.tensor(np.array(points), dtype=torch.float32))


def test_one_half_space_by_hand():
    safe_set = SafeSet(*box(2), [row(1, 1, limit=1)])
    expected = [[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]  # along (1, 1); the last one meets a bound
    found = project(safe_set, [1.0, 1.0], [1.0, 0.5], [1.0, 0.0])
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-5, rtol=0)


def test_a_bound_that_is_met_on_the_way_takes_no_further_part():
    safe_set = SafeSet(np.array([0.4, -1.0]), np.array([1.0, 1.0]), [row(1, 1, limit=0.5)])
    found = project(
        safe_set, [0.5, 0.9]
    )  # (0.05, 0.45) lies outside, so the first entry stops at 0.4
    torch.testing.assert_close(found, torch.tensor([[0.4, 0.1]]), atol=2e-5, rtol=0)


def test_two_half_spaces_by_hand_and_their_corner():
    safe_set = SafeSet(*box(2), [row(1, 0, limit=0.5), row(0, 2, limit=0.5)])
    found = project(safe_set, [1.0, 1.0], [1.0, -1.0])
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.25], [0.5, -1.0]]), atol=2e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_blocks=st.integers(1, 3))
def test_it_is_the_nearest_point_and_always_inside(seed, n_blocks):
    rng = np.random.default_rng(seed)
    low, high, blocks = random_set(rng, n_blocks)
    rows, limit = as_rows(blocks, len(low))
    points = rng.uniform(low, high, (3, len(low)))
    found = SafeSet(low, high, blocks).project(torch.tensor(points, dtype=torch.float32)).double()
    assert (found.numpy() @ rows.T <= limit).all()
    assert (found.numpy() >= low - 1e-7).all() and (found.numpy() <= high + 1e-7).all()
    distance = np.linalg.norm(found.numpy() - points, axis=-1)
    for point, here in zip(points, distance, strict=True):
        least = np.linalg.norm(nearest(point, low, high, rows, limit) - point)
        # One block is exact; several may stop short of a corner that is nearly flat.
        assert least - 1e-4 <= here <= least * (1 + (0 if n_blocks == 1 else 0.05)) + 1e-4


def test_nearly_all_random_sets_of_several_constraints_are_solved_to_float_precision():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        low, high, blocks = random_set(rng, rng.integers(2, 4))
        rows, limit = as_rows(blocks, len(low))
        point = rng.uniform(low, high)
        found = project(SafeSet(low, high, blocks), point)[0].double().numpy()
        errors.append(np.abs(found - nearest(point, low, high, rows, limit)).max())
    assert np.quantile(errors, 0.95) < 1e-4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_blocks=st.integers(1, 3))
def test_a_point_inside_is_not_touched_and_projecting_twice_is_projecting_once(seed, n_blocks):
    rng = np.random.default_rng(seed)
    low, high, blocks = random_set(rng, n_blocks)
    safe_set = SafeSet(low, high, blocks)
    once = safe_set.project(
        torch.tensor(rng.uniform(low, high, (5, len(low))), dtype=torch.float32)
    )
    assert torch.equal(safe_set.project(once), once)
    inside = torch.zeros(1, len(low))
    assert torch.equal(safe_set.project(inside), inside)


def test_each_row_of_a_batch_is_projected_by_itself():
    rng = np.random.default_rng(3)
    low, high, blocks = random_set(rng, 2)
    safe_set = SafeSet(low, high, blocks)
    points = torch.tensor(rng.uniform(low, high, (4, 3, len(low))), dtype=torch.float32)
    torch.testing.assert_close(safe_set.project(points)[2, 1], safe_set.project(points[2, 1]))


def test_what_cannot_be_kept_or_is_no_constraint_is_refused():
    with pytest.raises(ValueError, match="no action lies inside all linear constraints"):
        SafeSet(*box(2), [row(1, 1, limit=-2.5)])
    with pytest.raises(ValueError, match="no action lies inside"):
        SafeSet(*box(2), [row(1, 1, limit=0.5), row(-1, -1, limit=-0.5)])  # an equality
    with pytest.raises(ValueError, match="needs a weight besides 0"):
        SafeSet(*box(2), [row(0, 0, limit=1)])
    with pytest.raises(ValueError, match="must be finite numbers"):
        SafeSet(*box(2), [row(1, float("nan"), limit=1)])
    with pytest.raises(ValueError, match="actions with finite bounds"):
        SafeSet(*box(2, high=np.inf), [row(1, 1, limit=1)])
