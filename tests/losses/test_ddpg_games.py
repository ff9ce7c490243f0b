"""MADDPG on games with known solutions: what it finds, and what it must get wrong.

One-step games of constant observation, played with a critic whose class holds the payoff (linear in
the products of actions), so that the outcome is a matter of the actors' gradient alone.
"""

import pytest
import torch
from small_ddpg import D_OBS, make_actor, point_to
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.targets import target_copy

N_ENVS, MEMORY, WARM_UP = 128, 8, 40
WANTED = 0.6


class Quadratic(nn.Module):
    """A critic per agent, linear in 1, u_i and u_i u_j."""

    def __init__(self, n_agents, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_agents, 1 + width + width * width))

    def forward(self, joint):
        products = (joint.unsqueeze(-1) * joint.unsqueeze(-2)).flatten(-2)
        features = torch.cat([torch.ones_like(joint[..., :1]), joint, products], -1)
        return (features * self.weight).sum(-1, keepdim=True)


def build(groups, **options):
    actors = {g: make_actor(g, n, d_action=1) for g, n in groups.items()}
    targets = {g: target_copy(actor) for g, actor in actors.items()}
    losses = {}
    for g, n in groups.items():
        keys = [(g, "joint_action")], [(g, "chosen_action_value")]
        critic = TensorDictModule(Quadratic(n, sum(groups.values())), *keys)
        loss = MADDPGLoss(actors[g], critic, target_actors=targets, **options)
        losses[g] = point_to(loss, g)
    return losses


def batch_of(group, action, reward):
    """Transitions of a one-step game, of all groups under ``"joint"``."""
    joint = {
        g: TensorDict({"observation": torch.ones(*a.shape[:2], D_OBS), "action": a}, a.shape[:2])
        for g, a in action.items()
    }
    joint = TensorDict(joint, [N_ENVS])
    after = joint.exclude(*[(g, "action") for g in action])
    ends = {"reward": reward.unsqueeze(-1), "terminated": torch.ones(*reward.shape, 1).bool()}
    own = TensorDict({**after[group].to_dict(), **ends}, reward.shape)
    following = TensorDict({group: own, "joint": after}, [N_ENVS])
    return TensorDict({group: joint[group], "joint": joint, "next": following}, [N_ENVS])


def greedy(losses):
    """Every group's actions, ``{group: [n_agents]}``."""
    out = {}
    for g, loss in losses.items():
        n_agents = next(iter(loss.actor.parameters())).shape[0]
        batch = TensorDict({g: {"observation": torch.ones(1, n_agents, D_OBS)}}, [1])
        out[g] = loss.actor(batch)[0][0, :, 0].detach()
    return out


def play(groups, payoff, n_updates, uniform=False, **options):
    """Train on recent play with noise (or on uniform play for ever); the greedy actions over time."""
    losses = build(groups, **options)
    optimisers = {}
    for g, loss in losses.items():
        rates = [(loss.actor, 3e-3), (loss.critic, 5e-2)]
        optimisers[g] = [torch.optim.Adam(m.parameters(), lr=rate) for m, rate in rates]
    memory, history = [], []
    for step in range(n_updates):
        history.append(greedy(losses))
        explore = uniform or step < WARM_UP
        shapes = {g: a.expand(N_ENVS, -1).unsqueeze(-1) for g, a in history[-1].items()}
        fresh = {
            g: torch.rand_like(a) * 2 - 1
            if explore
            else (a + 0.3 * torch.randn_like(a)).clamp(-1, 1)
            for g, a in shapes.items()
        }
        memory = [*memory, fresh][-MEMORY:]
        index = torch.randint(len(memory) * N_ENVS, (N_ENVS,))
        action = {g: torch.cat([m[g] for m in memory])[index] for g in groups}
        reward = payoff({g: a.squeeze(-1) for g, a in action.items()})
        for g, loss in losses.items():
            out = loss.compute(batch_of(g, action, reward[g]))
            (out["loss_actor"] + out["loss_value"]).backward()
            for optimiser in optimisers[g][0 if step >= WARM_UP else 1 :]:
                optimiser.step()
            loss.zero_grad()
    return history


def team_payoff(action):
    """-(sum of actions - wanted)^2 for everybody: optimum 0; random play earns -1.36."""
    total = action["agents"].sum(-1, keepdim=True)
    return {"agents": -((total - WANTED) ** 2).expand_as(action["agents"])}


def zero_sum_payoff(action):
    """Red earns the product of both actions, blue pays it: the only equilibrium is (0, 0)."""
    return {"red": action["red"] * action["blue"], "blue": -action["red"] * action["blue"]}


@pytest.mark.parametrize("seed", range(3))
def test_a_team_learns_the_optimum_of_a_quadratic_game(seed):
    torch.manual_seed(seed)
    final = play({"agents": 3}, team_payoff, 240)[-1]
    assert team_payoff(final)["agents"][0] > -0.02


@pytest.mark.parametrize(("actor_gradient", "each"), [("own", 0.6), ("all", 0.2)])
def test_on_uniform_data_only_the_form_all_finds_the_optimum(actor_gradient, each):
    """In the paper's form every agent answers the *data's* other agents, whose actions average 0.

    So each plays 0.6 by itself and the team overshoots: 1.8 where 0.6 is wanted.
    """
    options = {"uniform": True, "actor_gradient": actor_gradient}
    final = play({"agents": 3}, team_payoff, 200, **options)[-1]["agents"]
    assert final.sum().item() == pytest.approx(3 * each, abs=0.2)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_regularised_zero_sum_game_circles_its_equilibrium(seed):
    torch.manual_seed(seed)
    history = play({"red": 1, "blue": 1}, zero_sum_payoff, 240, regularisation_coef=0.5)
    path = torch.stack([torch.cat([h["red"], h["blue"]]) for h in history[WARM_UP:]])
    assert path.mean(0).abs().max() < 0.2
    assert path[-100:].abs().max() < 0.6


@pytest.mark.slow
def test_a_zero_sum_game_without_regularisation_runs_into_the_bounds():
    """Known of simultaneous gradient steps: they spiral outwards around the equilibrium."""
    history = play({"red": 1, "blue": 1}, zero_sum_payoff, 300)
    path = torch.stack([torch.cat([h["red"], h["blue"]]) for h in history])
    assert path[-100:].abs().max() > 0.9
