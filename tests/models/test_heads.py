"""The dueling head: by hand, masks, what it makes identifiable."""

import pytest
import torch
from torchrl.modules import TanhNormal

from marl_td.models.heads import DuelingValue, narrow


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], 1.0),
        ([[1.0, 2.0], [1.0, 2.0]], [1.0, 2.0]),
        ([[1.0, 1.0], [2.0, 2.0]], [[1.0, 1.0], [2.0, 2.0]]),
    ],
    ids=["all alike", "by action", "by agent"],
)
def test_narrow_drops_only_what_is_constant(bound, expected):
    assert torch.equal(narrow(torch.tensor(bound)), torch.tensor(expected))


def test_a_narrow_bound_gives_the_same_distribution():
    low, high = torch.tensor([[-1.0, -2.0]] * 3), torch.tensor([[3.0, 2.0]] * 3)
    loc, scale, action = torch.randn(4, 3, 2), torch.rand(4, 3, 2) + 0.1, torch.rand(4, 3, 2)
    wide = TanhNormal(loc, scale, low=low, high=high).log_prob(action)
    assert torch.equal(
        wide, TanhNormal(loc, scale, low=narrow(low), high=narrow(high)).log_prob(action)
    )


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
