"""Inferred policies: loss and targets by hand, who is believed about, and how soon beliefs become true."""

import pytest
import torch
from small_ddpg import make_actor, make_batch, make_critic, make_inferred, make_inferring
from torch.distributions import Categorical, Normal, kl_divergence

from marl_td.losses.functional.action_values import mask_unavailable
from marl_td.losses.functional.deterministic import joint_action_rows
from marl_td.losses.functional.distributions import (
    categorical_divergence,
    categorical_log_prob,
    gaussian_log_prob,
)
from marl_td.losses.functional.inference import believed_action_rows, inference_error
from marl_td.losses.inferred_policies import InferredPolicies
from marl_td.losses.maddpg_inference import InferringMADDPGLoss

TEAMS = {"red": 3, "blue": 2}


# ----------------------------------------------------------------------------- functions
def test_likelihoods_and_divergences_are_torchs():
    first, second = torch.randn(5, 4), torch.randn(5, 4)
    action = torch.randint(4, (5,))
    row = torch.nn.functional.one_hot(action, 4).float()
    torch.testing.assert_close(
        categorical_log_prob(first, row), Categorical(logits=first).log_prob(action)
    )
    expected = kl_divergence(Categorical(logits=first), Categorical(logits=second))
    torch.testing.assert_close(
        categorical_divergence(first.log_softmax(-1), second.log_softmax(-1)), expected
    )
    std, value = torch.rand(5, 4) + 0.1, torch.randn(5, 4)
    expected = Normal(first, std).log_prob(value).sum(-1)
    torch.testing.assert_close(gaussian_log_prob(value, first, std), expected)


def test_unavailable_actions_count_in_neither_distribution():
    logits, other = torch.randn(4), torch.randn(4)
    mask = torch.tensor([True, True, False, True])
    expected = kl_divergence(Categorical(logits=logits[mask]), Categorical(logits=other[mask]))
    known = (mask_unavailable(x, mask).log_softmax(-1) for x in (logits, other))
    found = categorical_divergence(*known)
    torch.testing.assert_close(found, expected)
    logits.requires_grad_()
    categorical_log_prob(logits, torch.tensor([0.0, 1.0, 0.0, 0.0]), mask).backward()
    assert logits.grad[2] == 0 and logits.grad[3] != 0


def test_error_by_hand():
    error = inference_error(torch.tensor([-1.0]), torch.tensor([0.5]), entropy_coeff=0.1)
    torch.testing.assert_close(error, torch.tensor([0.95]))


def test_beliefs_that_are_true_give_the_joint_action():
    """If everybody believes what is, the rows are those of MADDPG."""
    actions = [torch.randn(6, 2, 3), torch.randn(6, 4, 1)]
    believed = [a.unsqueeze(-3).expand(6, 2, *a.shape[-2:]) for a in actions]
    expected = joint_action_rows(actions, 0)
    assert torch.equal(believed_action_rows(believed, 0, actions[0]), expected)


# ------------------------------------------------------------------------------- the loss
@pytest.mark.parametrize("n_actions", [None, 4])
def test_loss_by_hand_over_all_pairs_of_different_agents(n_actions):
    loss = make_inferring(TEAMS, "blue", n_actions, inference_entropy_coeff=0.1)
    batch = make_batch(TEAMS, "blue", n_actions)
    out = loss(batch.clone())
    total, count = 0.0, 0
    for believer in range(2):
        for group, n_agents in TEAMS.items():
            beliefs = loss.beliefs[list(TEAMS).index(group)]
            described = beliefs(batch["joint"])[:, believer]
            for j in range(n_agents):
                if (group, j) == ("blue", believer):
                    continue
                action = batch["joint", group, "action"][:, j]
                if n_actions is None:
                    mean, std = beliefs._normal(described[:, j])
                    distribution = Normal(mean, std)
                    terms = distribution.log_prob(action) + 0.1 * distribution.entropy()
                    terms = terms.sum(-1)
                else:
                    distribution = Categorical(logits=described[:, j])
                    terms = distribution.log_prob(action) + 0.1 * distribution.entropy()
                total, count = total - terms.mean(), count + 1
    assert count == 2 * 4
    torch.testing.assert_close(out["loss_inference"], total / count)


def test_targets_use_target_beliefs_of_others_and_the_own_target_policy():
    loss = make_inferring(TEAMS, "blue", gamma=1.0)
    batch = make_batch(TEAMS, "blue")
    batch["next", "blue", "terminated"][:] = False
    before = loss._target(batch)

    def changed(module):
        saved = [p.clone() for p in module.parameters()]
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.3)
        out = bool((loss._target(batch) != before).all())
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), saved, strict=True):
                parameter.copy_(value)
        return out

    assert changed(loss.target_beliefs)
    assert changed(loss.target_actor)
    assert not changed(loss.beliefs)
    assert not changed(loss._actors["red"])  # nobody knows it


