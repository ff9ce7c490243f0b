"""Mixing functions and the double-Q value: hand numbers, monotonicity, individual-global-max."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.losses.functional.action_values import greedy_value
from marl_td.losses.functional.checks import check_exact_shape
from marl_td.losses.functional.mixing import mix_monotonic, mix_sum

BATCHES = ((), (4,), (2, 3))
seeds = st.integers(0, 10_000)


def weights(batch=(), n_agents=3, d_embed=5, scale=1.0):
    """Random mixing weights of every sign."""
    return (
        scale * torch.randn(*batch, n_agents, d_embed),
        scale * torch.randn(*batch, d_embed),
        scale * torch.randn(*batch, d_embed),
        scale * torch.randn(batch),
    )


def signed_mix(local_value, weight_1, bias_1, weight_2, bias_2):
    """The same network without the absolute values: not monotone."""
    hidden = torch.nn.functional.elu((local_value.unsqueeze(-2) @ weight_1).squeeze(-2) + bias_1)
    return (hidden * weight_2).sum(-1) + bias_2


def keeps_igm(mixer, action_value, mixing_weights) -> bool:
    """Whether the agents' own best actions reach the best joint value."""
    n_agents, n_actions = action_value.shape
    joint = torch.tensor(list(itertools.product(range(n_actions), repeat=n_agents)))
    local = action_value.expand(len(joint), -1, -1).gather(-1, joint.unsqueeze(-1)).squeeze(-1)
    expanded = [w.expand(len(joint), *w.shape) for w in mixing_weights]
    best = mixer(local, *expanded).max()
    greedy = mixer(action_value.max(-1).values, *mixing_weights)
    return bool(torch.isclose(greedy, best, rtol=1e-5, atol=1e-5))


def test_sum_by_hand():
    value = torch.tensor([[1.0, 2.0, -4.0], [0.5, 0.5, 0.5]])
    assert torch.equal(mix_sum(value), torch.tensor([-1.0, 1.5]))


def test_monotonic_by_hand():
    # Units: |1|*2 + |-2|*(-1) + 0.5 = 0.5 -> 0.5, and |-1|*2 + |0|*(-1) - 4 = -2 -> exp(-2) - 1.
    value = torch.tensor([2.0, -1.0])
    weight_1 = torch.tensor([[1.0, -1.0], [-2.0, 0.0]])
    bias_1 = torch.tensor([0.5, -4.0])
    weight_2 = torch.tensor([-3.0, 2.0])
    expected = 3.0 * 0.5 + 2.0 * (torch.tensor(-2.0).exp() - 1.0) - 10.0
    mixed = mix_monotonic(value, weight_1, bias_1, weight_2, torch.tensor(-10.0))
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_any_batch_prefix_mixes_each_entry_by_itself(batch):
    value = torch.randn(*batch, 3)
    given_weights = weights(batch)
    mixed = mix_monotonic(value, *given_weights)
    assert mixed.shape == mix_sum(value).shape == batch
    for index in itertools.product(*(range(size) for size in batch)):
        alone = mix_monotonic(value[index], *(w[index] for w in given_weights))
        torch.testing.assert_close(mixed[index], alone)


@given(seeds, st.integers(1, 5), st.sampled_from((0.1, 1.0, 30.0)))
def test_no_agent_can_lower_the_team_by_a_higher_value(seed, n_agents, scale):
    torch.manual_seed(seed)
    value = (scale * torch.randn(7, n_agents)).requires_grad_()
    mix_monotonic(value, *weights((7,), n_agents, scale=scale)).sum().backward()
    assert (value.grad >= 0).all()


@given(seeds)
def test_individual_global_max_holds_for_all_weights(seed):
    torch.manual_seed(seed)
    action_value = torch.randn(3, 4)
    assert keeps_igm(mix_monotonic, action_value, weights())
    assert keeps_igm(lambda value, *_: mix_sum(value), action_value, weights())


def test_a_mixer_without_absolute_values_is_caught():
    broken = [keeps_igm(signed_mix, torch.randn(3, 4), weights()) for _ in range(20)]
    assert not all(broken)


@given(seeds, st.permutations(range(4)))
def test_agents_with_their_weights_may_be_reordered(seed, order):
    torch.manual_seed(seed)
    value = torch.randn(6, 4)
    weight_1, *rest = weights((6,), 4)
    mixed = mix_monotonic(value, weight_1, *rest)
    torch.testing.assert_close(mix_monotonic(value[:, order], weight_1[:, order], *rest), mixed)
    torch.testing.assert_close(mix_sum(value[:, order]), mix_sum(value))


def test_gradients_are_those_of_the_formula():
    arguments = [torch.randn(2, 3), *weights((2,))]
    # Away from the kinks of the absolute values and of ELU.
    arguments = [a.double() + 0.1 * a.double().sign() for a in arguments]
    assert torch.autograd.gradcheck(mix_monotonic, [a.requires_grad_() for a in arguments])


@pytest.mark.parametrize(
    ("index", "shape", "message"),
    [
        (1, (2, 3, 4), r"`weight_1` must be \[\*B, n_agents, d_embed\] = \(2, 3, 5\)"),
        (1, (3, 5), r"`weight_1` must be .*; got \(3, 5\)"),
        (2, (5,), r"`bias_1` must be \[\*B, d_embed\] = \(2, 5\); got \(5,\)"),
        (3, (2, 5, 1), r"`weight_2` must be \[\*B, d_embed\] = \(2, 5\); got \(2, 5, 1\)"),
        (4, (2, 1), r"`bias_2` must be \[\*B\] = \(2,\); got \(2, 1\)"),
    ],
)
def test_wrong_shapes_are_named(index, shape, message):
    arguments = [torch.randn(2, 3), *weights((2,))]
    arguments[index] = torch.randn(shape)
    with pytest.raises(ValueError, match=message):
        mix_monotonic(*arguments)


def test_exact_shape_counts_the_batch():
    check_exact_shape("x", torch.zeros(2, 3), (2, 3), "[*B, n]")
    with pytest.raises(ValueError, match=r"`x` must be \[\*B, n\] = \(3,\); got \(2, 3\)"):
        check_exact_shape("x", torch.zeros(2, 3), (3,), "[*B, n]")


def test_double_q_selects_by_one_table_and_values_by_the_other():
    target = torch.tensor([[4.0, 9.0, 6.0], [1.0, 2.0, 3.0]])
    live = torch.tensor([[1.0, 2.0, 3.0], [5.0, 0.0, 0.0]])
    assert torch.equal(greedy_value(target, live), torch.tensor([6.0, 1.0]))
    assert torch.equal(greedy_value(target, target), torch.tensor([9.0, 3.0]))


def test_double_q_never_selects_an_unavailable_action():
    target = torch.tensor([4.0, 9.0, 6.0])
    live = torch.tensor([1.0, 2.0, 3.0])
    mask = torch.tensor([True, True, False])
    assert greedy_value(target, live, mask) == 9.0
    nothing = torch.zeros(3, dtype=torch.bool)
    assert greedy_value(target, live, nothing) == 4.0  # finite, for padding


def test_double_q_gives_no_gradient_to_what_selects():
    target = torch.randn(5, 3, requires_grad=True)
    live = torch.randn(5, 3, requires_grad=True)
    greedy_value(target, live).sum().backward()
    assert live.grad is None
    assert target.grad is not None
    assert target.grad.sum() == 5.0


def test_double_q_asks_for_equal_shapes():
    with pytest.raises(ValueError, match="`selecting_value` must have the shape of `action_value`"):
        greedy_value(torch.zeros(2, 3), torch.zeros(3))
