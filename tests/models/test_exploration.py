"""Exploration: its scale, its bounds, its schedule, its checkpoint, its messages."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.models.exploration import Boltzmann, EpsilonGreedy, GaussianExploration

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


# ------------------------------------------------------------- epsilon-greedy
def greedy(eps_init=0.5, eps_end=0.1, annealing_steps=10, mask_key=None):
    return EpsilonGreedy(
        4,
        ("agents", "action"),
        mask_key,
        eps_init=eps_init,
        eps_end=eps_end,
        annealing_steps=annealing_steps,
    )


def test_epsilon_of_the_actions_are_uniform_each_agent_for_itself():
    action = noisy(greedy(), torch.zeros(20_000, 2, dtype=torch.long))
    share = torch.nn.functional.one_hot(action, 4).float().mean(0)
    expected = torch.tensor([0.5 + 0.5 / 4, 0.125, 0.125, 0.125]).expand(2, 4)
    torch.testing.assert_close(share, expected, atol=0.01, rtol=0.0)
    changed = (action != 0).float()
    assert torch.corrcoef(changed.T)[0, 1].abs() < 0.03


def test_random_actions_are_available_ones():
    batch = TensorDict(
        {
            "agents": {
                "action": torch.full((5_000, 2), 3),
                "action_mask": torch.tensor([True, False, False, True]).expand(5_000, 2, 4),
            }
        },
        [5_000],
    )
    module = greedy(1.0, 1.0, mask_key=("agents", "action_mask"))
    with set_exploration_type(ExplorationType.RANDOM):
        action = module(batch)["agents", "action"]
    assert set(action.unique().tolist()) == {0, 3}
    assert (action == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_evaluation_is_greedy():
    action = torch.zeros(500, 2, dtype=torch.long)
    assert torch.equal(noisy(greedy(1.0), action, ExplorationType.DETERMINISTIC), action)


def test_epsilon_falls_linearly_and_is_kept_in_checkpoints():
    module = greedy()
    module.step(5)
    assert module.eps.item() == pytest.approx(0.3)
    other = greedy()
    other.load_state_dict(module.state_dict())
    assert other.eps.item() == pytest.approx(0.3)
    module.step(50)
    assert module.eps.item() == pytest.approx(0.1)


@pytest.mark.parametrize(("init", "end"), [(0.1, 0.2), (1.1, 0.1), (0.5, -0.1)])
def test_epsilons_out_of_range_are_refused(init, end):
    with pytest.raises(ValueError, match="0 <= eps_end <= eps_init <= 1; got eps_init"):
        greedy(init, end)
    with pytest.raises(ValueError, match="annealing_steps must be at least 1 frame; got 0"):
        greedy(annealing_steps=0)


# ------------------------------------------------------------------ Boltzmann
def boltzmann(temperature_init=2.0, temperature_end=0.5, annealing_steps=10, mask=None):
    return Boltzmann(
        ("agents", "action_value"),
        ("agents", "action"),
        mask,
        temperature_init=temperature_init,
        temperature_end=temperature_end,
        annealing_steps=annealing_steps,
    )


def drawn(module, value, kind=ExplorationType.RANDOM, **entries):
    agents = {"action_value": value, "action": torch.full(value.shape[:-1], 7), **entries}
    with set_exploration_type(kind):
        return module(TensorDict({"agents": agents}, value.shape[:-2]))["agents", "action"]


def test_boltzmann_draws_actions_as_often_as_their_softmax_says():
    value = torch.tensor([[0.0, 2.0, 4.0], [6.0, 6.0, 0.0]]).expand(40_000, 2, 3)
    action = drawn(boltzmann(), value)
    share = torch.nn.functional.one_hot(action, 3).float().mean(0)
    torch.testing.assert_close(share, (value[0] / 2.0).softmax(-1), rtol=0.0, atol=0.01)


def test_boltzmann_never_draws_an_unavailable_action_and_not_in_evaluation():
    value = torch.tensor([[0.0, 50.0, 1.0]]).expand(500, 1, 3)
    mask = torch.tensor([[True, False, True]]).expand(500, 1, 3)
    action = drawn(boltzmann(mask=("agents", "action_mask")), value, action_mask=mask)
    assert set(action.unique().tolist()) == {0, 2}
    assert (drawn(boltzmann(), value, ExplorationType.DETERMINISTIC) == 7).all()


def test_boltzmann_survives_values_that_are_not_numbers():
    """They are left to the check of the collected batch, which names where they come from."""
    value = torch.full((20, 1, 3), float("nan"))
    assert drawn(boltzmann(), value).max() <= 2


def test_the_temperature_falls_by_a_constant_factor_and_stops_at_its_end():
    module = boltzmann()
    module.step(5)
    assert module.temperature.item() == pytest.approx(1.0)  # the geometric middle of 2 and 0.5
    module.step(100)
    assert module.temperature.item() == pytest.approx(0.5)
    other = boltzmann()
    other.load_state_dict(module.state_dict())
    assert other.temperature.item() == pytest.approx(0.5)


@pytest.mark.parametrize(("init", "end"), [(0.1, 0.5), (1.0, 0.0)])
def test_temperatures_out_of_range_are_named(init, end):
    message = f"temperature must fall: .*got temperature_init={init:g}, temperature_end={end:g}"
    with pytest.raises(ValueError, match=message):
        boltzmann(init, end)
