"""The dueling head: by hand, masks, what it makes identifiable."""

import torch

from marl_td.models.heads import DuelingValue


def test_dueling_by_hand():
    """V = 10, advantages centred on their mean 2."""
    out = DuelingValue()(torch.tensor([[10.0, 1.0, 2.0, 3.0]]))
    torch.testing.assert_close(out, torch.tensor([[9.0, 10.0, 11.0]]))


def test_dueling_centres_on_the_available_actions_only():
    mask = torch.tensor([[True, False, True]])
    out = DuelingValue()(torch.tensor([[10.0, 1.0, 50.0, 3.0]]), mask)
    torch.testing.assert_close(out[mask], torch.tensor([9.0, 11.0]))
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert DuelingValue()(torch.ones(1, 4), nothing).isfinite().all()


def test_the_mean_value_is_the_state_value_whatever_the_advantages():
    raw = torch.randn(4, 2, 6)
    out = DuelingValue()(raw)
    torch.testing.assert_close(out.mean(-1), raw[..., 0])
    shifted = torch.cat([raw[..., :1], raw[..., 1:] + 3.0], -1)
    torch.testing.assert_close(DuelingValue()(shifted), out)
