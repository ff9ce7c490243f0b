"""Joint actions and straight-through discrete actions: hand values, gradients, invariants, messages."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.losses.functional.deterministic import (
    gumbel_noise,
    joint_action_rows,
    straight_through,
)
from marl_td.losses.functional.distributions import categorical_entropy


def actions(*sizes, batch=(4,)):
    return [torch.randn(*batch, n_agents, d_action) for n_agents, d_action in sizes]


# ------------------------------------------------------------------ joint actions
def test_rows_without_own_action_are_all_the_joint_action():
    first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0]])
    rows = joint_action_rows([first, second], 0)
    assert rows.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    assert joint_action_rows([first, second], 1).tolist() == [[1, 2, 3, 4, 5]]


def test_own_action_replaces_one_agents_action_in_its_own_row_only():
    taken = [torch.tensor([[9.0]]), torch.tensor([[1.0], [2.0], [3.0]])]
    rows = joint_action_rows(taken, 1, torch.tensor([[10.0], [20.0], [30.0]]))
    assert rows.tolist() == [[9, 10, 2, 3], [9, 1, 20, 3], [9, 1, 2, 30]]


@given(n_agents=st.integers(1, 4), d_action=st.integers(1, 3), position=st.integers(0, 1))
def test_any_batch_prefix_gives_the_rows_of_each_entry(n_agents, d_action, position):
    sizes = [(2, 1), (2, 1)]
    sizes[position] = (n_agents, d_action)
    taken = actions(*sizes, batch=(3, 2))
    own = torch.randn(3, 2, n_agents, d_action)
    rows = joint_action_rows(taken, position, own)
    for i in range(3):
        for j in range(2):
            entry = joint_action_rows([a[i, j] for a in taken], position, own[i, j])
            assert torch.equal(rows[i, j], entry)


@given(n_agents=st.integers(1, 5), seed=st.integers(0, 99))
def test_permuting_agents_permutes_rows_and_their_entries(n_agents, seed):
    generator = torch.Generator().manual_seed(seed)
    taken, own = torch.randn(2, 3, n_agents, 2, generator=generator)
    order = torch.randperm(n_agents, generator=generator)
    rows = joint_action_rows([taken], 0, own).unflatten(-1, (n_agents, 2))
    permuted = joint_action_rows([taken[:, order]], 0, own[:, order]).unflatten(-1, (n_agents, 2))
    assert torch.equal(permuted, rows[:, order][:, :, order])


def test_gradient_of_a_row_reaches_only_that_agents_own_action():
    own = torch.randn(5, 3, 2, requires_grad=True)
    rows = joint_action_rows(actions((3, 2), batch=(5,)), 0, own)
    rows[:, 1].sum().backward()
    assert torch.equal(own.grad[:, 1], torch.ones(5, 2))
    assert not own.grad[:, [0, 2]].any()


def test_own_action_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"`own_action` must have the shape of `action`"):
        joint_action_rows(actions((3, 2)), 0, torch.zeros(4, 2, 2))


# ---------------------------------------------------------------- straight-through
def test_forward_is_exactly_one_hot_at_the_largest_perturbed_logit():
    logits, noise = torch.randn(2, 50, 6)
    action = straight_through(logits, None, noise, temperature=0.3)
    assert set(action.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(action.argmax(-1), (logits + noise).argmax(-1))
    assert torch.equal(action.sum(-1), torch.ones(50))


@given(temperature=st.floats(0.2, 5.0))
def test_gradient_is_that_of_the_relaxed_action(temperature):
    logits, noise, weight = torch.randn(3, 8, 4, dtype=torch.float64)
    hard, soft = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    (straight_through(hard, None, noise, temperature=temperature) * weight).sum().backward()
    (torch.softmax((soft + noise) / temperature, -1) * weight).sum().backward()
    assert torch.allclose(hard.grad, soft.grad)


def test_with_gumbel_noise_actions_are_samples_of_the_softmax():
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(40_000, 3)
    share = straight_through(logits, None, gumbel_noise(logits)).mean(0)
    # Standard error of a share is below 0.0025.
    assert torch.allclose(share, torch.softmax(logits[0], -1), atol=0.01)


def test_unavailable_actions_are_never_drawn_and_get_no_gradient():
    logits = torch.tensor([5.0, 0.0, 1.0]).repeat(500, 1).requires_grad_()
    mask = torch.tensor([False, True, True]).expand(500, 3)
    action = straight_through(logits, mask, gumbel_noise(logits))
    assert not action[:, 0].any()
    (action * torch.randn(500, 3)).sum().backward()
    assert not logits.grad[:, 0].any()
    assert logits.grad[:, 1:].any()


def test_gumbel_noise_is_finite_with_the_known_mean_and_variance():
    noise = gumbel_noise(torch.zeros(200_000, dtype=torch.float64))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.57722, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match=r"`temperature` must be above 0; got"):
        straight_through(torch.zeros(3), temperature=temperature)


def test_noise_and_mask_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`noise` must have the shape of `logits`"):
        straight_through(torch.zeros(2, 3), None, torch.zeros(3))
    with pytest.raises(ValueError, match=r"`action_mask`"):
        straight_through(torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool))


# ------------------------------------------------------------------------- entropy
def test_entropy_of_equal_logits_is_the_log_of_the_number_of_available_actions():
    mask = torch.tensor([[True, True, True, True], [True, False, True, False]])
    entropy = categorical_entropy(torch.zeros(2, 4), mask)
    assert entropy.tolist() == pytest.approx([math.log(4), math.log(2)])


def test_entropy_of_a_single_available_action_is_zero():
    mask = torch.tensor([False, True, False])
    assert categorical_entropy(torch.tensor([3.0, -2.0, 1.0]), mask).item() == 0.0


def test_entropy_equals_torch_distributions():
    logits = torch.randn(7, 5)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(categorical_entropy(logits), expected)


def test_compiles_whole():
    def both(taken, own, logits, mask, noise):
        action = straight_through(logits, mask, noise, temperature=0.5)
        return joint_action_rows([taken, action], 0, own)

    logits, noise = torch.randn(2, 4, 2, 3)
    mask = torch.rand(4, 2, 3) > 0.3
    mask[..., 0] = True
    arguments = (torch.randn(4, 2, 2), torch.randn(4, 2, 2), logits, mask, noise)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(*arguments), both(*arguments))
