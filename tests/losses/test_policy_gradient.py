"""PPO's clipped objectives: by hand, their gradients, and the messages."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.losses.functional.policy_gradient import (
    clipped_objective,
    clipped_value_error,
    explained_variance,
    regression_error,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "has_gradient"),
    [
        (1.0, 2.0, 2.0, True),
        (1.1, 2.0, 2.2, True),
        (1.5, 2.0, 2.4, False),  # clipped at 1.2: no more to gain
        (0.5, 2.0, 1.0, True),
        (1.5, -2.0, -3.0, True),  # too likely and bad: no clipping, back it goes
        (0.5, -2.0, -1.6, False),
    ],
)
def test_clipped_objective_by_hand(ratio, advantage, expected, has_gradient):
    log_prob = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    old = torch.zeros(1, dtype=torch.float64)
    advantage = torch.tensor([advantage], dtype=torch.float64)
    gain = clipped_objective(log_prob, old, advantage, clip_epsilon=0.2)
    torch.testing.assert_close(gain, torch.tensor([expected], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(gain.sum(), log_prob)
    slope = ratio * float(advantage) if has_gradient else 0.0
    torch.testing.assert_close(gradient, torch.tensor([slope], dtype=torch.float64))


@pytest.mark.parametrize("advantage", [-2.0, 0.0, 2.0])
def test_one_draw_that_became_likely_beyond_float_does_not_spoil_the_batch(advantage):
    log_prob = torch.tensor([200.0, math.log(1.1)], requires_grad=True)
    gain = clipped_objective(
        log_prob, torch.zeros(2), torch.tensor([advantage, 2.0]), clip_epsilon=0.2
    )
    expected = min(math.exp(20.0) * advantage, 1.2 * advantage)
    torch.testing.assert_close(gain, torch.tensor([expected, 2.2]))
    (gradient,) = torch.autograd.grad(gain.sum(), log_prob)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 2.2]))


@given(seed=st.integers(0, 1000), epsilon=st.floats(0.01, 0.99))
def test_the_objective_is_a_lower_bound_and_tight_at_the_old_policy(seed, epsilon):
    torch.manual_seed(seed)
    log_prob, old, advantage = torch.randn(3, 8, 2, dtype=torch.float64)
    gain = clipped_objective(log_prob, old, advantage, clip_epsilon=epsilon)
    assert (gain <= (log_prob - old).exp() * advantage + 1e-12).all()
    same = clipped_objective(old, old, advantage, clip_epsilon=epsilon)
    torch.testing.assert_close(same, advantage)


def test_huber_by_hand():
    """e^2 / 2 up to delta, delta (|e| - delta / 2) beyond; both meet with one slope."""
    error = torch.tensor([0.0, 1.0, -2.0, 3.0, -30.0])
    zero = torch.zeros(5)
    assert regression_error(error, zero, huber_delta=None).tolist() == [0, 0.5, 2, 4.5, 450]
    assert regression_error(error, zero, huber_delta=2.0).tolist() == [0, 0.5, 2, 4, 58]


@pytest.mark.parametrize(
    ("value", "old", "expected"),
    [
        (1.1, 1.0, 0.5 * 0.9**2),  # within the range: plain
        (
            1.5,
            1.0,
            0.5 * 0.8**2,
        ),  # moved too far towards the target: the clipped error, no gradient
        (0.5, 1.0, 0.5 * 1.5**2),  # moved away from it: the plain error
    ],
)
def test_clipped_value_error_by_hand(value, old, expected):
    numbers = [torch.tensor([x], dtype=torch.float64) for x in (value, old, 2.0)]
    error = clipped_value_error(*numbers, clip_epsilon=0.2, huber_delta=None)
    torch.testing.assert_close(error, torch.tensor([expected], dtype=torch.float64))


def test_no_clipping_is_the_plain_error():
    value, old, target = torch.randn(3, 6)
    error = clipped_value_error(value, old, target, clip_epsilon=None, huber_delta=1.0)
    assert torch.equal(error, regression_error(value, target, huber_delta=1.0))


def test_explained_variance():
    target = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert explained_variance(target, target).item() == 1.0
    assert explained_variance(torch.full_like(target, 2.5), target).item() == 0.0
    # A constant offset costs nothing, as in any explained variance; noise does.
    assert explained_variance(target + 7.0, target).item() == pytest.approx(1.0)
    assert explained_variance(-target, target).item() == pytest.approx(-3.0)


def test_explained_variance_of_masked_entries():
    target = torch.tensor([1.0, 2.0, 1000.0])
    value = torch.tensor([1.0, 2.0, -5.0])
    mask = torch.tensor([True, True, False])
    assert explained_variance(value, target, mask).item() == 1.0


def test_gradients():
    torch.manual_seed(0)
    log_prob, old, advantage, value, target = torch.randn(5, 6, dtype=torch.float64)

    def objective(x):
        return clipped_objective(x, old, advantage, clip_epsilon=0.2)

    def error(x):
        return clipped_value_error(x, old, target, clip_epsilon=0.2, huber_delta=0.7)

    assert torch.autograd.gradcheck(objective, log_prob.requires_grad_())
    assert torch.autograd.gradcheck(error, value.requires_grad_())


def test_messages():
    x = torch.zeros(3)
    with pytest.raises(ValueError, match=r"Squeeze the trailing 1 of `advantage`"):
        clipped_objective(x, x, x.unsqueeze(-1), clip_epsilon=0.2)
    with pytest.raises(ValueError, match=r"`clip_epsilon` must lie in \(0, 1\); got 1.0"):
        clipped_objective(x, x, x, clip_epsilon=1.0)
    with pytest.raises(ValueError, match=r"`huber_delta` must be above 0; got 0.0"):
        regression_error(x, x, huber_delta=0.0)
    with pytest.raises(ValueError, match=r"`clip_epsilon` must be above 0; got -1.0"):
        clipped_value_error(x, x, x, clip_epsilon=-1.0, huber_delta=None)
    with pytest.raises(ValueError, match="`old_value` must have the shape of `value`"):
        clipped_value_error(x, x[:2], x, clip_epsilon=0.2, huber_delta=None)
    with pytest.raises(ValueError, match="`value_target` must have the shape of `value`"):
        explained_variance(x, x[:2])
