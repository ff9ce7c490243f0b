"""Deterministic actor-critics on games with known solutions: what they find, and what they must get wrong.

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
from marl_td.losses.facmac import FACMACLoss
from marl_td.losses.matd3 import MATD3Loss
from marl_td.losses.targets import target_copy
from marl_td.models.mixers import Mixer, SumMixer

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


def quadratic_critic(group, n_agents, width):
    keys = [(group, "joint_action")], [(group, "chosen_action_value")]
    return TensorDictModule(Quadratic(n_agents, width), *keys)


def build(groups, kind="maddpg", **options):
    actors = {g: make_actor(g, n, d_action=1) for g, n in groups.items()}
    targets = {g: target_copy(actor) for g, actor in actors.items()}
    losses = {}
    for g, n in groups.items():
        width = 1 if kind in ("iddpg", "facmac") else sum(groups.values())
        parts = [actors[g], quadratic_critic(g, n, width)]
        common = {"target_actors": targets, **options}
        if kind == "facmac":
            mixer = {"free": QuadraticMixer, "sum": SumMixer}[common.pop("mixer")](n)
            losses[g] = FACMACLoss(*parts, mixer, **common)
            continue
        if kind == "matd3":
            second = quadratic_critic(g, n, width)
            loss = MATD3Loss(*parts, second, policy_freq=1, **common)
        else:
            loss = MADDPGLoss(*parts, central=kind == "maddpg", **common)
        losses[g] = point_to(loss, g)
    return losses


class QuadraticMixer(Mixer):
    """A mixer without restrictions whose class holds a square of a sum: 1, q_i and q_i q_j."""

    def __init__(self, n_agents):
        keys = {"value_keys": [("agents", "chosen_action_value")], "input_keys": []}
        super().__init__(n_agents, **keys)
        self.team = Quadratic(1, n_agents)
        nn.init.normal_(
            self.team.weight, std=0.3
        )  # zero weights behind zero weights would never move

    def mix(self, local_value, *inputs):
        return self.team(local_value.unsqueeze(-2)).flatten(-2).squeeze(-1)


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
    team = {"reward": reward[:, :1], "terminated": torch.ones(N_ENVS, 1).bool()}
    following = TensorDict({group: own, "joint": after, **team}, [N_ENVS])
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
        rates = {"loss_actor": 3e-3, "loss_value": 5e-2}
        optimisers[g] = [
            torch.optim.Adam([p for m in networks for p in m.parameters()], lr=rates[name])
            for name, networks in loss.networks().items()
        ]
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


SLOW = pytest.mark.slow
KINDS = [
    {"kind": "maddpg"},
    {"kind": "iddpg"},
    {"kind": "matd3"},
    {"kind": "facmac", "mixer": "free"},
    {"kind": "facmac", "mixer": "sum"},
]


def name_of(value):
    return " ".join(value.values()) if isinstance(value, dict) else None


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=SLOW) for seed in (1, 2))])
@pytest.mark.parametrize("options", KINDS, ids=name_of)
def test_a_team_learns_the_optimum_of_a_quadratic_game(options, seed):
    """From recent replay; random play earns -1.36, the optimum is 0."""
    torch.manual_seed(seed)
    final = play({"agents": 3}, team_payoff, 240, **options)[-1]
    assert team_payoff(final)["agents"][0] > -0.02


@pytest.mark.parametrize(
    ("options", "each"),
    [
        ({"actor_gradient": "own"}, 0.6),
        ({"actor_gradient": "all"}, 0.2),
        pytest.param({"kind": "iddpg"}, 0.6, marks=SLOW),
        pytest.param({"kind": "matd3"}, 0.6, marks=SLOW),
        pytest.param({"kind": "facmac", "mixer": "sum"}, 0.6, marks=SLOW),
        ({"kind": "facmac", "mixer": "free"}, 0.2),
    ],
    ids=name_of,
)
def test_on_uniform_data_only_actors_that_move_together_find_the_optimum(options, each):
    """In the paper's form every agent answers the *data's* other agents, whose actions average 0.

    So each plays 0.6 by itself and the team overshoots: 1.8 where 0.6 is wanted. A sum of values cannot hold
    the products of actions, and gives the same answer.
    """
    torch.manual_seed(0)
    final = play({"agents": 3}, team_payoff, 240, uniform=True, **options)[-1]["agents"]
    assert final.sum().item() == pytest.approx(3 * each, abs=0.2)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=SLOW)])
@pytest.mark.parametrize("kind", ["maddpg", "matd3", "iddpg"])
def test_a_regularised_zero_sum_game_circles_its_equilibrium(kind, seed):
    """The saddle point is (0, 0), its value 0; without regularisation play runs into the bounds, -1 and 1."""
    torch.manual_seed(seed)
    options = {"regularisation_coeff": 0.5, "kind": kind}
    history = play({"red": 1, "blue": 1}, zero_sum_payoff, 240, **options)
    path = torch.stack([torch.cat([h["red"], h["blue"]]) for h in history[WARM_UP:]])
    assert path.mean(0).abs().max() < 0.2
    assert path[-100:].abs().max() < 0.6
    assert path.prod(-1).mean().abs() < 0.1


@pytest.mark.slow
def test_a_zero_sum_game_without_regularisation_runs_into_the_bounds():
    """Known of simultaneous gradient steps: they spiral outwards around the equilibrium."""
    history = play({"red": 1, "blue": 1}, zero_sum_payoff, 300)
    path = torch.stack([torch.cat([h["red"], h["blue"]]) for h in history])
    assert path[-100:].abs().max() > 0.9
