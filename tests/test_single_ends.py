"""Agents that end one by one: who is only cut off is bootstrapped, who dies is not, in every family.

All values are 8, rewards 1, gamma 1/2. In data of ours and of TorchRL's PettingZoo environments.
"""

from types import SimpleNamespace

import pytest
import torch
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from three_ends import GROUP, Fixed, episode, fixed, log_probs, of_lives
from torch import nn
from torchrl.modules import ProbabilisticActor

from marl_td.algorithms.sac_family import SacFamily
from marl_td.losses import PqnLoss
from marl_td.losses.coma import ComaLoss
from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.facmac import FACMACLoss
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.independent_q import IndependentQLoss
from marl_td.losses.masac import MASACLoss
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.q_mixing import QMixingLoss
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.temperature import Temperature
from marl_td.models.floored import FlooredSoftmax
from marl_td.models.mixers import SumMixer
from marl_td.signals import agent_signals, shared_signals, team_signals

pytestmark = pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using:UserWarning")

ONE_STEP = [[5, 5], [5, 5, 1], [5, 5, 5, 5, 5]]
"""1 + 8 / 2, and 1 where the second agent dies."""
MIXED = [[4.25, 5], [3.8125, 3.25, 1], [4.00390625, 4.015625, 4.0625, 4.25, 5]]
"""lambda 1/2: G = 1 + (8 / 2 + G' / 2) / 2, each agent's from its own end."""
GAMMA = {"gamma": 0.5}

sources = pytest.mark.parametrize("source", ["ours", "theirs"])
masked = pytest.mark.parametrize("mask_dead_values", [True, False])


def assert_values(found, expected):
    assert found == [pytest.approx(agent) for agent in expected]


# ------------------------------------------------------------------------- advantages
class Remembering(nn.Module):
    """A network of observations that says when a memory would begin; it has none."""

    def forward(self, observation, is_init):
        return Fixed(8.0)(observation)


