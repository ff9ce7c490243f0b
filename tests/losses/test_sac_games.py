"""Soft actor-critic on problems with closed forms: soft values, logit equilibria, entropy, a team game."""

import math

import pytest
import torch
from small_ddpg import network
from small_sac import point_to
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import NormalParamExtractor

from marl_td.losses.agent_adam import AgentAdam
from marl_td.losses.hasac import HASACLoss
from marl_td.losses.masac import MASACLoss
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.targets import TargetUpdater
from marl_td.losses.temperature import Temperature

OBSERVATION, Q_KEY = ("agents", "observation"), ("agents", "chosen_action_value")


class Table(nn.Module):
    """A number per agent, input (one-hot) and action: ``[*B, n_agents, d]`` to ``[*B, n_agents, n]``."""

    def __init__(self, n_agents, d_in, d_out):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(n_agents, d_in, d_out))

    def forward(self, x):
        return torch.einsum("...ni,nio->...no", x, self.weight)


def batch_of(observation, action, reward, reached=None, terminated=True):
    """Steps ``[B]`` of agents ``[B, n_agents, ...]``."""
    shape = reward.shape
    ends = torch.full((*shape, 1), terminated)
    following = TensorDict(
        {
            "observation": observation if reached is None else reached,
            "reward": reward.unsqueeze(-1),
            "terminated": ends,
            "done": ends,
        },
        shape,
    )
    own = TensorDict({"observation": observation, "action": action}, shape)
    return TensorDict({"agents": own, "next": {"agents": following}}, shape[:1])


def minimise(loss, batch, n_updates, lr=0.05, tau=0.5):
    """Adam on everything, with soft targets; the temperature follows five times as slowly."""
    rates = [(loss.actor, lr), (loss.critics, lr), (loss.temperature, lr / 5)]
    optimiser = torch.optim.Adam(
        [{"params": list(module.parameters()), "lr": rate} for module, rate in rates]
    )
    update = TargetUpdater(loss.target_pairs(), tau=tau)
    for _ in range(n_updates):
        out = loss(batch())
        sum(out[name] for name in ("loss_actor", "loss_value", "loss_alpha")).backward()
        optimiser.step()
        optimiser.zero_grad()
        update.step()


# ---------------------------------------------------------------------- soft Bellman
def test_soft_values_and_the_softmax_policy_of_a_small_mdp():
    """Q = r + gamma alpha logsumexp(Q' / alpha) and pi = softmax(Q / alpha), by value iteration."""
    n_states, n_actions, gamma, alpha = 3, 2, 0.8, 0.5
    payoff = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.5]])
    leads_to = torch.tensor([[1, 0], [2, 0], [2, 1]])
    q = torch.zeros(n_states, n_actions)
    for _ in range(300):
        value = alpha * (q / alpha).logsumexp(-1)
        q = payoff + gamma * value[leads_to]

    states, actions = (
        x.flatten() for x in torch.meshgrid(torch.arange(3), torch.arange(2), indexing="ij")
    )
    one_hot = torch.eye(n_states)
    batch = batch_of(
        one_hot[states].unsqueeze(1),
        actions.unsqueeze(1),
        payoff[states, actions].unsqueeze(1),
        one_hot[leads_to[states, actions]].unsqueeze(1),
        terminated=False,
    )
    torch.manual_seed(0)
    policy = Table(1, n_states, n_actions)
    actor = SoftActor(
        TensorDictModule(policy, [OBSERVATION], [("agents", "logits")]), n_actions=n_actions
    )
    tables = [Table(1, n_states, n_actions) for _ in range(2)]
    critics = [TensorDictModule(table, [OBSERVATION], [Q_KEY]) for table in tables]
    loss = MASACLoss(
        actor, critics, Temperature(0.0, init=alpha, fixed=True), gamma=gamma, central=False
    )
    minimise(loss, lambda: batch, 500, lr=0.05)
    for table in tables:
        torch.testing.assert_close(table.weight[0].detach(), q, atol=0.02, rtol=0.0)
    found = policy.weight[0].detach().softmax(-1)
    torch.testing.assert_close(found, (q / alpha).softmax(-1), atol=0.01, rtol=0.0)
    assert (q.softmax(-1) - (q / alpha).softmax(-1)).abs().max() > 0.1  # alpha is seen


# ------------------------------------------------------------------------- matrix game
PAYOFF = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 1.5]])
ADDED = torch.tensor([0.0, 1.0, 2.0]).unsqueeze(-1) + torch.tensor([0.5, 0.0, 1.0])
"""Without interaction: for every temperature there is one best policy."""


def matrix_game(payoff, alpha, n_agents=2, **temperature):
    """MASAC on a team matrix game: critics are tables of all joint actions, the data is uniform."""
    n = payoff.shape[0]
    policy = Table(n_agents, 1, n)
    actor = SoftActor(TensorDictModule(policy, [OBSERVATION], [("agents", "logits")]), n_actions=n)
    # An agent's row has the others' actions and zeros for its own: a table of its own by theirs.
    tables = [Table(n_agents, n_agents * n, n) for _ in range(2)]
    critics = [TensorDictModule(t, [("agents", "joint_action")], [Q_KEY]) for t in tables]
    temperature = Temperature(**{"target_entropy": 0.0, "init": alpha, **temperature})
    loss = point_to(MASACLoss(actor, critics, temperature), "agents")

    def batch(size=64):
        action = torch.randint(n, (size, 2))
        reward = payoff[action[:, 0], action[:, 1]].unsqueeze(-1).expand(-1, 2)
        return batch_of(torch.ones(size, 2, 1), action, reward)

    return loss, policy, batch


