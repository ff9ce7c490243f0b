"""Returns and advantages: by hand, by brute force, against TorchRL, at the two kinds of end."""

import pytest
import torch
from brute_force import lambda_returns
from hypothesis import given
from hypothesis import strategies as st
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from marl_td.losses.functional.returns import (
    gae,
    lambda_return,
    n_step_return,
    one_step_target,
)

FLAGS = {"reward", "next_value", "done", "terminated"}


def trajectory(seed: int, *shape: int) -> dict[str, torch.Tensor]:
    """Random steps; about a quarter end, half of those by termination."""
    generator = torch.Generator().manual_seed(seed)
    reward, value, next_value = torch.randn((3, *shape), generator=generator, dtype=torch.float64)
    done = torch.rand(shape, generator=generator) < 0.25
    terminated = done & (torch.rand(shape, generator=generator) < 0.5)
    return {
        "reward": reward,
        "value": value,
        "next_value": next_value,
        "done": done,
        "terminated": terminated,
    }


def test_one_step_target_by_hand():
    target = one_step_target(
        torch.tensor([1.0, 1.0]),
        torch.tensor([10.0, 10.0]),
        torch.tensor([False, True]),
        gamma=0.9,
    )
    assert target.tolist() == [10.0, 1.0]


def test_a_termination_cuts_infinite_values_too():
    target = one_step_target(
        torch.tensor([1.0]), torch.tensor([float("inf")]), torch.tensor([True]), gamma=0.9
    )
    assert target.item() == 1.0


def test_gae_by_hand():
    """Two steps, the second terminates: delta_1 = 2 - 4 = -2, delta_0 = 1 + 0.5 * 4 - 2 = 1."""
    column = {"time_dim": -1, "gamma": 0.5, "lmbda": 0.5}
    advantage, target = gae(
        torch.tensor([1.0, 2.0]),
        torch.tensor([2.0, 4.0]),
        torch.tensor([4.0, 100.0]),
        torch.tensor([False, True]),
        torch.tensor([False, True]),
        **column,
    )
    assert advantage.tolist() == [0.5, -2.0]
    assert target.tolist() == [2.5, 2.0]


@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 1), lmbda=st.floats(0, 1))
def test_gae_and_lambda_return_are_the_weighted_sum_of_n_step_returns(seed, gamma, lmbda):
    """In a trajectory v'_t = v_{t+1}; where it is cut v'_t is the reached state's value."""
    steps = trajectory(seed, 7)
    inside = torch.cat([steps["value"][1:], steps["next_value"][-1:]])
    steps["next_value"] = torch.where(steps["done"], steps["next_value"], inside)
    expected = lambda_returns(steps, gamma, lmbda)
    _, target = gae(**steps, gamma=gamma, lmbda=lmbda, time_dim=-1)
    torch.testing.assert_close(target, expected)
    without_value = {key: steps[key] for key in FLAGS}
    torch.testing.assert_close(lambda_return(**without_value, gamma=gamma, lmbda=lmbda), expected)


