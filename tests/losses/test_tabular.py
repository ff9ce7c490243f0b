"""Rules of tabular learners: updates by hand, limits, masks, batches, messages."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.losses.functional.deterministic import gumbel_of_uniform
from marl_td.losses.functional.policy_hill_climbing import (
    average_policy_update,
    boltzmann_action,
    policy_action,
    wolf_update,
)
from marl_td.losses.functional.tabular import (
    fmq_evaluation,
    hysteretic_update,
    keep_greedy,
    maximum_count_update,
    maximum_update,
    q_update,
    random_greedy,
    recursive_fmq_evaluation,
    recursive_frequency_update,
)

seeds = st.integers(0, 10_000)


def random_case(seed, *batch):
    """Tables ``[*batch, 3, 4]``, actions that include -1, targets."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(*batch, 3, 4, generator=generator)
    action = torch.randint(-1, 4, (*batch, 3), generator=generator)
    return table, action, torch.randn(*batch, 3, generator=generator)


# ---------------------------------------------------------------------- by hand
def test_q_learning_moves_the_chosen_entry_only():
    """One agent: 2 + 0.1 (12 - 2); the other 4 + 0.1 (0 - 4)."""
    value = torch.tensor([[2.0, 5.0], [3.0, 4.0]])
    new = q_update(value, torch.tensor([0, 1]), torch.tensor([12.0, 0.0]), alpha=0.1)
    torch.testing.assert_close(new, torch.tensor([[3.0, 5.0], [3.0, 3.6]]))


def test_hysteretic_q_learning_has_two_rates():
    value = torch.tensor([[2.0, 5.0], [3.0, 4.0]])
    target = torch.tensor([12.0, 0.0])
    new = hysteretic_update(value, torch.tensor([0, 1]), target, alpha=0.1, beta=0.01)
    torch.testing.assert_close(new, torch.tensor([[3.0, 5.0], [3.0, 3.96]]))


def test_the_maximum_only_rises():
    best = torch.tensor([[2.0, 5.0], [3.0, 4.0]])
    new = maximum_update(best, torch.tensor([0, 1]), torch.tensor([12.0, 0.0]))
    assert new.tolist() == [[12.0, 5.0], [3.0, 4.0]]


def test_the_convention_keeps_an_action_until_another_is_strictly_better():
    value = torch.tensor([[5.0, 5.0, 1.0], [5.0, 6.0, 6.0], [5.0, 6.0, 6.0]])
    noise = torch.tensor([[0.0, 9.0, 0.0], [9.0, 1.0, 2.0], [9.0, 2.0, 1.0]])
    greedy = keep_greedy(torch.tensor([0, 0, 0]), value, noise)
    assert greedy.tolist() == [0, 2, 1]
    mask = torch.tensor([[True, True, True], [True, False, True], [True, False, False]])
    assert keep_greedy(torch.tensor([0, 0, 0]), value, noise, mask).tolist() == [0, 2, 0]


def test_counting_of_the_maximum():
    """The same maximum again, a lower reward, a new maximum; then FMQ's evaluation."""
    table = torch.tensor([[10.0, 0.0]] * 3)
    seen, taken = torch.tensor([[2.0, 0.0]] * 3), torch.tensor([[4.0, 0.0]] * 3)
    reward = torch.tensor([10.0, 3.0, 12.0])
    action = torch.zeros(3, dtype=torch.int64)
    best, seen, taken = maximum_count_update(table, seen, taken, action, reward)
    assert best[:, 0].tolist() == [10.0, 10.0, 12.0]
    assert seen[:, 0].tolist() == [3.0, 2.0, 1.0]
    assert taken.tolist() == [[5.0, 0.0]] * 3
    evaluation = fmq_evaluation(torch.ones(3, 2), best, seen, taken, weight=10.0)
    # 1 + 10 * 3/5 * 10; 1 + 10 * 2/5 * 10; 1 + 10 * 1/5 * 12; and Q of what was never taken
    torch.testing.assert_close(evaluation[:, 0], torch.tensor([61.0, 41.0, 25.0]))
    assert evaluation[:, 1].tolist() == [1.0] * 3


def test_recursive_frequency_and_evaluation():
    """New maximum: 1; the same: 0.5 + 0.1 * 0.5; lower: 0.9 * 0.5."""
    best, frequency = torch.full((3, 2), 10.0), torch.full((3, 2), 0.5)
    action, reward = torch.ones(3, dtype=torch.int64), torch.tensor([12.0, 10.0, 3.0])
    best, frequency = recursive_frequency_update(
        best, frequency, action, reward, alpha_frequency=0.1
    )
    assert best.tolist() == [[10.0, 12.0], [10.0, 10.0], [10.0, 10.0]]
    expected = torch.tensor([[0.5, 1.0], [0.5, 0.55], [0.5, 0.45]])
    torch.testing.assert_close(frequency, expected)
    evaluation = recursive_fmq_evaluation(torch.full((3, 2), 2.0), best, frequency)
    torch.testing.assert_close(evaluation[:, 1], torch.tensor([12.0, 6.4, 5.6]))


