"""Networks that a user has compiled are networks."""

import pytest
import small_ddpg
import small_ppo
import torch
from small_qmix import make_batch, mixer, network

from marl_td.losses import MADDPGLoss, MAPPOLoss, QMixingLoss
from marl_td.losses.group_actor import GroupActor


def compiled(module):
    return torch.compile(module, backend="eager")


def qmix(wrap):
    return QMixingLoss(wrap(network()), wrap(mixer("qmix"))), make_batch()


def maddpg(wrap):
    actor = GroupActor(wrap(small_ddpg.make_actor().network))
    critic = wrap(small_ddpg.make_critic({"agents": 2}, "agents"))
    return MADDPGLoss(actor, critic), small_ddpg.make_batch()


def mappo(wrap):
    loss = MAPPOLoss(wrap(small_ppo.actor("discrete")), wrap(small_ppo.critic()))
    return loss, small_ppo.collected(small_ppo.actor("discrete"))


# A user's plain `torch.compile` shows torch's and TensorDict's warnings.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [qmix, maddpg, mappo])
def test_a_compiled_network_learns_as_a_plain_one(make):
    results = []
    for wrap in (lambda module: module, compiled):
        torch.manual_seed(0)
        loss, batch = make(wrap)
        if isinstance(loss, MAPPOLoss):
            loss.estimate(batch, gamma=0.9, lmbda=0.8)
        out = loss(batch)
        total = sum(value for key, value in out.items() if key.startswith("loss_"))
        total.backward()
        grads = [p.grad for p in loss.parameters() if p.grad is not None]
        results.append((total, grads))
    (plain, expected), (total, found) = results
    torch.testing.assert_close(total, plain)
    torch.testing.assert_close(found, expected)
    assert found
