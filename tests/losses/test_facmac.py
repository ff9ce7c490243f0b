"""FACMAC's loss: the limits N = 1 (DDPG) and a sum, whose gradient goes where, masks."""

import pytest
import torch
from small_ddpg import make_actor, make_facmac, own_critic, team_batch

from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.facmac import FACMACLoss
from marl_td.losses.targets import TargetUpdater
from marl_td.models.mixers import CentralMixer, QMixer, SumMixer


def mixers(n_agents=2):
    """Every mixer that is offered."""
    return {
        "sum": SumMixer(n_agents),
        "qmix": QMixer(n_agents, 3),
        "free": CentralMixer(n_agents, 3, d_hidden=16, n_hidden=2),
    }


# ------------------------------------------------------------------------------ limits
@pytest.mark.parametrize("n_actions", [None, 4])
def test_one_agent_with_a_sum_is_ddpg_step_for_step(n_actions):
    """MADDPG with one agent is TorchRL's DDPG (test_ddpg.py); FACMAC is the same, to the last parameter."""
    torch.manual_seed(1)
    facmac = make_facmac(SumMixer(1), 1, n_actions, gamma=0.9, regularisation_coeff=0.1)
    torch.manual_seed(1)
    actor = make_actor("agents", 1, n_actions=n_actions)
    critic = own_critic(1, n_actions or 2)
    ddpg = MADDPGLoss(actor, critic, gamma=0.9, central=False, regularisation_coeff=0.1)
    losses = facmac, ddpg
    optimisers = [torch.optim.Adam(loss.parameters(), lr=1e-2) for loss in losses]
    updaters = [TargetUpdater(loss.target_pairs(), tau=0.1) for loss in losses]
    for step in range(5):
        batch = team_batch(1, n_actions=n_actions)
        for loss, optimiser, updater in zip(losses, optimisers, updaters, strict=True):
            torch.manual_seed(step)
            out = loss(batch.clone())
            (out["loss_actor"] + out["loss_value"]).backward()
            optimiser.step()
            optimiser.zero_grad()
            updater.step()
    pairs = list(zip(facmac.parameters(), ddpg.parameters(), strict=True))
    assert len(pairs) > 4
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_the_team_value_by_hand():
    loss, batch = make_facmac(SumMixer(2), gamma=0.5), team_batch()
    batch["next", "terminated"][:] = False
    seen, taken = batch["agents", "observation"], batch["agents", "action"]
    local = loss.critic.agents.module(seen, taken)
    out = loss(batch.clone())
    torch.testing.assert_close(out["pred_value"], local.sum(-2).mean())
    after = batch["next", "agents", "observation"]
    action = loss.target_actor(batch["next"])[0]
    following = loss.target_critic.agents.module(after, action).sum(-2)
    target = batch["next", "reward"] + 0.5 * following
    torch.testing.assert_close(out["target_value"], target.mean())
    torch.testing.assert_close(out["td_error"], (target - local.sum(-2)).abs().mean())


def test_terminated_does_not_bootstrap():
    loss, batch = make_facmac(mixers()["qmix"]), team_batch()
    ended = batch["next", "terminated"]
    assert ended.any() and not ended.all()
    target = loss._target(batch)
    assert target.shape == (8, 1)
    assert torch.equal(target[ended], batch["next", "reward"][ended])
    assert (target[~ended] != batch["next", "reward"][~ended]).all()


# ---------------------------------------------------------------------------- gradients
def test_all_actions_are_new_ones_in_the_actors_loss():
    loss, batch = make_facmac(mixers()["qmix"]), team_batch()
    before = loss.compute(batch)
    batch["agents", "action"] = -batch["agents", "action"]
    after = loss.compute(batch)
    assert after["loss_actor"] == before["loss_actor"]
    assert after["loss_value"] != before["loss_value"]


