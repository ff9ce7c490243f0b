"""The mathematics of roles: against torch.distributions, by hand, masks, order of agents, gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from marl_td.losses.functional.distributions import (
    gaussian_divergence,
    gaussian_entropy,
    gaussian_log_prob,
)
from marl_td.losses.functional.roles import (
    mean_over_alive,
    pairwise_log_likelihood,
    scale_pairs,
    specialisation_error,
)


def gaussian(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation."""
    return torch.randn(*shape), 0.1 + torch.rand(*shape)


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([(), (5,), (2, 3)]))
def test_gaussians_are_those_of_torch(seed, width, batch):
    torch.manual_seed(seed)
    ours, other = gaussian(*batch, width), gaussian(*batch, width)
    p, q = (Independent(Normal(*found), 1) for found in (ours, other))
    value = torch.randn(*batch, width)
    torch.testing.assert_close(gaussian_log_prob(value, *ours), p.log_prob(value))
    torch.testing.assert_close(gaussian_entropy(ours[1]), p.entropy())
    torch.testing.assert_close(gaussian_divergence(*ours, *other), kl_divergence(p, q))


def test_the_divergence_is_the_cross_entropy_less_the_entropy():
    """The paper's two ways to write identifiability: KL, and CE - H."""
    (mean, std), (other_mean, other_std) = gaussian(3), gaussian(3)
    draws = mean + std * torch.randn(200_000, 3)
    cross = -gaussian_log_prob(draws, other_mean, other_std).mean()
    expected = gaussian_divergence(mean, std, other_mean, other_std)
    torch.testing.assert_close(cross - gaussian_entropy(std), expected, rtol=0.02, atol=0.0)


def test_pairs_are_role_then_trajectory():
    role, (mean, std) = torch.randn(2, 3, 4), gaussian(2, 3, 4)
    found = pairwise_log_likelihood(role, mean, std)
    assert found.shape == (2, 3, 3)
    for i in range(3):
        for j in range(3):
            one = Independent(Normal(mean[:, j], std[:, j]), 1).log_prob(role[:, i])
            torch.testing.assert_close(found[:, i, j], one)


# ---------------------------------------------------------------- specialisation
LIKELY = torch.tensor([[9.0, -2.0, 0.25], [0.5, 9.0, -4.0], [-1.0, 3.0, 9.0]])
UNLIKE = torch.tensor([[7.0, 2.0, 1.0], [0.0, 7.0, 4.0], [2.0, 0.0, 7.0]])
"""The diagonals must have no part."""


def test_specialisation_of_two_by_hand():
    # ||D|| = 2; min(-2 + 2, 1) + min(0.5 + 0, 1) = 0.5; 2 pairs.
    found = specialisation_error(LIKELY[:2, :2], UNLIKE[:2, :2], 1.0)
    torch.testing.assert_close(found, torch.tensor((2.0 - 0.5) / 2))


def test_specialisation_of_three_by_hand():
    # ||D|| = sqrt(4 + 1 + 16 + 4) = 5; terms 0, 1 (of 1.25), 0.5, 0, 1, 1 (of 3); 6 pairs.
    found = specialisation_error(LIKELY, UNLIKE, 1.0)
    torch.testing.assert_close(found, torch.tensor((5.0 - 3.5) / 6))
    # A larger bound: 0, 1.25, 0.5, 0, 1, 3.
    found = specialisation_error(LIKELY, UNLIKE, 10.0)
    torch.testing.assert_close(found, torch.tensor((5.0 - 5.75) / 6))


def test_a_dead_agent_is_in_no_pair():
    alive = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    likely = LIKELY.expand(3, 3, 3).clone().requires_grad_()
    unlike = UNLIKE.expand(3, 3, 3).clone().requires_grad_()
    found = specialisation_error(likely, unlike, 1.0, alive)
    assert found.tolist() == [0.75, 0.0, 0.0]
    found.sum().backward()
    pair = alive.unsqueeze(-1) & alive.unsqueeze(-2)
    for gradient in (likely.grad, unlike.grad):
        assert gradient.isfinite().all()
        assert (gradient[~pair] == 0.0).all()
        assert (gradient[0, :2, :2] != 0.0).any()