@sources
@masked
@pytest.mark.parametrize("recurrent", [True, False])
def test_mappo(source, mask_dead_values, recurrent):
    layer = TensorDictModule(nn.Linear(3, 2), [(GROUP, "observation")], [(GROUP, "logits")])
    actor = ProbabilisticActor(
        layer,
        in_keys={"logits": (GROUP, "logits")},
        out_keys=[(GROUP, "action")],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = fixed("state_value", 8.0)
    batch = log_probs(agent_signals(episode(source), GROUP))
    if recurrent:  # values of reached states are those of the next rows, but where an agent ends
        keys = [(GROUP, "observation"), "is_init"]
        critic = TensorDictModule(Remembering(), keys, [(GROUP, "state_value")])
        batch["is_init"] = torch.zeros(1, 5, 1, dtype=torch.bool)
    loss = MAPPOLoss(actor, critic, mask_dead_values=mask_dead_values)
    out = loss.estimate(batch, gamma=0.5, lmbda=0.5)
    assert_values(of_lives(out[GROUP, "value_target"]), MIXED)


def coma(**options):
    """The actor draws action 0; the critic says 8 of it and 50 of the other."""
    net = TensorDictModule(Fixed(1e4, 0.0), [(GROUP, "observation")], [(GROUP, "logits")])
    head = FlooredSoftmax(GROUP, False, eps_init=0.0, eps_end=0.0, annealing_steps=1)
    actor = ProbabilisticTensorDictSequential(net, head)
    return ComaLoss(actor, fixed("action_value", 8.0, 50.0), **options)


@sources
@masked
def test_coma_of_own_rewards(source, mask_dead_values):
    batch = agent_signals(episode(source), GROUP)
    out = coma(mask_dead_values=mask_dead_values).estimate(batch, gamma=0.5, lmbda=0.5)
    assert_values(of_lives(out[GROUP, "value_target"]), MIXED)


@sources
def test_coma_of_the_teams_rewards(source):
    """3, 3, 2, 1, 1: an agent's return of them ends with its life, if the dead are not valued."""
    batch = shared_signals(episode(source), GROUP, "sum")
    out = coma(mask_dead_values=True).estimate(batch, gamma=0.5, lmbda=0.5)
    third = [3 + (4 + 6.265625 / 2) / 2, 3 + (4 + 5.0625 / 2) / 2, 2 + (4 + 2.125) / 2, 4.25, 5]
    second = [3 + (4 + 5.5 / 2) / 2, 3 + (4 + 2 / 2) / 2, 2]
    assert_values(of_lives(out[GROUP, "value_target"]), [[3 + (4 + 7 / 2) / 2, 7], second, third])


# ----------------------------------------------------------------------- actions' critics
@sources
@masked
@pytest.mark.parametrize("recurrent", [True, False])
def test_maddpg(source, mask_dead_values, recurrent):
    net = TensorDictModule(Fixed(1.0, 0.0), [(GROUP, "observation")], [(GROUP, "logits")])
    critic = fixed("chosen_action_value", 8.0, reads=("observation", "joint_action"))
    options = {"mask_dead_values": mask_dead_values, "recurrent": recurrent}
    loss = MADDPGLoss(GroupActor(net, GROUP, n_actions=2), critic, **GAMMA, **options)
    batch = agent_signals(episode(source), GROUP)
    assert_values(of_lives(loss._target(batch if recurrent else batch[0])), ONE_STEP)


def masac(**options):
    """Both actions are worth 8 and drawn alike: ln 2 of entropy a step."""
    net = TensorDictModule(Fixed(0.0, 0.0), [(GROUP, "observation")], [(GROUP, "logits")])
    critic = fixed("chosen_action_value", 8.0, 8.0, reads=("observation", "joint_action"))
    actor = SoftActor(net, GROUP, n_actions=2)
    return MASACLoss(actor, [critic], Temperature(0.5), **GAMMA, **options)


@sources
@masked
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_masac(source, mask_dead_values, alpha):
    """The entropy where an agent is cut off counts as that of the living."""
    batch = agent_signals(episode(source), GROUP)[0]
    found = masac(mask_dead_values=mask_dead_values)._target(batch, torch.tensor(alpha))
    half = alpha * torch.tensor(2.0).log().item() / 2
    assert_values(of_lives(found), [[y + half if y == 5 else y for y in row] for row in ONE_STEP])


@sources
@masked
@pytest.mark.parametrize("recurrent", [True, False])
def test_masac_over_three_steps(source, mask_dead_values, recurrent):
    """Rows of steps know each agent's end; a single transition ends for all where one is cut off."""
    loss = masac(n_steps=3, mask_dead_values=mask_dead_values, recurrent=recurrent)
    batch = agent_signals(episode(source), GROUP)
    if not recurrent:
        config = SimpleNamespace(n_steps=3, mask_dead_values=mask_dead_values)
        family = SimpleNamespace(config=config, experiment_config=SimpleNamespace(gamma=0.5))
        SacFamily._several_steps(family, GROUP, batch)
        batch = batch[0]
    last = [2.75, 3.5, 5]
    expected = [[3.5, 5], [1.75, 1.5, 1], [2.75, 2.75, *last]]
    if not recurrent:
        expected = [[3.5, 5], [3.5, 5, 1], [3.5, 5, *last]]
    assert_values(of_lives(loss._target(batch, torch.tensor(0.0))), expected)


# ----------------------------------------------------------------------- action values
RETURNS = [{}, {"lmbda": 0.5}, {"n_steps": 2}]


@sources
@pytest.mark.parametrize("options", RETURNS)
def test_iql(source, options):
    loss = IndependentQLoss(fixed("action_value", 8.0, 8.0), sequences=True, **GAMMA, **options)
    batch = agent_signals(episode(source), GROUP)
    loss(batch)
    two = [[3.5, 5], [3.5, 1.5, 1], [3.5, 3.5, 3.5, 3.5, 5]]
    expected = MIXED if "lmbda" in options else two if "n_steps" in options else ONE_STEP
    assert_values(of_lives(8 - batch[GROUP, "td_error"]), expected)


TEAM = {
    "one step": [15, 15, 6, 5, 5],
    "lmbda": [3 + (12 + 15 / 2) / 2, 15, 2 + (4 + 4.25 / 2) / 2, 1 + (4 + 5 / 2) / 2, 5],
    "n_steps": [3 + 15 / 2, 15, 2 + 5 / 2, 1 + 5 / 2, 5],
}
"""Rewards 3, 3, 2, 1, 1; what is reached is worth 24 (with the agent that is cut off there), 24, 8, 8, 8."""


def team_errors(loss, source):
    batch = team_signals(episode(source), GROUP, "sum")
    loss(batch)
    return (torch.tensor([24.0, 24, 16, 8, 8]) - batch[GROUP, "td_error"][0, :, 0, 0]).tolist()


@sources
@pytest.mark.parametrize("options", RETURNS)
def test_vdn(source, options):
    network = fixed("action_value", 8.0, 8.0)
    loss = QMixingLoss(network, SumMixer(3), sequences=True, **GAMMA, **options)
    assert team_errors(loss, source) == pytest.approx(TEAM[next(iter(options), "one step")])


@sources
@pytest.mark.parametrize("lmbda", [0.0, 0.5])
def test_pqn_vdn(source, lmbda):
    loss = PqnLoss(fixed("action_value", 8.0, 8.0), SumMixer(3), lmbda=lmbda, **GAMMA)
    assert team_errors(loss, source) == pytest.approx(TEAM["lmbda" if lmbda else "one step"])


@sources
def test_facmac(source):
    net = TensorDictModule(Fixed(1.0, 0.0), [(GROUP, "observation")], [(GROUP, "logits")])
    critic = fixed("chosen_action_value", 8.0, reads=("observation", "joint_action"))
    actor, mixer = GroupActor(net, GROUP, n_actions=2), SumMixer(3)
    loss = FACMACLoss(actor, critic, mixer, **GAMMA)
    batch = team_signals(episode(source), GROUP, "sum")[0]
    assert loss._target(batch).flatten().tolist() == pytest.approx(TEAM["one step"])
