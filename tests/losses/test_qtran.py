"""QTRAN: its conditions by hand, counterfactuals against single evaluations, masks, gradients, messages."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_qmix import N_ACTIONS, loss_of, make_batch, network

from marl_td.losses.functional.action_values import one_hot_action
from marl_td.losses.functional.transformation import (
    below_zero_error,
    counterfactual_error,
    transformation_gap,
)
from marl_td.losses.qtran import QtranLoss
from marl_td.models.joint_value import CounterfactualValue, JointActionValue, state_value


# ------------------------------------------------------------------- conditions
def test_gap_and_its_part_below_zero_by_hand():
    gap = transformation_gap(*torch.tensor([[5.0, 1.0], [3.0, 6.0], [1.0, 2.0]]))
    assert gap.tolist() == [3.0, -3.0]
    assert below_zero_error(gap).tolist() == [0.0, 9.0]


# Q_1 = (1, 4), Q_2 = (2, 0), u = (0, 1): sum 1, V = 1. Gaps of agent 1: 1 + 0 - 5 + 1 and 4 + 0 - 1 + 1;
# of agent 2: 2 + 1 - 3 + 1 and 0 + 1 - 5 + 1. The smallest: -3 and -3; without the second action: -3 and 1.
LOCAL = torch.tensor([1.0, 0.0])
VALUES = torch.tensor([[1.0, 4.0], [2.0, 0.0]])
OTHERS = torch.tensor([[5.0, 1.0], [3.0, 5.0]])
ONE = torch.tensor(1.0)


def test_counterfactual_error_by_hand_with_masks():
    assert counterfactual_error(LOCAL, VALUES, OTHERS, ONE).item() == 9.0
    mask = torch.tensor([[True, True], [True, False]])
    assert counterfactual_error(LOCAL, VALUES, OTHERS, ONE, mask).item() == (9.0 + 1.0) / 2
    alive = torch.tensor([False, True])
    assert counterfactual_error(LOCAL, VALUES, OTHERS, ONE, mask, alive).item() == 1.0
    nobody = torch.zeros(2, dtype=torch.bool)
    assert counterfactual_error(LOCAL, VALUES, OTHERS, ONE, None, nobody).item() == 0.0


def test_an_agent_without_actions_leaves_gradients_finite():
    """As in padding: nothing is available."""
    values = VALUES.clone().requires_grad_()
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    counterfactual_error(LOCAL, values, OTHERS, ONE, nothing).backward()
    assert values.grad.isfinite().all()


@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_agents_may_be_reordered(seed, order):
    torch.manual_seed(seed)
    local, values, others = torch.randn(4, 3), torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    found = counterfactual_error(local, values, others, torch.ones(4))
    moved = counterfactual_error(local[:, order], values[:, order], others[:, order], torch.ones(4))
    torch.testing.assert_close(moved, found)


# ------------------------------------------------------------------ joint value
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_counterfactuals_are_the_values_of_changed_joint_actions(batch):
    joint = JointActionValue(n_actions=4, d_state=2, d_feature=3, d_hidden=8)
    feature, state = torch.randn(*batch, 3, 3), torch.randn(*batch, 2)
    action = torch.randint(4, (*batch, 3))
    found = joint.counterfactual(feature, one_hot_action(action, 4), state)
    assert found.shape == (*batch, 3, 4)
    for agent in range(3):
        for other in range(4):
            changed = action.clone()
            changed[..., agent] = other
            value = joint.value(feature, one_hot_action(changed, 4), state)
            torch.testing.assert_close(found[..., agent, other], value)


def test_the_joint_value_knows_who_does_what_but_not_in_which_order():
    joint = JointActionValue(n_actions=4, d_state=2, d_feature=3, d_hidden=8)
    feature, state = torch.randn(6, 3, 3), torch.randn(6, 2)
    rows, order = one_hot_action(torch.randint(4, (6, 3)), 4), [2, 0, 1]
    value = joint.value(feature, rows, state)
    torch.testing.assert_close(joint.value(feature[:, order], rows[:, order], state), value)
    assert not torch.allclose(joint.value(feature, rows[:, order], state), value)


def test_counterfactuals_own_no_parameters():
    joint = JointActionValue(n_actions=4, d_state=2, d_feature=3)
    assert not list(CounterfactualValue(joint).parameters())


# ------------------------------------------------------------------------- loss
@pytest.mark.parametrize("name", ["qtran_base", "qtran_alt"])
def test_the_terms_of_the_loss(name):
    loss, batch = loss_of(name, mortal=False, opt_coef=2.0, nopt_coef=0.5), make_batch()
    key = loss.tensor_keys.action_value
    values = loss.network(batch.copy())[key]
    greedy = batch.clone()
    greedy["agents", "action"] = values.argmax(-1)
    with torch.no_grad():
        optimal = (loss.team_value(greedy) - loss.joint_value(greedy)).square()
        gap = loss.team_value(batch) - loss.joint_value(batch)
        nonoptimal = gap.clamp(max=0.0).square()
        if name == "qtran_alt":
            smallest = torch.full((16, 2), float("inf"))
            for agent in range(2):
                for other in range(N_ACTIONS):
                    changed = batch.clone()
                    changed["agents", "action"][:, agent] = other
                    gap = loss.team_value(changed) - loss.joint_value(changed)
                    smallest[:, agent] = torch.minimum(smallest[:, agent], gap)
            nonoptimal = smallest.square().mean(-1)
    out = loss(batch)
    torch.testing.assert_close(out["optimal_error"], optimal.mean())
    torch.testing.assert_close(out["nonoptimal_error"], nonoptimal.mean())
    torch.testing.assert_close(out["loss_value"], (2.0 * optimal + 0.5 * nonoptimal).mean())


@pytest.mark.parametrize("double", [True, False])
def test_the_joint_value_learns_the_targets_of_the_agents_greedy_actions(double):
    loss, batch = loss_of("qtran_base", mortal=False, double_q=double), make_batch()
    key, following = loss.tensor_keys.action_value, batch["next"]
    with torch.no_grad():
        chooser = loss.network if double else loss.target_network
        action = chooser(following.copy())[key].argmax(-1)
        feature = loss.target_feature_network(following.copy())["agents", "joint_feature"]
        inputs = loss._joint_inputs(following, feature, action, N_ACTIONS)
        next_value = loss._joint_value(loss.target_joint, inputs)
        goes_on = ~following["terminated"].squeeze(-1)
        target = following["reward"].squeeze(-1) + loss.gamma * goes_on * next_value
        value = loss.joint_value(batch)
    out = loss(batch)
    torch.testing.assert_close(out["loss_joint"], (value - target).square().mean())
    torch.testing.assert_close(out["td_error"], (value - target).abs().mean())


# --------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: QtranLoss(*[network()] * 4, nopt_coeff=-1.0),
            "`nopt_coeff` must be at least 0; got -1.0",
        ),
        (
            lambda: transformation_gap(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2)),
            "`joint_value` must have the shape of `sum_value`.*Squeeze the trailing 1",
        ),
        (
            lambda: counterfactual_error(LOCAL[:1], VALUES, OTHERS, ONE),
            r"`local_value` must be \[\*B, n_agents\] = \(2,\); got \(1,\)",
        ),
        (
            lambda: counterfactual_error(LOCAL, VALUES, OTHERS, torch.ones(2)),
            r"`state_value` must be \[\*B\] = \(\); got \(2,\)",
        ),
        (lambda: JointActionValue(3, 0, 4), "d_state must be at least 1; got 0"),
        (lambda: JointActionValue(3, 2, 0), "d_feature must be at least 1; got 0"),
        (lambda: state_value(2, state_norm="x"), "one of none, layer; got 'x'"),
        (
            lambda: JointActionValue(3, 2, 4).value(
                torch.zeros(2, 5), torch.zeros(2, 3), torch.zeros(2)
            ),
            r"`feature` must be .* with trailing sizes \(4\); got \(2, 5\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
