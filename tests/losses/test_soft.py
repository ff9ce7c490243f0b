"""The functions of soft actor-critic: densities that integrate to one, expectations by hand, n steps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.modules import TanhNormal

from marl_td.losses.functional.returns import n_step_return
from marl_td.losses.functional.soft import (
    categorical_sample,
    normal_sample,
    soft_state_value,
    temperature_error,
)
from marl_td.losses.functional.transitions import n_step_transitions


# ------------------------------------------------------------------------ continuous
def test_the_density_is_torchrls_and_stays_finite_where_tanh_is_flat():
    loc, scale, noise = torch.randn(50, 3), torch.rand(50, 3) + 0.2, torch.randn(50, 3)
    sample = normal_sample(loc, scale, noise, squash=True)
    expected = TanhNormal(loc, scale).log_prob(sample.action)
    torch.testing.assert_close(sample.log_prob, expected, rtol=1e-4, atol=1e-4)
    far = torch.full((1, 1), 40.0, requires_grad=True)
    log_prob = normal_sample(far, torch.ones(1, 1), torch.zeros(1, 1), squash=True).log_prob
    # log(1 - tanh(40)^2) is log 4 - 80, which 1 - 1.0 would not know
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - math.log(4) + 80)
    log_prob.backward()
    assert far.grad.item() == pytest.approx(2.0)


@pytest.mark.parametrize("squash", [True, False])
def test_the_density_integrates_to_one(squash):
    loc, scale = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    noise = torch.linspace(-9, 9, 20001, dtype=torch.float64).unsqueeze(-1)
    same = [x.expand_as(noise) for x in (loc, scale)]
    sample = normal_sample(*same, noise, squash=squash)
    total = torch.trapezoid(sample.log_prob.exp(), sample.action.squeeze(-1))
    assert total.item() == pytest.approx(1.0, abs=1e-6)


def test_actions_are_reparametrised_and_bounded():
    loc = torch.zeros(4, 2, requires_grad=True)
    sample = normal_sample(loc, torch.ones(4, 2), torch.randn(4, 2) * 10, squash=True)
    assert sample.action.abs().max() <= 1.0
    sample.action.sum().backward()
    torch.testing.assert_close(loc.grad, (1 - sample.action.detach() ** 2))
    with pytest.raises(ValueError, match="`noise` must have the shape of `loc`"):
        normal_sample(loc, torch.ones(4, 2), torch.randn(4, 1), squash=True)


# -------------------------------------------------------------------------- discrete
def test_gumbel_draws_follow_the_policy():
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(20_000, 4)
    mask = torch.tensor([True, True, False, True])
    noise = -torch.log(-torch.log(torch.rand(20_000, 4)))
    sample = categorical_sample(logits, mask.expand_as(logits), noise)
    expected = torch.tensor([0.0, 1.0, -torch.inf, 3.0]).softmax(-1)
    torch.testing.assert_close(sample.prob[0], expected)
    assert (sample.action.mean(0) - expected).abs().max() < 0.015
    entropy = -(expected[mask] * expected[mask].log()).sum()
    torch.testing.assert_close(sample.log_prob[0], -entropy)


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_the_best_policy_is_the_softmax_and_its_value_the_logsumexp(seed, n_actions):
    """max over pi of sum pi (Q - alpha log pi) is alpha logsumexp(Q / alpha), at pi = softmax(Q / alpha)."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(n_actions, generator=generator)
    alpha = torch.rand((), generator=generator) + 0.1

    def value(logits):
        sample = categorical_sample(logits, None, torch.zeros(n_actions))
        return soft_state_value(q, sample, -alpha * sample.log_prob)

    best = alpha * (q / alpha).logsumexp(-1)
    torch.testing.assert_close(value(q / alpha), best, rtol=1e-4, atol=1e-4)
    for _ in range(5):
        assert value(torch.randn(n_actions, generator=generator)) <= best + 1e-5


def test_shapes_are_checked():
    sample = categorical_sample(torch.zeros(3, 2), None, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="`least`"):
        soft_state_value(torch.zeros(3), sample, torch.zeros(3))
    with pytest.raises(ValueError, match="`bonus`"):
        soft_state_value(torch.zeros(3, 2), sample, torch.zeros(3, 1))


def test_a_temperature_is_pulled_towards_the_target():
    log_alpha = torch.zeros(2, requires_grad=True)
    log_prob = torch.tensor([[-3.0, -1.0]])  # entropies 3 and 1, target 2
    temperature_error(log_alpha, log_prob, 2.0).sum().backward()
    assert log_alpha.grad.tolist() == [1.0, -1.0]  # descent lowers the first, raises the second


# --------------------------------------------------------------------------- n steps
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_transitions_are_the_n_step_return(seed, n_steps, length):
    """With whatever values: the same targets as computed over the sequence."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, length, 2)
    reward, value = (torch.randn(shape, generator=generator) for _ in range(2))
    done = torch.rand(shape[:-1], generator=generator) < 0.3
    dead = torch.rand(shape, generator=generator) < 0.3
    found = n_step_transitions(reward, dead, done, gamma=0.9, n_steps=n_steps)
    reached = value.gather(1, found.last.unsqueeze(-1).expand(shape))
    kept = torch.where(found.terminated, 0.0, reached)
    expected = n_step_return(
        reward,
        value,
        done.unsqueeze(-1).expand(shape),
        dead,
        gamma=0.9,
        n_steps=n_steps,
        time_dim=-2,
    )
    torch.testing.assert_close(found.reward + found.discount.unsqueeze(-1) * kept, expected)


def test_an_agents_rewards_end_with_its_own_termination():
    reward = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    dead = torch.tensor([[False, False], [True, False], [False, False]])
    found = n_step_transitions(reward, dead, torch.zeros(3).bool(), gamma=1.0, n_steps=3)
    assert found.reward[0].tolist() == [2.0, 3.0]
    assert found.terminated[0].tolist() == [True, False]
    assert found.last.tolist() == [2, 2, 2]


def test_wrong_steps_are_refused():
    x, end = torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool)
    with pytest.raises(ValueError, match="`n_steps` must be at least 1; got 0"):
        n_step_transitions(x, end.unsqueeze(-1), end, gamma=1.0, n_steps=0)
    with pytest.raises(ValueError, match="`done`"):
        n_step_transitions(x, end.unsqueeze(-1), end.unsqueeze(-1), gamma=1.0, n_steps=1)