def test_a_single_agent_has_no_pairs():
    likely, unlike = torch.randn(4, 1, 1, requires_grad=True), torch.rand(4, 1, 1)
    found = specialisation_error(scale_pairs(likely), scale_pairs(unlike), 1.0)
    assert found.tolist() == [0.0] * 4
    found.sum().backward()
    assert (likely.grad == 0.0).all()


def test_what_reaches_the_bound_wants_no_more():
    likely = torch.tensor([[0.0, 0.4], [1.2, 0.0]], requires_grad=True)
    specialisation_error(likely, torch.full((2, 2), 0.3), 1.0).backward()
    assert likely.grad.tolist() == [[0.0, -0.5], [0.0, 0.0]]


def test_scaled_pairs_by_hand_and_of_the_living():
    found = scale_pairs(LIKELY)
    assert (found[1, 2], found[0, 0]) == (0.0, 1.0)
    torch.testing.assert_close(found[0, 2], torch.tensor(4.25 / 13))
    alive = torch.tensor([False, True, True])
    found = scale_pairs(LIKELY, alive)
    assert (found[0] == 0.0).all() and (found[:, 0] == 0.0).all()
    torch.testing.assert_close(found[1:, 1:], (LIKELY[1:, 1:] + 4.0) / 13)


@pytest.mark.parametrize("alive", [None, torch.zeros(2, dtype=torch.bool)])
def test_equal_numbers_leave_gradients_finite(alive):
    value = torch.full((2, 2), 3.0, requires_grad=True)
    scaled = scale_pairs(value, alive)
    assert (scaled == 0.0).all()
    scaled.sum().backward()
    assert value.grad.isfinite().all()


@given(st.integers(0, 10_000), st.permutations(range(4)), st.booleans())
def test_agents_may_be_reordered(seed, order, scaled):
    torch.manual_seed(seed)
    role, (mean, std), unlike = torch.randn(3, 4, 2), gaussian(3, 4, 2), torch.rand(3, 4, 4)
    alive = torch.rand(3, 4) < 0.7

    def error(role, mean, std, unlike, alive):
        likely = pairwise_log_likelihood(role, mean, std)
        if scaled:
            likely, unlike = scale_pairs(likely, alive), scale_pairs(unlike, alive)
        return specialisation_error(likely, unlike, 1.0, alive)

    moved = [x[:, order] for x in (role, mean, std)]
    found = error(*moved, unlike[:, order][:, :, order], alive[:, order])
    torch.testing.assert_close(found, error(role, mean, std, unlike, alive))


def test_means_over_the_living():
    value = torch.tensor([[1.0, 3.0], [5.0, float("nan")], [2.0, 2.0]])
    alive = torch.tensor([[True, True], [True, False], [False, False]])
    assert mean_over_alive(value, alive).tolist() == [2.0, 5.0, 0.0]
    assert mean_over_alive(value[:1]).tolist() == [2.0]


# --------------------------------------------------------------------- messages
def test_shapes_that_do_not_fit_are_named():
    one, two = torch.ones(2, 3), torch.ones(2, 2)
    with pytest.raises(ValueError, match="`std` must have the shape of `mean`"):
        gaussian_log_prob(one, one, two)
    with pytest.raises(ValueError, match=r"`value` must be \[\*B, d\] with trailing sizes \(3\)"):
        gaussian_log_prob(two, one, one)
    with pytest.raises(ValueError, match="`other_std` must have the shape of `mean`"):
        gaussian_divergence(one, one, one, two)
    with pytest.raises(ValueError, match=r"`value` must be \[\*B, n_agents, n_agents\]"):
        scale_pairs(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"`alive` must be \[\*B, n_agents\] = \(3,\)"):
        specialisation_error(LIKELY, UNLIKE, 1.0, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="`dissimilarity` must have the shape"):
        specialisation_error(LIKELY, UNLIKE[:2], 1.0)
