"""COMA's advantage and its policy with a floor: by hand, and what must hold for all values and policies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.losses.functional.counterfactual import (
    counterfactual_advantage,
    floored_log_probability,
)

SEEDS = st.integers(0, 2**31)


def random_policy(seed: int, epsilon: float):
    """Values, floored probabilities and availability ``[5, 3, 4]``, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 3, 4)
    value = 10.0 * torch.randn(shape, generator=generator, dtype=torch.double)
    logits = 5.0 * torch.randn(shape, generator=generator, dtype=torch.double)
    mask = torch.rand(shape, generator=generator) < 0.6
    mask[..., 0] = True
    return value, floored_log_probability(logits, mask, epsilon).exp(), mask


@given(SEEDS, st.floats(0.0, 1.0))
def test_the_mean_advantage_under_the_policy_is_0(seed, epsilon):
    value, probability, _ = random_policy(seed, epsilon)
    each = [
        counterfactual_advantage(value, probability, torch.full((5, 3), action))
        for action in range(4)
    ]
    mean = (torch.stack(each, -1) * probability).sum(-1)
    assert mean.abs().max() < 1e-12


@given(SEEDS, st.floats(0.0, 1.0))
def test_values_of_unavailable_actions_play_no_part(seed, epsilon):
    value, probability, mask = random_policy(seed, epsilon)
    other = torch.where(mask, value, 1e6)
    first = torch.zeros(5, 3, dtype=torch.long)
    found = [counterfactual_advantage(v, probability, first) for v in (value, other)]
    assert torch.equal(*found)


@given(SEEDS, st.floats(0.0, 1.0))
def test_every_available_action_keeps_its_share_and_no_other_gets_one(seed, epsilon):
    _, probability, mask = random_policy(seed, epsilon)
    share = epsilon / mask.sum(-1, keepdim=True).double()
    assert (probability[~mask] == 0).all()
    assert ((probability - share)[mask] > -1e-12).all()
    torch.testing.assert_close(probability.sum(-1), torch.ones(5, 3, dtype=torch.double))


def test_the_floor_by_hand():
    logits = torch.tensor([0.0, torch.tensor(3.0).log(), 7.0])
    mask = torch.tensor([True, True, False])
    found = floored_log_probability(logits, mask, 0.2).exp()
    torch.testing.assert_close(found, torch.tensor([0.8 * 0.25 + 0.1, 0.8 * 0.75 + 0.1, 0.0]))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_gradients_are_finite_for_certain_policies_and_where_nothing_is_available(epsilon):
    logits = torch.tensor([[1e3, -1e3, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    found = floored_log_probability(logits, mask, torch.tensor(epsilon))
    (found[0, :2].sum() + found.exp().sum()).backward()
    assert found.isfinite().all() and logits.grad.isfinite().all()
    assert (logits.grad[~mask] == 0).all()


def test_wrong_shapes_are_named():
    three = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"`probability` must have the shape of `action_value`"):
        counterfactual_advantage(three, torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"`action` must be \[\*B\]"):
        counterfactual_advantage(three, three, torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"`action_mask` must be \[\*B, n_actions\]"):
        floored_log_probability(three, torch.ones(2, 4, dtype=torch.bool), 0.1)
