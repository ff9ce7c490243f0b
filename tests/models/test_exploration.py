"""Gaussian exploration: its scale, its bounds, its schedule, its checkpoint, its messages."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.models.exploration import GaussianExploration

LOW = torch.tensor([[-1.0, 0.0], [-1.0, -10.0]])
HIGH = torch.tensor([[1.0, 4.0], [3.0, 10.0]])


def explore(sigma_init=0.5, sigma_end=0.1, annealing_steps=10):
    return GaussianExploration(
        LOW,
        HIGH,
        ("agents", "action"),
        sigma_init=sigma_init,
        sigma_end=sigma_end,
        annealing_steps=annealing_steps,
    )


def noisy(module, action, kind=ExplorationType.RANDOM):
    batch = TensorDict({"agents": {"action": action.clone()}}, action.shape[:-2])
    with set_exploration_type(kind):
        return module(batch)["agents", "action"]


def middle(n):
    return (0.5 * (LOW + HIGH)).expand(n, 2, 2)


def test_noise_is_scaled_to_half_the_range_of_each_action():
    module = explore(sigma_init=0.1, sigma_end=0.1)
    difference = noisy(module, middle(20_000)) - middle(20_000)
    scale = 0.1 * 0.5 * (HIGH - LOW)
    assert torch.allclose(difference.std(0), scale, rtol=0.03)
    assert (difference.mean(0).abs() < 0.03 * scale).all()


def test_noisy_actions_stay_in_bounds():
    action = noisy(explore(sigma_init=5.0), middle(500))
    assert ((action >= LOW) & (action <= HIGH)).all()
    assert (action == LOW).any()
    assert (action == HIGH).any()


def test_evaluation_has_no_noise():
    assert torch.equal(noisy(explore(), middle(3), ExplorationType.DETERMINISTIC), middle(3))


def test_sigma_falls_linearly_with_frames_and_stops_at_its_end():
    module = explore()
    module.step(5)
    assert module.sigma.item() == pytest.approx(0.3)
    module.step(100)
    assert module.sigma.item() == pytest.approx(0.1)


def test_sigma_is_in_checkpoints():
    module, other = explore(), explore()
    module.step(5)
    other.load_state_dict(module.state_dict())
    assert other.sigma.item() == pytest.approx(0.3)
    assert set(module.state_dict()) == {"sigma"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_end": 0.6}, r"0 <= sigma_end <= sigma_init; got sigma_init=0.5, sigma_end=0.6"),
        ({"sigma_end": -0.1}, r"0 <= sigma_end <= sigma_init"),
        ({"annealing_steps": 0}, r"annealing_steps must be at least 1 frame; got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        explore(**options)
