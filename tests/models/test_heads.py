"""The dueling head: by hand, masks, what it makes identifiable."""

import pytest
import torch
from torchrl.modules import TanhNormal

from marl_td.models.heads import DuelingValue, draw, narrow


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


@pytest.mark.parametrize("shape", [(7, 3, 5), (1, 2), (600, 9)])
def test_a_draw_is_torchs_own(shape):
    """The same actions from the same random numbers, and the same random numbers afterwards."""
    torch.manual_seed(3)
    chance = torch.rand(shape).pow(4)
    chance /= chance.sum(-1, keepdim=True)
    state = torch.get_rng_state()
    expected = torch.multinomial(chance.flatten(0, -2), 1).reshape(shape[:-1])
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    assert torch.equal(draw(chance), expected)
    assert torch.equal(torch.get_rng_state(), after)


def test_what_has_no_chance_is_never_drawn():
    chance = torch.tensor([0.0, 0.5, 0.0, 0.5]).expand(20_000, 4)
    counts = draw(chance).bincount(minlength=4)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert abs(int(counts[1]) - 10_000) < 400


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