@given(seed=st.integers(0, 10_000), gamma=st.floats(0.1, 1), lmbda=st.floats(0.1, 1))
def test_gae_equals_torchrls(seed, gamma, lmbda):
    """TorchRL's cuts its geometric series at 1e-7 (and fails where that leaves nothing)."""
    steps = trajectory(seed, 3, 9, 2)
    advantage, target = gae(**steps, gamma=gamma, lmbda=lmbda)
    theirs, their_target = vec_generalized_advantage_estimate(
        gamma,
        lmbda,
        steps["value"],
        steps["next_value"],
        steps["reward"],
        steps["done"],
        steps["terminated"],
    )
    torch.testing.assert_close(advantage, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(target, their_target, rtol=1e-5, atol=1e-5)


def test_termination_never_bootstraps_and_truncation_always_does():
    """The reached state counts at a time limit and at the end of the batch, not at a termination."""
    steps = trajectory(0, 4)
    steps["done"] = torch.tensor([False, True, True, False])
    steps["terminated"] = torch.tensor([False, True, False, False])
    steps["next_value"].requires_grad_()
    without_value = {key: steps[key] for key in FLAGS}
    for target in (
        gae(**steps, gamma=0.9, lmbda=1.0, time_dim=-1)[1],
        lambda_return(**without_value, gamma=0.9, lmbda=1.0),
    ):
        (gradient,) = torch.autograd.grad(target.sum(), steps["next_value"])
        assert gradient[1] == 0.0
        torch.testing.assert_close(gradient[2:], torch.full((2,), 0.9, dtype=torch.float64))


def test_nothing_leaks_over_a_reset():
    """What comes after a done, of whatever kind, changes nothing before it."""
    steps = trajectory(1, 6)
    steps["done"] = torch.tensor([False, False, True, False, False, True])
    steps["terminated"] = torch.zeros(6, dtype=torch.bool)
    changed = {**steps, "reward": steps["reward"].clone(), "value": steps["value"].clone()}
    changed["reward"][3:] += 5.0
    changed["value"][3:] -= 2.0
    for ours, other in zip(
        gae(**steps, gamma=0.9, lmbda=0.8, time_dim=-1),
        gae(**changed, gamma=0.9, lmbda=0.8, time_dim=-1),
        strict=True,
    ):
        assert torch.equal(ours[:3], other[:3])


def test_lambda_limits():
    steps = trajectory(2, 5)
    without_value = {key: steps[key] for key in FLAGS}
    one_step = one_step_target(steps["reward"], steps["next_value"], steps["terminated"], gamma=0.7)
    torch.testing.assert_close(lambda_return(**without_value, gamma=0.7, lmbda=0.0), one_step)
    advantage, _ = gae(**steps, gamma=0.7, lmbda=0.0, time_dim=-1)
    torch.testing.assert_close(advantage, one_step - steps["value"])


@pytest.mark.parametrize("time_dim", [1, -2])
def test_agents_and_rows_do_not_mix(time_dim):
    steps = trajectory(3, 2, 5, 3)
    advantage, _ = gae(**steps, gamma=0.9, lmbda=0.9, time_dim=time_dim)
    one = {key: value[1, :, 2] for key, value in steps.items()}
    alone, _ = gae(**one, gamma=0.9, lmbda=0.9, time_dim=-1)
    torch.testing.assert_close(advantage[1, :, 2], alone)


def test_messages():
    steps = trajectory(0, 4)
    with pytest.raises(ValueError, match=r"`value` must have the shape of `reward`, \(4,\); got"):
        gae(**{**steps, "value": steps["value"].unsqueeze(-1)}, gamma=0.9, lmbda=0.9, time_dim=-1)
    with pytest.raises(ValueError, match=r"`lmbda` must lie in \[0, 1\]; got 1.5"):
        gae(**steps, gamma=0.9, lmbda=1.5, time_dim=-1)
    with pytest.raises(ValueError, match=r"`gamma` must lie in \[0, 1\]; got -0.1"):
        gae(**steps, gamma=-0.1, lmbda=0.5, time_dim=-1)
    without_value = {key: steps[key] for key in FLAGS}
    with pytest.raises(ValueError, match=r"`lmbda` must lie in \[0, 1\]; got -1"):
        lambda_return(**without_value, gamma=0.9, lmbda=-1)
    with pytest.raises(ValueError, match="`done` must have the shape of `reward`"):
        lambda_return(**{**without_value, "done": steps["done"][:2]}, gamma=0.9, lmbda=0.5)


# ------------------------------------------------------------------- n steps
def test_n_step_return_by_hand():
    """Two rewards and the value after them; a cut ends the sum early, a termination without a value."""
    reward = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    next_value = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    done = torch.tensor([False, True, False, True, False])
    terminated = torch.tensor([False, False, False, True, False])
    found = n_step_return(reward, next_value, done, terminated, gamma=0.5, n_steps=2)
    expected = [1.0 + 1.0 + 5.0, 2.0 + 10.0, 4.0 + 4.0, 8.0, 16.0 + 25.0]
    torch.testing.assert_close(found, torch.tensor(expected))


@given(st.integers(0, 1000), st.floats(0.1, 1.0), st.integers(1, 9))
def test_n_step_return_is_the_sum_it_is_defined_by(seed, gamma, n_steps):
    steps = trajectory(seed, 7)
    found = n_step_return(**{k: steps[k] for k in FLAGS}, gamma=gamma, n_steps=n_steps)
    for t in range(7):
        total = 0.0
        for k in range(t, min(t + n_steps, 7)):
            total += gamma ** (k - t) * steps["reward"][k]
            last = bool(steps["done"][k]) or k in (t + n_steps - 1, 6)
            if last:
                total += gamma ** (k - t + 1) * steps["next_value"][k] * ~steps["terminated"][k]
                break
        torch.testing.assert_close(found[t], torch.as_tensor(total))


def test_one_step_and_all_steps_are_the_ends_of_lambda_and_time_may_be_elsewhere():
    steps = trajectory(3, 2, 6, 4)
    given_steps = {k: steps[k] for k in FLAGS}
    for n_steps, lmbda in ((1, 0.0), (6, 1.0)):
        found = n_step_return(**given_steps, gamma=0.9, n_steps=n_steps, time_dim=-2)
        expected = lambda_return(**given_steps, gamma=0.9, lmbda=lmbda, time_dim=-2)
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="`n_steps` must be at least 1; got 0"):
        n_step_return(**given_steps, gamma=0.9, n_steps=0)
