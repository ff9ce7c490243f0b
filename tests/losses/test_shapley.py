"""Shapley values and SHAQ: closed forms, brute force, limits, what the prediction is and is not."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_qmix import D_STATE, make_batch, network, small_loss

from marl_td.losses.functional.mixing import mix_monotonic, monotonic_rows
from marl_td.losses.functional.shapley import (
    all_orders,
    predecessor_mean,
    scaled_values,
    shapley_value,
)
from marl_td.losses.q_mixing import QMixingLoss
from marl_td.losses.targets import TargetUpdater
from marl_td.models.mixers import ShapleyMixer, SumMixer

seeds = st.integers(0, 10_000)


# --------------------------------------------------------------- Shapley values
def test_the_two_player_example():
    """v(A) = 100, v(B) = 50, v(AB) = 200: A gets (100 + 150) / 2, B the rest."""
    value = torch.tensor([0.0, 100.0, 50.0, 200.0])
    assert shapley_value(value).tolist() == [125.0, 75.0]


@given(seeds, st.integers(1, 4))
def test_shapley_values_are_the_mean_contribution_over_all_orders(seed, n_agents):
    torch.manual_seed(seed)
    value = torch.randn(2, 2**n_agents, dtype=torch.float64)
    expected = torch.zeros(2, n_agents, dtype=torch.float64)
    orders = list(itertools.permutations(range(n_agents)))
    for order in orders:
        members = 0
        for agent in order:
            joined = members | 1 << agent
            expected[:, agent] += (value[:, joined] - value[:, members]) / len(orders)
            members = joined
    found = shapley_value(value)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), value[:, -1] - value[:, 0])  # efficiency


def test_a_player_who_adds_nothing_gets_nothing_and_equal_ones_the_same():
    """Three players, the worth is the number of the first two that take part, squared."""
    worth = torch.tensor([float(bin(c & 0b011).count("1") ** 2) for c in range(8)])
    assert shapley_value(worth).tolist() == [2.0, 2.0, 0.0]


# ----------------------------------------------------------------- predecessors
@given(seeds, st.sampled_from((None, (True, False, True, True))))
def test_predecessors_by_brute_force(seed, living):
    torch.manual_seed(seed)
    value, order = torch.randn(3, 4), torch.rand(3, 5, 4).argsort(-1)
    alive = None if living is None else torch.tensor(living).expand(3, 4)
    found = predecessor_mean(value, order, alive)
    for row, draw, agent in itertools.product(range(3), range(5), range(4)):
        joined = order[row, draw].tolist()
        before = [j for j in joined[: joined.index(agent)] if living is None or living[j]]
        expected = value[row, before].mean() if before else torch.tensor(0.0)
        torch.testing.assert_close(found[row, draw, agent], expected)


def test_only_actions_that_are_not_greedy_are_scaled():
    local, best = torch.tensor([2.0, -3.0, 1.0]), torch.tensor([2.0, 5.0, 1.0])
    weight = torch.tensor([4.0, 5.0, 6.0])
    assert scaled_values(local, best, weight).tolist() == [2.0, -15.0, 1.0]


def test_rows_share_the_weights_of_the_monotone_network():
    rows = torch.randn(4, 6, 3)
    given_weights = (torch.randn(4, 3, 5), torch.randn(4, 5), torch.randn(4, 5), torch.randn(4))
    found = monotonic_rows(rows, *given_weights)
    for row in range(6):
        torch.testing.assert_close(found[:, row], mix_monotonic(rows[:, row], *given_weights))


# ------------------------------------------------------------------------ mixer
def test_the_weights_are_the_mean_over_orders_of_the_networks_size():
    mixer = ShapleyMixer(3, D_STATE)
    value, state = torch.randn(5, 3), torch.randn(5, D_STATE)
    found = mixer.coalition_weight(value, state)
    expected = torch.ones(5, 3)
    for order in itertools.permutations(range(3)):
        for place, agent in enumerate(order):
            before = value[:, order[:place]].mean(-1) if place else torch.zeros(5)
            pair = torch.stack([before, value[:, agent]], -1)
            expected[:, agent] += mixer.contribution.mix(pair, state).abs() / 6
    torch.testing.assert_close(found, expected)
    assert (found >= 1.0).all()


def test_drawn_orders_approach_all_of_them():
    every, drawn = ShapleyMixer(3, D_STATE), ShapleyMixer(3, D_STATE, n_orders=5)
    assert every.orders is not None
    assert drawn.orders is None
    drawn.load_state_dict(every.state_dict())
    value, state = torch.randn(1, 3), torch.randn(1, D_STATE)
    rows = [x.expand(20_000, -1) for x in (value, state)]
    estimate = drawn.coalition_weight(*rows)
    assert estimate.std(0).max() > 0.0
    expected = every.coalition_weight(value, state)[0]
    torch.testing.assert_close(estimate.mean(0), expected, rtol=0.01, atol=0.01)


@given(seeds, st.permutations(range(3)))
def test_agents_may_be_reordered(seed, order):
    torch.manual_seed(seed)
    mixer = ShapleyMixer(3, D_STATE)
    value, best, state = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, D_STATE)
    moved = mixer.mix(value[:, order], best[:, order], state)
    torch.testing.assert_close(moved, mixer.mix(value, best, state))


def test_greedy_joint_actions_are_worth_the_sum():
    value = torch.randn(6, 3)
    mixed = ShapleyMixer(3, D_STATE).mix(value, value, torch.randn(6, D_STATE))
    torch.testing.assert_close(mixed, value.sum(-1))


def test_a_dead_agent_is_in_no_coalition():
    mixer = ShapleyMixer(3, D_STATE, alive_key=("agents", "mask"))
    value, state = torch.randn(4, 3), torch.randn(4, D_STATE)
    value[:, 1] = 0.0
    alive = torch.tensor([True, False, True]).expand(4, 3)
    found = mixer.coalition_weight(value, state, alive)
    pair = ShapleyMixer(2, D_STATE)
    pair.load_state_dict(mixer.state_dict())
    expected = pair.coalition_weight(value[:, [0, 2]], state)
    torch.testing.assert_close(found[:, [0, 2]], expected)


# ----------------------------------------------------------------------- limits
def test_with_alpha_one_it_is_vdn_step_for_step():
    """Losses and parameters are equal bit for bit over Adam steps with target updates."""
    vdn = small_loss("sum", n_agents=3)
    shaq = QMixingLoss(network(3), ShapleyMixer(3, D_STATE, alpha=1.0), target_mixer=SumMixer(3))
    shaq.network.load_state_dict(vdn.network.state_dict())
    shaq.target_network.load_state_dict(vdn.target_network.state_dict())
    adams = [torch.optim.Adam(loss.network.parameters(), lr=1e-2) for loss in (vdn, shaq)]
    updaters = [TargetUpdater(loss.target_pairs(), tau=0.3) for loss in (vdn, shaq)]
    for _ in range(4):
        batch = make_batch((16,), 3, masked=True)
        values = []
        for loss, adam, updater in zip((vdn, shaq), adams, updaters, strict=True):
            out = loss(batch.clone())
            adam.zero_grad()
            out["loss_value"].backward()
            adam.step()
            updater.step()
            values.append(out["loss_value"])
        assert torch.equal(*values)
    for one, other in zip(vdn.network.parameters(), shaq.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_scaled_prediction_does_not_keep_the_best_joint_action():
    """A value just below the best one, scaled, lies above it: acting must use the agents' own values."""
    mixer, state = ShapleyMixer(1, D_STATE, alpha=2.0), torch.zeros(1, D_STATE)
    best, close = torch.tensor([[1.0]]), torch.tensor([[0.9]])
    assert mixer.mix(close, best, state) > mixer.mix(best, best, state)


# --------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapley_value(torch.zeros(4, 3)), r"must be \[\*B, 2\^N\] .* got \(4, 3\)"),
        (lambda: shapley_value(torch.zeros(1)), r"with N >= 1 agents; got \(1,\)"),
        (
            lambda: predecessor_mean(torch.zeros(2, 4), all_orders(3).expand(2, 6, 3)),
            r"`local_value` must be \[\*B, n_agents\] = \(2, 3\); got \(2, 4\)",
        ),
        (
            lambda: scaled_values(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2)),
            "`best_value` must have the shape of `local_value`",
        ),
        (lambda: ShapleyMixer(2, 3, n_orders=0), "n_orders must be at least 1; got 0"),
        (lambda: ShapleyMixer(2, 3, alpha=0.5), "alpha must be at least 1; got 0.5"),
        (
            lambda: monotonic_rows(
                torch.zeros(2, 6, 3), torch.zeros(2, 4, 5), *[torch.zeros(2, 5)] * 2, torch.zeros(2)
            ),
            r"`weight_1` must be \[\*B, d, d_embed\] = \(2, 3, 5\); got \(2, 4, 5\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