def test_a_team_ends_in_a_logit_equilibrium():
    """Each policy is the softmax of its expected payoff against the other's, over alpha."""
    torch.manual_seed(0)
    alpha = 1.0
    loss, policy, batch = matrix_game(PAYOFF, alpha, fixed=True)
    minimise(loss, batch, 300)
    first, second = policy.weight.detach()[:, 0].softmax(-1)
    answer = (PAYOFF @ second / alpha).softmax(-1), (PAYOFF.T @ first / alpha).softmax(-1)
    torch.testing.assert_close(first, answer[0], atol=0.03, rtol=0.0)
    torch.testing.assert_close(second, answer[1], atol=0.03, rtol=0.0)
    assert (first - 1 / 3).abs().max() > 0.15


@pytest.mark.parametrize("target", [0.3, pytest.param(0.8, marks=pytest.mark.slow)])
def test_a_learned_temperature_brings_discrete_entropy_to_its_target(target):
    torch.manual_seed(0)
    loss, _, batch = matrix_game(ADDED, 1.0, target_entropy=target)
    minimise(loss, batch, 400)
    out = loss(batch())
    assert out["entropy"].item() == pytest.approx(target, abs=0.03)


# --------------------------------------------------------------------- quadratic team
WANTED, N_AGENTS, N_ENVS = 0.6, 3, 128


class Quadratic(nn.Module):
    """Critics linear in 1, u_i and u_i u_j: they can be exact."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(N_AGENTS, 1 + width + width * width))

    def forward(self, joint):
        products = (joint.unsqueeze(-1) * joint.unsqueeze(-2)).flatten(-2)
        features = torch.cat([torch.ones_like(joint[..., :1]), joint, products], -1)
        return (features * self.weight).sum(-1, keepdim=True)


def team_payoff(action):
    """-(sum of actions - wanted)^2 for everybody: optimum 0; uniform play in [-1, 1] earns -1.36."""
    total = action.sum((-2, -1), keepdim=True).squeeze(-1)
    return -((total - WANTED) ** 2).expand(-1, N_AGENTS)


def gaussian_team(kind, squash, alpha, **temperature):
    """The loss of ``kind`` with Gaussian policies over a constant observation."""
    net = network(N_AGENTS, 1, 2, share=False)
    names = [("agents", "loc"), ("agents", "scale")]
    modules = [
        TensorDictModule(net, [OBSERVATION], [("agents", "logits")]),
        TensorDictModule(NormalParamExtractor(), [("agents", "logits")], names),
    ]
    actor = SoftActor(TensorDictSequential(*modules), squash=squash)
    keys = [("agents", "joint_action")], [Q_KEY]
    critics = [TensorDictModule(Quadratic(N_AGENTS), *keys) for _ in range(2)]
    chosen = Temperature(**{"target_entropy": 0.0, "init": alpha, **temperature})
    if kind is HASACLoss:
        return HASACLoss(actor, critics, chosen, AgentAdam(actor, N_AGENTS, lr=1e-2))
    return MASACLoss(actor, critics, chosen)


def play(loss, n_updates):
    """Train on recent play; the means and deviations of the last policies ``[n_agents]``, and the metrics."""
    rates = [(loss.critics, 5e-2), (loss.temperature, 1e-2)]
    if type(loss) is MASACLoss:
        rates.append((loss.actor, 1e-2))
    optimisers = [
        torch.optim.Adam(m.parameters(), lr=lr) for m, lr in rates if list(m.parameters())
    ]
    memory, ones = [], torch.ones(N_ENVS, N_AGENTS, 1)
    for _ in range(n_updates):
        with torch.no_grad():
            policy = loss.actor(TensorDict({"agents": {"observation": ones}}, [N_ENVS]))
        memory = [*memory, policy.action][-8:]
        action = torch.cat(memory)[torch.randint(len(memory) * N_ENVS, (N_ENVS,))]
        out = loss(batch_of(ones, action, team_payoff(action)))
        sum(value for name, value in out.items() if name.startswith("loss_")).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    seen = loss.actor.network(TensorDict({"agents": {"observation": ones[:1]}}, [1]))
    return seen["agents", "loc"].flatten().detach(), seen["agents", "scale"].flatten().detach(), out


KINDS = [
    pytest.param(kind, seed, marks=[] if (kind, seed) == (MASACLoss, 0) else pytest.mark.slow)
    for kind in (MASACLoss, HASACLoss)
    for seed in range(3)
]


@pytest.mark.parametrize(("kind", "seed"), KINDS)
def test_a_gaussian_team_reaches_the_optimum_that_its_entropy_allows(kind, seed):
    """With alpha the best deviation is sqrt(alpha / 2): -sum sigma^2 + alpha sum log sigma is largest there.

    So the mean return is -(sum of means - wanted)^2 - N alpha / 2, and the first part can be 0.
    """
    torch.manual_seed(seed)
    alpha = 0.1
    loc, scale, _ = play(gaussian_team(kind, False, alpha, fixed=True), 300)
    torch.testing.assert_close(
        scale, torch.full((N_AGENTS,), math.sqrt(alpha / 2)), atol=0.03, rtol=0.0
    )
    mean_return = -((loc.sum() - WANTED) ** 2) - scale.square().sum()
    best = -N_AGENTS * alpha / 2
    assert best - 0.03 < mean_return < best + 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MASACLoss, HASACLoss])
def test_a_learned_temperature_brings_continuous_entropy_to_its_target(kind):
    """Squashed: target -1 nat per agent, as wide as e^-1 of a uniform policy's 2."""
    torch.manual_seed(0)
    *_, out = play(gaussian_team(kind, True, 0.5, target_entropy=-1.0), 600)
    assert out["entropy"].item() == pytest.approx(-1.0, abs=0.1)
    assert out["alpha"] < 0.4
