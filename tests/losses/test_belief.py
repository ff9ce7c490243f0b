"""What a belief learns of others with K fixed stochastic policies, beside Bayes' rule; likelihoods."""

import math

import pytest
import torch
from small_ppo import actor, critic
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor

from marl_td.losses.belief import BeliefPPOLoss
from marl_td.losses.functional.belief import (
    SCALE_FLOOR,
    continuous_log_likelihood,
    discrete_log_likelihood,
)
from marl_td.models.belief import BeliefContext, BeliefDecoder, BeliefEncoder

K, H, N_ACTIONS, D_OBS, D_BELIEF = 4, 16, 3, 2, 4
"""Policies, remembered steps, actions, observations (one-hot), latent."""


# ------------------------------------------------------------------- the number
class Opponents:
    """One agent watches another, which follows one of K fixed policies p(u | o) for an episode."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.policy = (2.0 * self.normal(K, D_OBS, N_ACTIONS)).softmax(-1)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def draw(self, n: int) -> tuple[TensorDict, dict[str, float]]:
        """``n`` moments of episodes, and the cross-entropies of those who know the policies."""
        kind = torch.randint(K, (n,), generator=self.generator)
        observed = torch.randint(D_OBS, (n, H + 1), generator=self.generator)
        chance = self.policy[kind.unsqueeze(-1), observed]
        action = torch.multinomial(chance.flatten(0, 1), 1, generator=self.generator)
        action = action.reshape(n, H + 1)
        # How much of the episode is over.
        age = torch.randint(H + 1, (n, 1), generator=self.generator)
        seen = torch.arange(H) >= H - age
        # Who knows the policies but not which one is followed: Bayes' rule over what was seen.
        likely = self.policy[:, observed, :].gather(-1, action.expand(K, n, H + 1).unsqueeze(-1))
        log_likely = likely.squeeze(-1).log()  # [K, n, H + 1]
        past = (log_likely[..., :H] * seen).sum(-1)
        posterior = past.softmax(0)
        now = log_likely[..., H]
        known = {
            "entropy": -chance[:, H].mul(chance[:, H].log()).sum(-1).mean().item(),
            "bayes": -(posterior * now.exp()).sum(0).log().mean().item(),
            "bayes, full": -(posterior * now.exp())
            .sum(0)
            .log()[age.squeeze(-1) == H]
            .mean()
            .item(),
            "no history": -now.exp().mean(0).log().mean().item(),
            "knows": -now.gather(0, kind.unsqueeze(0)).mean().item(),
        }
        one_hot = torch.nn.functional.one_hot(observed, D_OBS).float()
        pair = torch.tensor([[False, True]])  # the watcher is agent 0, and does not watch itself
        joint = torch.stack([torch.zeros_like(action), action], -1)
        agents = {
            "observation": one_hot[:, H].unsqueeze(1),
            "past_observation": one_hot[:, :H].unsqueeze(1),
            "past_seen": (seen.unsqueeze(-1) & pair).unsqueeze(1),
            "others_action": joint[:, H].unsqueeze(1),
            "others_seen": pair.expand(n, 1, 2),
            "belief_mean": torch.zeros(n, 1, 2, D_BELIEF),
        }
        data = TensorDict({"joint_history": joint[:, :H]}, batch_size=[n])
        data["agents"] = TensorDict(agents, batch_size=[n, 1])
        return data, known


def belief_loss(beta: float = 0.01, n_actions: int = N_ACTIONS, **options) -> BeliefPPOLoss:
    encoder = BeliefEncoder(1, D_OBS, N_ACTIONS, D_BELIEF, H, n_actions=n_actions, **options)
    decoder = BeliefDecoder(1, D_OBS, D_BELIEF, N_ACTIONS, **options)
    keys = ["joint_history", ("agents", "past_observation"), ("agents", "past_seen")]
    out = [("agents", "belief_mean"), ("agents", "belief_std")]
    read = [("agents", "observation"), ("agents", "belief")]
    return BeliefPPOLoss(
        actor("discrete"),
        critic(),
        TensorDictModule(encoder, keys, out),
        TensorDictModule(decoder, read, [("agents", "prediction")]),
        available=torch.ones(2, N_ACTIONS, dtype=torch.bool),
        beta=beta,
    )


def learnt(seed: int, n_steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Cross-entropies in nats on fresh episodes: of the belief, and of those who know the policies."""
    torch.manual_seed(seed)
    opponents, loss = Opponents(seed), belief_loss()
    params = [*loss.encoder.parameters(), *loss.decoder.parameters()]
    optimiser = torch.optim.Adam(params, lr=3e-3)
    for _ in range(n_steps):
        data, _ = opponents.draw(256)
        optimiser.zero_grad()
        loss._belief(data)["loss_belief"].backward()
        optimiser.step()
    data, known = opponents.draw(50_000)
    with torch.no_grad():
        log_likelihood, _ = loss.log_likelihood(data)
    score = -log_likelihood[:, 0, 1]
    full = data["agents", "past_seen"].sum((1, 2, 3)) == H
    return {"belief": score.mean().item(), "full": score[full].mean().item()}, known


