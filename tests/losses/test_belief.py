"""What a belief learns of others with K fixed stochastic policies, beside what Bayes' rule says; likelihoods."""

import pytest
import torch
from small_ppo import actor, critic
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor

from marl_td.losses.belief import BeliefPPOLoss
from marl_td.models.belief import BeliefDecoder, BeliefEncoder

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
        age = torch.randint(
            H + 1, (n, 1), generator=self.generator
        )  # how much of the episode is over
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


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_the_predicted_distribution_approaches_the_true_one(seed):
    """Within a margin of Bayes' rule, which knows the K policies; far below what can be said without history."""
    found, known = learnt(seed, 1500)
    print(found, known)
    assert known["bayes"] - 0.005 < found["belief"] < known["bayes"] + MARGIN
    assert found["belief"] < known["no history"] - 5 * MARGIN
    assert found["full"] < known["entropy"] + 0.05