@pytest.mark.parametrize("name", ["sum", "qmix", "free"])
def test_the_two_losses_share_no_graph_and_the_mixer_learns_with_the_critics(name):
    loss, batch = make_facmac(mixers()[name]), team_batch()
    out = loss(batch)
    out["loss_actor"].backward()
    assert all(p.grad.any() for p in loss.actor.parameters())
    assert all(p.grad is None for p in loss.critic.parameters())
    loss.zero_grad()
    out["loss_value"].backward()
    assert all(p.grad is None or not p.grad.any() for p in loss.actor.parameters())
    assert all(p.grad is not None for p in loss.critic.parameters())
    assert loss.networks()["loss_value"] == [loss.critic]
    n_mixer = len(list(loss.critic.mixer.parameters()))
    assert len(list(loss.critic.parameters())) == n_mixer + len(
        list(loss.critic.agents.parameters())
    )


def test_the_actors_gradient_is_that_of_the_mixed_value():
    """Not of the agents' own values: dQ_tot/du_i = dQ_tot/dQ_i dQ_i/du_i."""
    loss, batch = make_facmac(mixers()["qmix"]), team_batch()
    loss.compute(batch)["loss_actor"].backward()
    found = [p.grad.clone() for p in loss.actor.parameters()]
    loss.zero_grad()
    action = loss.actor(batch)[0]
    local = loss.critic.agents.module(batch["agents", "observation"], action).squeeze(-1)
    weight = torch.autograd.grad(
        loss.critic.mixer.mix(local, batch["state"]).sum(), local, retain_graph=True
    )[0]
    assert (weight >= 0).all() and weight.std() > 0
    by_hand = torch.autograd.grad(local, list(loss.actor.parameters()), -weight / 8)
    for one, other in zip(found, by_hand, strict=True):
        torch.testing.assert_close(one, other)


# -------------------------------------------------------------------------------- masks
def with_deaths(batch):
    alive = torch.ones(8, 2, dtype=torch.bool)
    alive[4:, 0] = False
    batch["agents", "mask"] = alive
    batch["next", "agents", "mask"] = alive.clone()
    return batch


@pytest.mark.parametrize("name", ["sum", "qmix", "free"])
def test_the_dead_neither_act_nor_count(name):
    loss, batch = make_facmac(mixers()[name]), with_deaths(team_batch())
    batch["agents", "mask"][:, 0] = False
    batch["next", "agents", "mask"][:, 0] = False
    out = loss(batch.clone())
    changed = batch.clone()
    changed["agents", "action"][:, 0] = 9.0
    changed["agents", "observation"][:, 0] = 9.0
    changed["next", "agents", "observation"][:, 0] = 9.0
    again = loss(changed)
    for key in ("loss_actor", "loss_value", "target_value"):
        torch.testing.assert_close(out[key], again[key])
    out["loss_actor"].backward()
    for parameter in loss.actor.parameters():
        assert not parameter.grad[0].any()
        assert parameter.grad[1].any()


def test_padded_steps_and_steps_without_anybody_teach_nothing():
    loss, batch = make_facmac(mixers()["qmix"]), team_batch()
    first = loss(batch[:4])
    batch["step_mask"] = (torch.arange(8) < 4).unsqueeze(-1)
    padded = loss(batch)
    for key in ("loss_actor", "loss_value"):
        torch.testing.assert_close(padded[key], first[key])
    batch["priority_weight"] = torch.full((8,), 0.5)
    torch.testing.assert_close(loss(batch)["loss_value"], 0.5 * first["loss_value"])
    del batch["step_mask"]
    batch["agents", "mask"] = (torch.arange(8) < 4).unsqueeze(-1).expand(8, 2)
    torch.testing.assert_close(loss(batch)["loss_actor"], first["loss_actor"])


def test_every_agent_is_given_the_teams_priority():
    loss, batch = make_facmac(mixers()["qmix"]), team_batch()
    out = loss(batch)
    assert batch["agents", "td_error"].shape == (8, 2)
    assert (batch["agents", "td_error"][:, :1] == batch["agents", "td_error"]).all()
    torch.testing.assert_close(batch["agents", "td_error"].mean(), out["td_error"])
    assert batch["agents", "priority"].shape == (8, 2, 1)


# ------------------------------------------------------------------------------ messages
def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`gamma` must lie in"):
        make_facmac(SumMixer(2), gamma=1.5)
    with pytest.raises(TypeError, match="central"):
        FACMACLoss(make_actor(), own_critic(), SumMixer(2), central=True)
