"""CW- and OW-QMIX: weights by hand, targets from the unrestricted value, the limit of equal weights."""

import pytest
import torch
from small_qmix import loss_of, make_batch, network

from marl_td.losses.functional.weighting import central_weight, optimistic_weight
from marl_td.losses.weighted_q_mixing import WeightedQMixingLoss
from marl_td.models.mixers import SumMixer

NAMES = ("cw_qmix", "ow_qmix")


# --------------------------------------------------------------------- weights
def test_optimistic_weights_by_hand():
    value, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])
    weight = optimistic_weight(value, target, alpha=0.25)
    assert weight.tolist() == [1.0, 0.25, 0.25]


def test_central_weights_by_hand():
    """Greedy; better than the greedy one's value; neither, twice."""
    greedy = torch.tensor([True, False, False, False])
    target, best = torch.tensor([0.0, 3.0, 2.0, 1.0]), torch.full((4,), 2.0)
    weight = central_weight(greedy, target, best, alpha=0.25)
    assert weight.tolist() == [1.0, 1.0, 0.25, 0.25]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimistic_weight(torch.zeros(2), torch.zeros(2), alpha=1.5), "`alpha` must lie"),
        (lambda: optimistic_weight(torch.zeros(2), torch.zeros(2, 1), alpha=0.5), "Squeeze"),
        (
            lambda: central_weight(*[torch.zeros(2)] * 3, alpha=-0.1),
            r"`alpha` must lie in \[0, 1\]; got -0.1",
        ),
        (
            lambda: central_weight(torch.zeros(2, 1), *[torch.zeros(2)] * 2, alpha=0.1),
            "`value_target` must have the shape of `is_greedy`",
        ),
        (
            lambda: WeightedQMixingLoss(network(), *[SumMixer(2)] * 3, weighting="x"),
            "`weighting` must be one of central, optimistic; got 'x'",
        ),
        (
            lambda: WeightedQMixingLoss(network(), *[SumMixer(2)] * 3, alpha=2.0),
            r"`alpha` must lie in \[0, 1\]; got 2.0",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------ loss
def parts(loss, batch):
    """Q_tot, Q*, and the regression target computed from the target networks by hand."""
    key = loss.tensor_keys.action_value
    following = batch["next"]
    with torch.no_grad():
        choosing = loss.network(following.copy())[key]
        evaluated = loss.target_central_network(following.copy())[key]
        action = choosing.argmax(-1)
        next_value = loss._mix(loss.target_central_mixer, following, evaluated, action)
        alive = ~batch["next", "terminated"].squeeze(-1)
        target = batch["next", "reward"].squeeze(-1) + loss.gamma * alive * next_value
        return loss.team_value(batch), loss.joint_value(batch), target


@pytest.mark.parametrize("name", NAMES)
def test_both_values_learn_the_unrestricted_target_with_these_weights(name):
    loss, batch = loss_of(name, mortal=False), make_batch()
    value, central, target = parts(loss, batch)
    if name == "ow_qmix":
        weight = torch.where(value < target, 1.0, 0.1)
    else:
        key = loss.tensor_keys.action_value
        now = loss.target_central_network(batch.copy())[key]
        greedy = loss.network(batch.copy())[key].argmax(-1)
        best = loss._mix(loss.target_central_mixer, batch, now, greedy)
        is_greedy = (greedy == batch["agents", "action"]).all(-1)
        assert 0 < is_greedy.sum() < 16
        weight = torch.where(is_greedy | (target > best), 1.0, 0.1)
    assert 0 < (weight == 1.0).sum() < 16
    out = loss(batch)
    torch.testing.assert_close(out["loss_value"], (weight * (value - target).square()).mean())
    torch.testing.assert_close(out["loss_central"], (central - target).square().mean())
    torch.testing.assert_close(out["full_weight"], (weight == 1.0).float().mean())
    torch.testing.assert_close(out["td_error"], (value - target).abs().mean())


@pytest.mark.parametrize("name", NAMES)
def test_equal_weights_leave_plain_errors(name):
    loss, batch = loss_of(name, mortal=False), make_batch()
    loss.alpha = 1.0
    value, _, target = parts(loss, batch)
    torch.testing.assert_close(loss(batch)["loss_value"], (value - target).square().mean())


def test_a_dead_agents_action_does_not_make_a_joint_action_other_than_greedy():
    loss, batch = loss_of("cw_qmix"), make_batch()
    batch["agents", "mask"] = torch.tensor([True, False]).expand(16, 2)
    greedy = loss.network(batch.copy())["agents", "action_value"].argmax(-1)
    batch["agents", "action"] = torch.stack([greedy[:, 0], (greedy[:, 1] + 1) % 3], -1)
    assert loss(batch)["full_weight"] == 1.0


def test_each_named_loss_moves_its_own_targets():
    loss = loss_of("ow_qmix")
    sources = [source for source, _ in loss.target_pairs()]
    assert sources == [loss.network, loss.central_network, loss.central_mixer]
