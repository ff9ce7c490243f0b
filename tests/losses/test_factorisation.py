"""Attention over agents and duplex dueling: by hand, limits, what they can represent, messages."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.losses.functional.factorisation import attention_weight, mix_attention, mix_duplex
from marl_td.losses.functional.mixing import mix_sum

QTRAN = torch.tensor([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]])
seeds = st.integers(0, 10_000)


# -------------------------------------------------------------------- attention
def test_attention_by_hand():
    """Scores 2 ln 3 / sqrt(4) = ln 3 and 0: weights 3/4 and 1/4; a dead agent gets none."""
    log3 = torch.log(torch.tensor(3.0))
    query = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    key = torch.zeros(1, 2, 4)
    key[0, 0, 0] = 2.0 * log3
    torch.testing.assert_close(attention_weight(query, key), torch.tensor([[0.75, 0.25]]))
    dead = attention_weight(query, key, torch.tensor([False, True]))
    torch.testing.assert_close(dead, torch.tensor([[0.0, 1.0]]))
    nobody = attention_weight(query, key, torch.tensor([False, False]))
    torch.testing.assert_close(nobody, torch.tensor([[0.5, 0.5]]))


def test_attention_mixing_by_hand():
    """Heads 0.75 * 4 + 0.25 * 8 = 5 and 8, weights |-1| and |2|, constant -3."""
    attention = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    value = mix_attention(
        torch.tensor([4.0, 8.0]), attention, torch.tensor([-1.0, 2.0]), torch.tensor(-3.0)
    )
    torch.testing.assert_close(value, torch.tensor(18.0))


@given(seeds, st.permutations(range(4)))
def test_agents_with_their_keys_may_be_reordered(seed, order):
    torch.manual_seed(seed)
    value, query, key = torch.randn(5, 4), torch.randn(5, 2, 3), torch.randn(5, 2, 4, 3)
    weight, bias = torch.randn(5, 2), torch.randn(5)
    mixed = mix_attention(value, attention_weight(query, key), weight, bias)
    moved = attention_weight(query, key[:, :, order])
    torch.testing.assert_close(mix_attention(value[:, order], moved, weight, bias), mixed)


def test_equal_attention_is_a_scaled_sum():
    value, attention = torch.randn(6, 4), torch.full((6, 2, 4), 0.25)
    mixed = mix_attention(value, attention, torch.full((6, 2), 2.0), torch.ones(6))
    torch.testing.assert_close(mixed, mix_sum(value) + 1.0)


# ----------------------------------------------------------------------- duplex
def test_duplex_by_hand():
    """Q' = (2*1 + 1, 3*4 - 1), V' = (2*3 + 1, 11): advantages -4 and 0; 18 + 0.5 * -4."""
    value = mix_duplex(
        torch.tensor([1.0, 4.0]),
        torch.tensor([3.0, 4.0]),
        torch.tensor([2.0, 3.0]),
        torch.tensor([1.0, -1.0]),
        torch.tensor([0.5, 7.0]),
    )
    torch.testing.assert_close(value, torch.tensor(16.0))


@given(seeds)
def test_importance_one_is_the_sum_of_transformed_values(seed):
    """QPLEX with lambda 1 is VDN after its transform; so are the gradients."""
    torch.manual_seed(seed)
    local = torch.randn(5, 3, requires_grad=True)
    best = local.detach() + torch.rand(5, 3)
    weight, bias = torch.rand(5, 3), torch.randn(5, 3)
    mixed = mix_duplex(local, best, weight, bias, torch.ones(5, 3))
    expected = mix_sum(weight * local + bias)
    torch.testing.assert_close(mixed, expected)
    (found,) = torch.autograd.grad(mixed.sum(), local)
    torch.testing.assert_close(found, weight)


def test_any_table_with_the_right_best_action_is_represented():
    """By values that are best at (0, 0) there, and the importance that closes each gap."""
    own = torch.tensor([4.0, 3.0, 2.0])  # of both agents: advantages 0, -1, -2
    for a in range(3):
        for b in range(3):
            local = torch.stack([own[a], own[b]])
            gap, advantage = QTRAN[a, b] - 8.0, (local - 4.0).sum()
            importance = torch.ones(2) if gap == 0.0 else (gap / advantage).expand(2)
            assert (importance > 0).all()
            mixed = mix_duplex(
                local, torch.full((2,), 4.0), torch.ones(2), torch.zeros(2), importance
            )
            torch.testing.assert_close(mixed, QTRAN[a, b])


@pytest.mark.parametrize(("stop", "of_local"), [(True, 2.0), (False, 2.0 * 5.0)])
def test_the_advantages_carry_a_gradient_only_if_asked_to(stop, of_local):
    local = torch.tensor([1.0], requires_grad=True)
    best = torch.tensor([3.0], requires_grad=True)
    importance = torch.tensor([5.0], requires_grad=True)
    weight = torch.tensor([2.0], requires_grad=True)
    mix_duplex(local, best, weight, torch.zeros(1), importance, stop_gradient=stop).backward()
    assert local.grad.item() == of_local
    assert (best.grad is None) is stop
    assert importance.grad.item() == 2.0 * (1.0 - 3.0)


# --------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: attention_weight(torch.zeros(2, 3), torch.zeros(2, 4, 5)),
            r"`query` must be \[\*B, n_heads, d\] = \(2, 5\); got \(2, 3\)",
        ),
        (
            lambda: attention_weight(
                torch.zeros(2, 3), torch.zeros(2, 4, 3), torch.ones(3, dtype=torch.bool)
            ),
            r"`alive` must be \[\*B, n_agents\] = \(4\,\); got \(3,\)",
        ),
        (
            lambda: mix_attention(
                torch.zeros(3), torch.zeros(2, 4), torch.zeros(2), torch.zeros(())
            ),
            r"`attention` must be \[\*B, n_heads, n_agents\] = \(2, 3\); got \(2, 4\)",
        ),
        (
            lambda: mix_attention(
                torch.zeros(3), torch.zeros(2, 3), torch.zeros(2), torch.zeros(1)
            ),
            r"`bias` must be \[\*B\] = \(\); got \(1,\)",
        ),
        (
            lambda: mix_duplex(*[torch.zeros(3)] * 4, torch.zeros(3, 1)),
            "`importance` must have the shape of `local_value`.*Squeeze the trailing 1",
        ),
    ],
)
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