def test_wolf_steps_by_hand():
    """Policy (0.5, 0.3, 0.2), mean uniform, three actions: delta / 2 from each that is not greedy."""
    policy = torch.tensor([[0.5, 0.3, 0.2]] * 2)
    mean = torch.full((2, 3), 1 / 3)
    value = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 3.0]])  # the first wins, the second loses
    new = wolf_update(policy, mean, value, torch.tensor([0, 2]), delta_win=0.02, delta_lose=0.8)
    # winning: 0.01 each; losing: 0.4 each, but no more than there is (0.3)
    torch.testing.assert_close(new, torch.tensor([[0.52, 0.29, 0.19], [0.1, 0.0, 0.9]]))
    average = average_policy_update(mean, policy, torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(average[0], policy[0])
    torch.testing.assert_close(average[1], mean[1] + (policy[1] - mean[1]) / 4)


def test_wolf_divides_by_the_available_actions():
    policy = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    value, greedy = torch.zeros(2, 3), torch.tensor([1, 0])
    new = wolf_update(policy, policy, value, greedy, mask, delta_win=0.1, delta_lose=0.2)
    torch.testing.assert_close(new, torch.tensor([[0.3, 0.7, 0.0], [1.0, 0.0, 0.0]]))


# ----------------------------------------------------------------------- limits
@given(seeds)
def test_limits(seed):
    value, action, target = random_case(seed, 5)
    same = hysteretic_update(value, action, target, alpha=0.3, beta=0.3)
    torch.testing.assert_close(same, q_update(value, action, target, alpha=0.3))
    optimistic = hysteretic_update(value, action, target, alpha=1.0, beta=0.0)
    torch.testing.assert_close(optimistic, maximum_update(value, action, target))
    best = value + 1.0
    one, none = torch.ones_like(value), torch.zeros_like(value)
    assert torch.equal(recursive_fmq_evaluation(value, best, one), best)
    assert torch.equal(recursive_fmq_evaluation(value, best, none), value)


@given(seeds)
def test_batches_and_agents_are_independent_and_the_absent_do_not_learn(seed):
    value, action, target = random_case(seed, 5)
    for rule in (
        lambda *a: q_update(*a, alpha=0.5),
        lambda *a: hysteretic_update(*a, alpha=0.5, beta=0.1),
        maximum_update,
        lambda q, *a: recursive_frequency_update(q, torch.ones_like(q), *a, alpha_frequency=0.1)[1],
        lambda q, *a: maximum_count_update(q, torch.ones_like(q), torch.ones_like(q), *a)[2],
    ):
        new = rule(value, action, target)
        assert torch.equal(rule(value[2], action[2], target[2]), new[2])
        alone = rule(value[:, 1:2], action[:, 1:2], target[:, 1:2])  # N = 1 is plain Q-learning
        assert torch.equal(alone, new[:, 1:2])
        changed = (new != rule(value, torch.full_like(action, -1), target)).any(-1)
        assert not changed[action == -1].any()


@given(seeds)
def test_wolf_keeps_probabilities(seed):
    torch.manual_seed(seed)
    policy, mean = torch.rand(6, 4).softmax(-1), torch.rand(6, 4).softmax(-1)
    value = torch.randn(6, 4)
    new = wolf_update(policy, mean, value, value.argmax(-1), delta_win=0.1, delta_lose=0.9)
    torch.testing.assert_close(new.sum(-1), torch.ones(6))
    assert (new >= 0.0).all()
    best = value.argmax(-1, keepdim=True)
    assert (new.gather(-1, best) > policy.gather(-1, best)).all()


# ---------------------------------------------------------------------- drawing
def test_boltzmann_draws_the_softmax_and_never_what_is_unavailable():
    value = torch.tensor([1.0, 2.0, 0.5]).expand(40_000, 3)
    mask = torch.tensor([True, True, False]).expand(40_000, 3)
    gumbel = gumbel_of_uniform(torch.rand(40_000, 3, generator=torch.Generator().manual_seed(0)))
    action = boltzmann_action(value, gumbel, 2.0, mask)
    share = torch.bincount(action, minlength=3) / 40_000
    expected = torch.tensor([0.5, 1.0]).softmax(-1)
    torch.testing.assert_close(share[:2], expected, rtol=0.0, atol=0.01)
    assert share[2] == 0.0
    drawn = policy_action(torch.tensor([0.0, 0.25, 0.75]).expand(40_000, 3), gumbel)
    share = torch.bincount(drawn, minlength=3) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.0, 0.25, 0.75]), rtol=0.0, atol=0.01)


def test_noise_is_finite_at_both_ends():
    assert gumbel_of_uniform(torch.tensor([0.0, 1.0 - 2**-24])).isfinite().all()


def test_ties_are_broken_by_the_noise_among_available_actions():
    value = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    noise = torch.tensor([[0.3, 0.2, 0.9], [0.9, 0.5, 0.1]])
    assert random_greedy(value, noise).tolist() == [2, 1]
    mask = torch.tensor([[True, True, False], [True, False, True]])
    assert random_greedy(value, noise, mask).tolist() == [0, 2]


# --------------------------------------------------------------------- messages
def test_messages():
    table, action, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(2)
    with pytest.raises(ValueError, match="`alpha` must lie in"):
        q_update(table, action, target, alpha=1.5)
    with pytest.raises(ValueError, match="`alpha_frequency` must lie in"):
        recursive_frequency_update(table, table, action, target, alpha_frequency=-0.1)
    with pytest.raises(ValueError, match=r"`action` must be \[\*B, n_agents\] = \(2,\)"):
        maximum_update(table, action[:1], target)
    with pytest.raises(ValueError, match=r"`value_target` must be \[\*B, n_agents\]"):
        q_update(table, action, target.unsqueeze(-1), alpha=0.1)
    with pytest.raises(ValueError, match="`temperature` must be above 0; got 0"):
        boltzmann_action(table, table, 0.0)
    with pytest.raises(ValueError, match="`delta_lose` must be at least `delta_win`"):
        wolf_update(table, table, table, action, delta_win=0.2, delta_lose=0.1)
