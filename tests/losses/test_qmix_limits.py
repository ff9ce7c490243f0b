"""QMIX with a mixing network that is a sum is VDN, step for step."""

import copy

import pytest
import torch
from small_qmix import D_STATE, SmallGru, make_batch, make_episodes, network
from torch import nn

from marl_td.losses.q_mixing import QMixingLoss
from marl_td.losses.targets import TargetUpdater
from marl_td.models.mixers import QMixer, SumMixer

SHIFT = 64.0
"""Far above any value here: the mixing units stay where ELU is the identity."""


@torch.no_grad()
def constant(layers: nn.Module, value: float) -> None:
    """Make what a hypernetwork gives ``value``, whatever the state."""
    last = layers[-1] if isinstance(layers, nn.Sequential) else layers
    last.weight.zero_()
    last.bias.fill_(value)


def sum_as_qmix(n_agents: int, d_embed: int, sign: float = 1.0) -> QMixer:
    """``sum over E units of (ELU(sum_i q_i + SHIFT) / E) - SHIFT``: a sum, exact but for rounding."""
    mixer = QMixer(n_agents, D_STATE, d_embed=d_embed)
    constant(mixer.weight_1, sign)
    constant(mixer.bias_1, SHIFT)
    constant(mixer.weight_2, sign / d_embed)
    constant(mixer.bias_2, -SHIFT)
    return mixer


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_mixing_network_is_a_sum(sign):
    """Weights count by their absolute values."""
    mixer = sum_as_qmix(3, 4, sign).double()
    value, state = torch.randn(7, 3).double(), torch.randn(7, D_STATE).double()
    torch.testing.assert_close(mixer.mix(value, state), value.sum(-1))
    with torch.no_grad():
        mixer.weight_1[-1].bias[0].mul_(2.0)
    assert not torch.allclose(mixer.mix(value, state), value.sum(-1))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("share", [True, False])
def test_qmix_with_it_is_vdn_step_for_step(recurrent, share):
    """Losses, gradients and parameters of the agents, target updates included; with lambda-returns, too."""
    net = (SmallGru() if recurrent else network(3, share)).double()
    options = {"gamma": 0.9, "sequences": recurrent, "lmbda": 0.6 if recurrent else 0.0}
    losses = [
        QMixingLoss(copy.deepcopy(net), mixer, **options)
        for mixer in (SumMixer(3), sum_as_qmix(3, 4).double())
    ]
    adams = [torch.optim.Adam(loss.network.parameters(), lr=1e-2) for loss in losses]
    updaters = [TargetUpdater(loss.target_pairs(), tau=0.3) for loss in losses]
    start = [p.clone() for p in losses[0].network.parameters()]
    make = make_episodes if recurrent else make_batch
    for _ in range(5):
        batch = make(n_agents=3, masked=True, mortal=True)
        batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
        results = []
        for loss, adam, updater in zip(losses, adams, updaters, strict=True):
            out = loss(batch.clone())
            adam.zero_grad()
            out["loss_value"].backward()
            adam.step()
            updater.step()
            live = list(loss.network.parameters())
            targets = loss.target_network.parameters()
            results.append([*out.values(), *(p.grad for p in live), *live, *targets])
        for vdn, qmix in zip(*results, strict=True):
            torch.testing.assert_close(qmix, vdn, rtol=1e-6, atol=1e-9)
    for before, after in zip(start, losses[0].network.parameters(), strict=True):
        assert not torch.allclose(before, after)