def test_an_agent_has_no_use_for_beliefs_about_itself():
    loss, batch = make_inferring({"agents": 2}, "agents"), make_batch()
    loss.compute(batch)["loss_inference"].backward()
    for parameter in loss.beliefs.parameters():  # [believer * 2 + agent, ...]
        used = [bool(row.any()) for row in parameter.grad]
        assert used == [False, True, True, False]


def test_three_losses_share_no_graph():
    loss = make_inferring(TEAMS, "blue")
    out = loss(make_batch(TEAMS, "blue"))
    assert set(loss.out_keys) == set(out.keys())
    networks = loss.networks()
    for name in ("loss_actor", "loss_value", "loss_inference"):
        loss.zero_grad()
        out[name].backward()
        for other, modules in networks.items():
            grads = [p.grad for module in modules for p in module.parameters()]
            if other == name:
                assert any(grad is not None and grad.any() for grad in grads)
            else:
                assert all(grad is None or not grad.any() for grad in grads), (name, other)


def test_the_dead_and_padding_teach_nobody():
    loss, batch = make_inferring({"agents": 2}, "agents"), make_batch()
    batch["agents", "mask"] = torch.ones(8, 2, dtype=torch.bool)
    batch["agents", "mask"][:, 1] = False
    batch["step_mask"] = (torch.arange(8) < 4).unsqueeze(-1)
    before = loss(batch.clone())["loss_inference"]
    changed = batch.clone()
    changed["agents", "action"][:, 1] = 0.9
    changed["agents", "action"][4:] = 0.9
    assert loss(changed)["loss_inference"] == before
    changed["agents", "action"][0, 0] = 0.9
    assert loss(changed)["loss_inference"] != before


def test_alone_there_is_nothing_to_infer():
    loss, batch = make_inferring({"agents": 1}, "agents"), make_batch({"agents": 1})
    out = loss(batch)
    assert out["loss_inference"] == 0 and out["inference_kl"] == 0


# ------------------------------------------------------------------------ beliefs become true
def learn(n_actions, others_learn, seed):
    """``inference_kl`` before and after 150 steps, on fresh data of policies that move or not."""
    torch.manual_seed(seed)
    loss = make_inferring({"agents": 3}, "agents", n_actions)
    if n_actions is not None:  # policies that are far from uniform
        with torch.no_grad():
            for parameter in loss.actor.parameters():
                parameter.mul_(3.0)
    believing = torch.optim.Adam(loss.beliefs.parameters(), lr=1e-2)
    acting = torch.optim.Adam(loss.actor.parameters(), lr=1e-3)
    seen = []
    for _ in range(150):
        batch = make_batch({"agents": 3}, n_actions=n_actions, shape=(128,))
        with torch.no_grad():
            action = loss.actor(batch)[0]
            if n_actions is None:
                action = (action + 0.1 * torch.randn_like(action)).clamp(-1.0, 1.0)
            else:
                action = action.argmax(-1)
        batch["agents", "action"] = action
        out = loss.compute(batch)
        seen.append(out["inference_kl"].item())
        (out["loss_inference"] + out["loss_actor"]).backward()
        believing.step()
        if others_learn:
            acting.step()
        loss.zero_grad()
    return seen[0], sum(seen[-10:]) / 10


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("others_learn", [False, True])
def test_beliefs_about_discrete_policies_become_true(others_learn, seed):
    """Nats: 0.3 is what knowing nothing costs here; below 0.05 a belief says what will be done."""
    first, last = learn(4, others_learn, seed)
    assert first > 0.3
    assert last < 0.05


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("others_learn", [False, True])
def test_beliefs_about_continuous_policies_become_true(others_learn, seed):
    """Both dimensions together: 1 is a distance of a tenth of half the range in each, as the noise's."""
    first, last = learn(None, others_learn, seed)
    assert first > 10.0
    assert last < 0.5


# --------------------------------------------------------------------------------- messages
def test_bad_arguments_are_refused():
    groups = {"agents": 2}
    actor, critic = make_actor(), make_critic(groups, "agents")
    beliefs = [make_inferred(actor, 2, 2)]
    for options in ({"actor_gradient": "all"}, {"central": False}):
        with pytest.raises(ValueError, match="for central critics and `actor_gradient='own'` only"):
            InferringMADDPGLoss(actor, critic, beliefs, **options)
    with pytest.raises(ValueError, match=r"must be of the groups \['agents'\], in this order; got"):
        InferringMADDPGLoss(actor, critic, [])
    with pytest.raises(ValueError, match="`inference_entropy_coeff` must be at least 0; got -1"):
        InferringMADDPGLoss(actor, critic, beliefs, inference_entropy_coeff=-1.0)
    with pytest.raises(ValueError, match="`n_believers` must be at least 1; got 0"):
        InferredPolicies(beliefs[0].network, actor, 0)
