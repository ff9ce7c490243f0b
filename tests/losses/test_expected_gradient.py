"""Discrete actors that climb the exact mean of the critic over their own actions."""

import pytest
import torch
from small_ddpg import D_OBS, make_actor, make_batch, make_losses, make_matd3
from tensordict.nn import TensorDictModule

from marl_td.losses.ddpg import MADDPGLoss

TEAMS = {"first": 2, "second": 1}


def loss_and_batch(mask=None):
    torch.manual_seed(0)
    loss = make_losses(TEAMS, n_actions=3, discrete_gradient="expected")["first"]
    batch = make_batch(TEAMS, "first", n_actions=3)
    if mask is not None:
        batch["first", "action_mask"] = batch["joint", "first", "action_mask"] = mask
    return loss, batch


def values_by_hand(loss, batch):
    """Q_i of every own action, by a copy of the batch in which agent i has taken it."""
    values = torch.zeros(8, 2, 3)
    for agent in range(2):
        for action in range(3):
            played = batch.clone()
            for place in (played["first"], played["joint", "first"]):
                place["action"][:, agent] = action
            rows = loss._rows(loss._taken(played))
            values[:, agent, action] = loss._action_value(loss.critic, played, rows)[:, agent]
    return values.detach()


def test_value_and_gradient_are_those_of_the_mean_over_own_actions():
    loss, batch = loss_and_batch()
    values = values_by_hand(loss, batch)
    _, logits = loss.actor(batch)
    expected = -(logits.softmax(-1) * values).sum(-1).mean()
    parameters = list(loss.actor.parameters())
    wanted = torch.autograd.grad(expected, parameters)
    found = loss.compute(batch)["loss_actor"]
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, parameters), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_it_draws_nothing_from_the_sample():
    loss, batch = loss_and_batch()
    first, second = (loss.compute(batch)["loss_actor"] for _ in range(2))
    assert torch.equal(first, second)
    loss.expected = False
    first, second = (loss.compute(batch)["loss_actor"] for _ in range(2))
    assert not torch.equal(first, second)


def test_unavailable_actions_count_for_nothing():
    mask = torch.ones(8, 2, 3, dtype=torch.bool)
    mask[:, 0, 1] = False
    loss, batch = loss_and_batch(mask)
    values = values_by_hand(loss, batch)
    _, logits = loss.actor(batch)
    probs = logits.masked_fill(~mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(loss.compute(batch)["loss_actor"], -(probs * values).sum(-1).mean())


def test_the_dead_teach_nothing():
    loss, batch = loss_and_batch()
    alive = torch.ones(8, 2, dtype=torch.bool)
    alive[:, 0] = False
    for entries in (batch, batch["next"]):
        entries["first", "mask"] = alive
    loss.compute(batch)["loss_actor"].backward()
    for parameter in loss.actor.parameters():
        assert not parameter.grad[0].any()
        assert parameter.grad[1].any()


def test_continuous_actions_know_no_other_gradient():
    torch.manual_seed(0)
    loss = make_losses({"agents": 2}, discrete_gradient="expected")["agents"]
    batch = make_batch()
    found = loss.compute(batch)["loss_actor"]
    loss.expected = loss.actor.discrete
    assert not loss.expected
    torch.testing.assert_close(found, loss.compute(batch)["loss_actor"])


@pytest.mark.parametrize("gradient", ["straight_through", "expected"])
def test_matd3_takes_the_first_critics_mean(gradient):
    torch.manual_seed(0)
    loss = make_matd3(n_actions=3, discrete_gradient=gradient)
    batch = make_batch(n_actions=3)
    loss.compute(batch)["loss_actor"].backward()
    assert all(p.grad is not None and p.grad.any() for p in loss.actor.parameters())
    assert all(p.grad is None for p in loss.critic.parameters())


@pytest.mark.parametrize(("gradient", "better"), [("straight_through", False), ("expected", True)])
def test_only_the_mean_is_not_led_astray_by_slopes_between_actions(gradient, better):
    """Action 1 is worth 0.5 and action 0 is worth -0.5, but at both the slope leads to action 0.

    With x = u_1 - u_0, -1 or 1 for a one-hot action, Q = x / 2 + x (1 - x^2), whose slope is -1.5 there.
    """

    def q(joint_action):
        x = joint_action[..., 1:2] - joint_action[..., :1]
        return x / 2 + x * (1 - x.square())

    critic = TensorDictModule(q, [("agents", "joint_action")], [("agents", "chosen_action_value")])
    torch.manual_seed(0)
    actor = make_actor(n_agents=1, n_actions=2)
    loss = MADDPGLoss(actor, critic, discrete_gradient=gradient)
    optimiser = torch.optim.Adam(actor.parameters(), lr=0.05)
    for _ in range(100):
        loss.compute(make_batch({"agents": 1}, n_actions=2, shape=(32,)))["loss_actor"].backward()
        optimiser.step()
        optimiser.zero_grad()
    batch = make_batch({"agents": 1}, n_actions=2, shape=(500,))
    assert batch["agents", "observation"].shape[-1] == D_OBS
    chosen = actor(batch)[1].softmax(-1)[..., 1].mean().item()
    assert chosen > 0.9 if better else chosen < 0.1
