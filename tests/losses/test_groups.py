"""Losses of groups with other names."""

import pytest
import torch
from small_ppo import small_loss
from small_qmix import make_batch, network

from marl_td.losses.q_mixing import QMixingLoss
from marl_td.models.mixers import SumMixer


def renamed(batch):
    """The same data of a group called hunters."""
    out = batch.clone()
    out.rename_key_("agents", "hunters")
    out["next"].rename_key_("agents", "hunters")
    return out


def test_a_group_of_another_name_learns_the_same_with_its_masks_and_deaths():
    torch.manual_seed(0)
    batch = make_batch(masked=True, mortal=True)
    ours, theirs = network(), network(group="hunters")
    theirs.load_state_dict(ours.state_dict())
    expected = QMixingLoss(ours, SumMixer(2))(batch)
    loss = QMixingLoss(theirs, SumMixer(2, local_key=("hunters", "chosen_action_value")))
    loss.set_group("hunters")
    data = renamed(batch)
    found = loss(data)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    assert torch.equal(data["hunters", "td_error"], batch["agents", "td_error"])
    assert loss.tensor_keys.reward == "reward"  # the team's


def test_a_mixer_of_another_group_is_named():
    loss = QMixingLoss(network(group="hunters"), SumMixer(2))
    loss.set_group("hunters")
    with pytest.raises(
        KeyError, match=r"reads \[\('agents', 'chosen_action_value'\)\]. Make it with `local_"
    ):
        loss(renamed(make_batch()))


def test_a_group_can_be_set_again():
    loss = small_loss()
    keys = loss.in_keys
    loss.set_group("hunters")
    loss.set_group("prey")
    assert {key[0] for key in loss.in_keys if isinstance(key, tuple)} == {"prey"}
    loss.set_group("agents")
    assert loss.in_keys == keys


def test_keys_that_were_pointed_elsewhere_stay():
    loss = small_loss()
    loss.set_keys(mask=("others", "mask"))
    loss.set_group("hunters")
    groups = {key[0] for key in loss.in_keys if isinstance(key, tuple)}
    assert groups == {"hunters", "others"}
    assert loss.tensor_keys.mask == ("others", "mask")
