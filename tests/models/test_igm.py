"""Individual-global-max: every agent's own best action gives the best joint action, for all weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.evaluation.games import game_algorithm, game_algorithms, one_step_batch
from marl_td.evaluation.table_fit import seeded_losses
from marl_td.losses.functional.action_values import masked_argmax
from marl_td.losses.q_mixing import MixedQLoss, QMixingLoss
from marl_td.models.mixers import QMixer
from marl_td.models.tables import TableNetworks

N_ACTIONS = (3, 4, 2)
CLAIMED = [name for name in game_algorithms() if name != "shaq"]
"""SHAQ's training prediction raises the values of actions that are not greedy, see its own tests."""


class SignedMixer(QMixer):
    """QMIX's network without its absolute values: not monotone."""

    def mix(self, local_value, *inputs):
        weight_1, bias_1, weight_2, bias_2 = self.weights(self.scaled(*inputs))
        hidden = torch.nn.functional.elu(
            (local_value.unsqueeze(-2) @ weight_1).squeeze(-2) + bias_1
        )
        return (hidden * weight_2).sum(-1) + bias_2


def signed_loss(seed: int) -> MixedQLoss:
    networks = TableNetworks(1, len(N_ACTIONS), max(N_ACTIONS))
    torch.manual_seed(seed)
    return QMixingLoss(networks.agents("action_value", 4), SignedMixer(3, 1))


def loss_of(name: str, seed: int) -> MixedQLoss:
    sizes = {"n_states": 1, "n_agents": len(N_ACTIONS), "n_actions": max(N_ACTIONS)}
    (loss,) = seeded_losses(game_algorithm(name), [seed], **sizes)
    return loss


@torch.no_grad()
def keeps_igm(loss: MixedQLoss, seed: int, scale: float, dead: int | None = None) -> bool:
    """Whether the greedy joint action has the largest team value; some actions are unavailable."""
    torch.manual_seed(seed)
    for parameter in loss.parameters():
        parameter.copy_(scale * torch.randn_like(parameter))
    batch = one_step_batch(torch.zeros(N_ACTIONS))
    alive = torch.ones(len(batch), 3, dtype=torch.bool)
    if dead is not None:
        alive[:, dead] = False
    batch["agents", "mask"] = alive
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        value = loss.team_value(batch)
        action_value = loss.network(batch[:1].copy())["agents", "action_value"]
    greedy = masked_argmax(action_value, batch["agents", "action_mask"][:1])
    best = value[(batch["agents", "action"] == greedy).all(-1)]
    return bool(torch.isclose(best, value.max(), rtol=1e-4, atol=1e-4))


@pytest.mark.parametrize("name", CLAIMED)
@given(st.integers(0, 10_000), st.sampled_from((0.2, 1.0, 3.0)), st.sampled_from((None, 0, 2)))
def test_the_agents_own_best_actions_are_the_teams(name, seed, scale, dead):
    assert keeps_igm(loss_of(name, seed), seed, scale, dead)


@pytest.mark.parametrize("name", CLAIMED)
def test_a_dead_agents_action_changes_nothing(name):
    loss, batch = loss_of(name, 1), one_step_batch(torch.zeros(N_ACTIONS))
    batch["agents", "mask"] = torch.tensor([True, False, True]).expand(len(batch), 3)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        value = loss.team_value(batch).reshape(N_ACTIONS)
    torch.testing.assert_close(value, value[:, :1].expand(N_ACTIONS))


def test_a_mixer_without_absolute_values_is_caught():
    assert not all(keeps_igm(signed_loss(seed), seed, 1.0) for seed in range(10))
