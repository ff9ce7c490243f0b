"""MASAC's loss: the limit N = 1, targets by hand, which gradient goes where, masks, ends, messages."""

import copy

import pytest
import torch
from small_ddpg import make_batch
from small_sac import make_actor, make_loss, make_losses, with_masks
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import DiscreteSACLoss, SACLoss, SoftUpdate, ValueEstimators

from marl_td.losses.masac import MASACLoss
from marl_td.losses.targets import TargetUpdater
from marl_td.losses.temperature import Temperature

TEAMS = {"red": 3, "blue": 2}
N_ACTIONS = 4
OBSERVATION, ACTION = ("agents", "observation"), ("agents", "action")
Q_KEY = ("agents", "chosen_action_value")


# ---------------------------------------------------------------------- one agent
class Cat(nn.Module):
    """Q of one agent over its own observation (and action)."""

    def __init__(self, d_in, d_out):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d_in, 16), nn.Tanh(), nn.Linear(16, d_out))

    def forward(self, *inputs):
        return self.net(torch.cat(inputs, -1))


def their_loss(actor, critics, discrete, alpha_init):
    """TorchRL's loss with copies of these networks."""
    actor = copy.deepcopy(actor.network)
    if discrete:
        inputs, q_key = [OBSERVATION], ("agents", "action_value")
        policy = ProbabilisticActor(
            actor,
            in_keys={"logits": ("agents", "logits")},
            out_keys=[ACTION],
            distribution_class=Categorical,
        )
    else:
        inputs, q_key = [OBSERVATION, ACTION], ("agents", "state_action_value")
        policy = ProbabilisticActor(
            actor,
            in_keys={"loc": ("agents", "loc"), "scale": ("agents", "scale")},
            out_keys=[ACTION],
            distribution_class=TanhNormal,
            return_log_prob=True,
            log_prob_key=("agents", "log_prob"),
        )
    options = {"loss_function": "l2", "alpha_init": alpha_init, "target_entropy": -2.0}
    value = TensorDictModule(copy.deepcopy(critics[0]), inputs, [q_key])
    if discrete:
        options |= {"action_space": "categorical", "num_actions": N_ACTIONS}
    theirs = (DiscreteSACLoss if discrete else SACLoss)(policy, value, **options)
    theirs.set_keys(
        **{"action_value" if discrete else "state_action_value": q_key},
        action=ACTION,
        **{name: ("agents", name) for name in ("reward", "done", "terminated")},
        priority=("agents", "td_error"),
        log_prob=("agents", "log_prob"),
    )
    theirs.make_value_estimator(ValueEstimators.TD0, gamma=0.9)
    update = SoftUpdate(theirs, tau=0.05)
    with torch.no_grad():
        for index, critic in enumerate(critics):
            for name, parameter in critic.named_parameters():
                key = ("module", *name.split("."))
                for params in (theirs.qvalue_network_params, theirs.target_qvalue_network_params):
                    params.data[key][index].copy_(parameter)
    return theirs, update


def sac_and_ours(discrete):
    """TorchRL's SAC with its target update, and our loss, with equal networks."""
    n_actions = N_ACTIONS if discrete else None
    actor = make_actor(n_agents=1, n_actions=n_actions)
    critics = [Cat(3, N_ACTIONS) if discrete else Cat(5, 1) for _ in range(2)]
    inputs = [OBSERVATION] if discrete else [OBSERVATION, ("agents", "joint_action")]
    modules = [TensorDictModule(critic, inputs, [Q_KEY]) for critic in critics]
    # Alone in its group an agent sees everything, central or not.
    options = {"central": False} if discrete else {}
    ours = MASACLoss(actor, modules, Temperature(-2.0, init=0.5), gamma=0.9, **options)
    return *their_loss(actor, critics, discrete, 0.5), ours


def their_parameters(loss, of=lambda tensor: tensor):
    """Actor, critics one by one, targets one by one, log alpha: those, or their gradients."""
    actor = loss.actor_network_params.flatten_keys(".")
    found = [of(actor[name]) for name in sorted(actor.keys())]
    for params in (loss.qvalue_network_params, loss.target_qvalue_network_params):
        flat = params.flatten_keys(".")
        tensors = [of(flat[name]) for name in sorted(flat.keys())]
        found += [None if t is None else t[index] for index in (0, 1) for t in tensors]
    return [*found, of(loss.log_alpha)]


def our_parameters(loss, of=lambda tensor: tensor):
    """The same of ours."""
    modules = [loss.actor, *loss.critics, *loss.target_critics]
    named = [sorted(module.named_parameters()) for module in modules]
    alpha = of(loss.temperature.log_alpha)
    return [of(parameter) for pairs in named for _, parameter in pairs] + [alpha.squeeze()]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert (one is None) is (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("discrete", [False, True])
def test_one_agent_is_sac_step_for_step(discrete):
    """Losses and gradients of ten updates, and every parameter after them, with the same noise."""
    theirs, their_update, ours = sac_and_ours(discrete)
    updates = their_update, TargetUpdater(ours.target_pairs(), tau=0.05)
    optimisers = [torch.optim.Adam(m.parameters(), lr=1e-2, eps=1e-4) for m in (theirs, ours)]
    names = {"loss_actor": "loss_actor", "loss_value": "loss_qvalue", "loss_alpha": "loss_alpha"}
    start = [tensor.detach().clone() for tensor in our_parameters(ours)]
    assert_same(their_parameters(theirs), start)
    for seed in range(10):
        batch = make_batch({"agents": 1}, n_actions=N_ACTIONS if discrete else None, shape=(16,))
        batch["next", "agents", "done"] = batch["next", "agents", "terminated"]
        results = []
        for loss in (theirs, ours):
            torch.manual_seed(seed)
            results.append(loss(batch.clone()))
        for mine, his in {**names, "alpha": "alpha", "entropy": "entropy"}.items():
            torch.testing.assert_close(results[1][mine], results[0][his])
        sum(results[0][name] for name in names.values()).backward()
        sum(results[1][name] for name in names).backward()
        gradient = lambda tensor: tensor.grad  # noqa: E731
        assert_same(their_parameters(theirs, gradient), our_parameters(ours, gradient))
        for optimiser, update in zip(optimisers, updates, strict=True):
            optimiser.step()
            optimiser.zero_grad()
            update.step()
    assert_same(their_parameters(theirs), our_parameters(ours))
    assert all(not torch.equal(*pair) for pair in zip(start, our_parameters(ours), strict=True))
