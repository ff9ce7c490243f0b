"""Trust-region steps: divergences, curvature, conjugate gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, Normal, kl_divergence

from marl_td.losses.functional.distributions import categorical_divergence, gaussian_divergence
from marl_td.losses.functional.trust_region import (
    conjugate_gradient,
    hessian_product,
    trust_region_step,
)


# ------------------------------------------------------------ divergences
def test_divergences_are_torchs():
    old, new = torch.randn(5, 2, 4).log_softmax(-1), torch.randn(5, 2, 4).log_softmax(-1)
    expected = kl_divergence(Categorical(logits=old), Categorical(logits=new))
    torch.testing.assert_close(categorical_divergence(old, new), expected)
    m, n, s, t = (torch.randn(5, 2, 3).abs() + 0.1 for _ in range(4))
    expected = kl_divergence(Normal(m, s), Normal(n, t)).sum(-1)
    torch.testing.assert_close(gaussian_divergence(m, s, n, t), expected)
    assert categorical_divergence(old, old).abs().max() < 1e-6
    assert gaussian_divergence(m, s, m, s).abs().max() < 1e-6


def test_unavailable_actions_add_nothing_and_have_no_gradient():
    mask = torch.tensor([[True, True, False]])
    logits = torch.tensor([[0.2, 0.5, 3.0]], requires_grad=True)
    old = torch.tensor([[0.5, 0.5, 0.0]]).log()
    new = logits.masked_fill(~mask, float("-inf")).log_softmax(-1)
    found = categorical_divergence(old, new)
    expected = categorical_divergence(old[:, :2], logits[:, :2].log_softmax(-1))
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 2] == 0.0


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="`other_log_probs` must have the shape of `log_probs`"):
        categorical_divergence(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="`other_std` must have the shape of `mean`"):
        gaussian_divergence(*[torch.ones(2, 3)] * 3, torch.ones(3))


# -------------------------------------------------------------- curvature
def test_the_curvature_of_the_divergence_is_fishers_matrix():
    """Of a softmax over logits W x: mean over x of (diag(p) - p p') times x x', entry by entry."""
    weight = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(6, 2, dtype=torch.float64)
    log_probs = (x @ weight.T).log_softmax(-1)
    divergence = categorical_divergence(log_probs.detach(), log_probs).mean()
    product = hessian_product(divergence, [weight], lambda ts: ts[0].reshape(-1))
    found = torch.stack([product(row) for row in torch.eye(6, dtype=torch.float64)])
    p = log_probs.exp().detach()
    softmax = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    fisher = torch.einsum("bij,bk,bl->ikjl", softmax, x, x).reshape(6, 6) / len(x)
    torch.testing.assert_close(found, fisher)
    score = torch.eye(3, dtype=torch.float64) - p.unsqueeze(1)  # of each action
    scores = torch.einsum("bai,bk->baik", score, x).reshape(6, 3, 6)
    by_scores = torch.einsum("ba,bai,baj->ij", p, scores, scores) / len(x)
    torch.testing.assert_close(found, by_scores)


# ----------------------------------------------------- conjugate gradients
@given(d=st.integers(1, 8), seed=st.integers(0, 1000))
def test_a_quadratic_is_solved_in_as_many_steps_as_it_has_dimensions(d, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(d, dtype=torch.float64)
    target = torch.randn(d, generator=generator, dtype=torch.float64)
    found = conjugate_gradient(lambda v: matrix @ v, target, n_iters=d, tolerance=1e-24)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)
    more = conjugate_gradient(lambda v: matrix @ v, target, n_iters=d + 20, tolerance=1e-24)
    torch.testing.assert_close(more, found, rtol=1e-6, atol=1e-8)


def test_by_hand():
    """diag(1, 4) x = (1, 4): the first step is along (1, 4), by 17 / 65."""
    matrix, target = torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([1.0, 4.0])
    first = conjugate_gradient(lambda v: matrix @ v, target, n_iters=1)
    torch.testing.assert_close(first, target * 17 / 65)
    whole = conjugate_gradient(lambda v: matrix @ v, target, n_iters=2)
    torch.testing.assert_close(whole, torch.ones(2))
    zero = conjugate_gradient(lambda v: matrix @ v, torch.zeros(2))
    assert zero.tolist() == [0.0, 0.0]


def test_the_step_is_as_long_as_the_quadratic_model_allows():
    matrix = torch.diag(torch.tensor([1.0, 4.0]))
    direction = torch.tensor([3.0, -1.0])
    step = trust_region_step(direction, matrix @ direction, 0.01)
    torch.testing.assert_close(0.5 * step @ matrix @ step, torch.tensor(0.01))
    assert step[0] / step[1] == -3.0
    assert trust_region_step(torch.zeros(2), torch.zeros(2), 0.01).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_there_is_no_step_along_numbers_that_are_not_finite(bad):
    fine, broken = torch.tensor([3.0, 1.0]), torch.tensor([3.0, bad])
    for direction, image in [(broken, fine), (fine, broken), (broken, broken)]:
        assert trust_region_step(direction, image, 0.01).tolist() == [0.0, 0.0]