MARGIN = 0.02
"""Nats above Bayes' rule."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_predicted_distribution_approaches_the_true_one(seed):
    """Near Bayes' rule, which knows the K policies; far below what can be said without history.

    With all that can be remembered Bayes' rule itself is near the entropy of the true policies, and at it
    where no two policies are alike.
    """
    found, known = learnt(seed, 1000)
    assert known["bayes"] - 0.005 < found["belief"] < known["bayes"] + MARGIN
    assert found["belief"] < known["no history"] - 5 * MARGIN
    assert known["bayes, full"] - 0.02 < found["full"] < known["bayes, full"] + MARGIN
    assert known["bayes, full"] < known["entropy"] + 0.06 < known["bayes"]


# --------------------------------------------------------------------- the parts
def test_where_nothing_was_seen_the_belief_is_the_prior():
    data, _ = Opponents(0).draw(200)
    loss = belief_loss()
    found = loss.encoder(data.clone())
    none = ~data["agents", "past_seen"].any(-2)
    assert none.any() and not none.all()
    assert (found["agents", "belief_mean"][none] == 0).all()
    assert (found["agents", "belief_std"][none] == 1).all()
    assert (found["agents", "belief_std"] > 0).all()
    _, divergence = loss.log_likelihood(data)
    assert (divergence[none] == 0).all() and (divergence[~none] > 0).all()


def test_what_was_not_seen_changes_nothing():
    data, _ = Opponents(0).draw(50)
    loss = belief_loss()
    other = data.clone()
    hidden = ~data["agents", "past_seen"].squeeze(1)
    other["joint_history"] = torch.where(
        hidden, (other["joint_history"] + 1) % 3, other["joint_history"]
    )
    found = [loss.encoder(x.clone())["agents", "belief_mean"] for x in (data, other)]
    assert torch.equal(*found)


def test_only_pairs_that_see_each_other_count():
    """Neither the loss nor its gradient depends on what was not seen, on the dead or on padding."""
    data, _ = Opponents(0).draw(64)
    data["agents", "mask"] = torch.rand(64, 1) < 0.7
    data["step_mask"] = torch.rand(64, 1) < 0.7
    data["agents", "others_seen"] = data["agents", "others_seen"] & (torch.rand(64, 1, 2) < 0.7)
    counts = data["agents", "others_seen"] & (data["agents", "mask"] & data["step_mask"]).unsqueeze(
        -1
    )
    assert counts.any() and not counts.all()
    other = data.clone()
    action = other["agents", "others_action"]
    other["agents", "others_action"] = torch.where(counts, action, (action + 1) % 3)
    loss, results = belief_loss(beta=0.0), []
    for batch in (data, other):
        torch.manual_seed(0)
        out = loss._belief(batch)
        params = [*loss.encoder.parameters(), *loss.decoder.parameters()]
        grads = torch.autograd.grad(out["loss_belief"], params, allow_unused=True)
        results.append([out["loss_belief"], *[g for g in grads if g is not None]])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("attention", [True, False])
def test_the_context_is_of_the_others_only_and_takes_no_gradient(attention):
    others = torch.tensor([[False, True, True], [True, False, True]])
    module = BeliefContext(2, D_OBS, 2, others, attention=attention)
    mean, std = torch.randn(5, 2, 3, 2), torch.rand(5, 2, 3, 2) + 0.5
    mean.requires_grad_(True)
    observation = torch.randn(5, 2, D_OBS)
    found = module(observation, mean, std)
    assert found.shape == (5, 2, module.width)
    changed = mean.detach().clone()
    changed[:, 0, 0] += 9.0  # what agent 0 believes of itself
    assert torch.equal(module(observation, changed, std), found)
    assert attention == found.requires_grad
    if not attention:
        torch.testing.assert_close(found[:, 0, :2], mean[:, 0, 1:].mean(1))
    alone = BeliefContext(1, D_OBS, 2, torch.tensor([[False]]), attention=attention)
    assert (alone(observation[:, :1], mean[:, :1, :1], std[:, :1, :1]) == 0).all()


def test_agents_with_own_networks_are_told_apart():
    data, _ = Opponents(0).draw(30)
    two = {}
    for name in ("past_observation", "past_seen"):
        two[name] = data["agents", name].expand(-1, 2, *[-1] * (data["agents", name].ndim - 2))
    inputs = (data["joint_history"], two["past_observation"], two["past_seen"])
    for n_groups, same in ((1, True), (2, False)):
        encoder = BeliefEncoder(n_groups, D_OBS, N_ACTIONS, D_BELIEF, H, n_actions=N_ACTIONS)
        mean, _ = encoder(*inputs)
        assert torch.equal(mean[:, 0], mean[:, 1]) is same


def test_likelihoods_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0), 5.0]])
    exists = torch.tensor([[True, True, False]])
    found = discrete_log_likelihood(logits, torch.tensor([1]), exists)
    assert found.item() == pytest.approx(math.log(0.75))
    raw = math.log(math.expm1(2.0 - SCALE_FLOOR))
    parameters = torch.tensor([[1.0, 0.0, raw, raw]])
    found = continuous_log_likelihood(
        parameters, torch.tensor([[3.0, 8.0]]), torch.tensor([[True, False]])
    )
    assert found.item() == pytest.approx(
        -0.5 - math.log(2.0) - 0.5 * math.log(2 * math.pi), rel=1e-5
    )
    wanted = torch.distributions.Normal(parameters[:, :2], 2.0).log_prob(torch.tensor([[3.0, 8.0]]))
    both = continuous_log_likelihood(parameters, torch.tensor([[3.0, 8.0]]))
    torch.testing.assert_close(both, wanted.sum(-1))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"`beta` must be at least 0; got -1\.0"):
        belief_loss(beta=-1.0)
    with pytest.raises(ValueError, match="d_hidden must be at least 1; got 0"):
        belief_loss(d_hidden=0)
    with pytest.raises(ValueError, match="`parameters` must be"):
        continuous_log_likelihood(torch.zeros(2, 3), torch.zeros(2, 2))
