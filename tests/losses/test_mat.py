"""MAT's loss: MAPPO's two losses on one graph, whose gradients add up in what they share."""

import pytest
import torch
from small_ppo import D_OBS, GROUP, N_ACTIONS, actor, collected
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.data import Categorical as CategoricalSpec
from torchrl.modules import ProbabilisticActor

from marl_td.losses.mat import MatLoss
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.value_norm import PopArt


def parts():
    """Shared layers, what is left of the actor, and a value of what the shared layers give."""
    trunk = nn.Sequential(nn.Linear(D_OBS, 8), nn.Tanh())
    trunk = TensorDictModule(trunk, [(GROUP, "observation")], [(GROUP, "encoding")])
    rest = ProbabilisticActor(
        TensorDictModule(nn.Linear(8, N_ACTIONS), [(GROUP, "encoding")], [(GROUP, "logits")]),
        in_keys={"logits": (GROUP, "logits")},
        out_keys=[(GROUP, "action")],
        spec=CategoricalSpec(N_ACTIONS),
        distribution_class=Categorical,
    )
    value = TensorDictModule(nn.Linear(8, 1), [(GROUP, "encoding")], [(GROUP, "state_value")])
    return trunk, rest, value


@pytest.mark.parametrize("coefficient", [1.0, 0.3])
def test_it_is_mappos_two_losses_and_their_gradients_added(coefficient):
    trunk, rest, value = parts()
    options = {"critic_coeff": coefficient, "entropy_coeff": 0.05}
    ours = MatLoss(trunk, rest, value, **options)
    whole = ProbabilisticTensorDictSequential(trunk, *rest)
    theirs = MAPPOLoss(whole, TensorDictSequential(trunk, value), **options)
    batch = collected(actor("discrete"))
    wanted = theirs.estimate(batch.clone(), gamma=0.9, lmbda=0.8)
    found = ours.estimate(batch.clone(), gamma=0.9, lmbda=0.8)
    for key in ("advantage", "value_target", "old_value"):
        torch.testing.assert_close(found[GROUP, key], wanted[GROUP, key])
    one, two = ours(found), theirs(wanted)
    torch.testing.assert_close(one["loss_objective"], two["loss_objective"] + two["loss_critic"])
    torch.testing.assert_close(one["value_loss"], two["loss_critic"].detach())
    params = [p for part in (trunk, rest, value) for p in part.parameters()]
    mine = torch.autograd.grad(one["loss_objective"], params)
    others = torch.autograd.grad(two["loss_objective"] + two["loss_critic"], params)
    for a, b in zip(mine, others, strict=True):
        torch.testing.assert_close(a, b)
    assert {id(p) for p in ours.parameters()} == {id(p) for p in params}
    assert set(one.keys()) == set(ours.out_keys)


def test_popart_rescales_the_value_and_it_is_one_graph():
    torch._dynamo.reset()
    trunk, rest, value = parts()
    loss = MatLoss(trunk, rest, value, value_norm=PopArt(value, beta=0.5))
    batch = loss.estimate(collected(actor("discrete")), gamma=0.9, lmbda=0.8)
    before = loss.denormalise(loss.whole_critic(batch.clone())[GROUP, "state_value"].squeeze(-1))
    loss(batch)
    after = loss.denormalise(loss.whole_critic(batch.clone())[GROUP, "state_value"].squeeze(-1))
    torch.testing.assert_close(before, after)
    loss.eval()
    compiled = torch.compile(loss.compute, fullgraph=True, backend="eager")
    expected, found = loss.compute(batch), compiled(batch)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])
