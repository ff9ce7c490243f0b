"""MATD3's loss: the limits N = 1 (TD3) and no tricks (MADDPG), each of its three tricks, and their use."""

import copy
import itertools

import pytest
import torch
from small_ddpg import make_actor, make_batch, make_critic, make_matd3, own_critic
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.objectives import SoftUpdate, TD3Loss, ValueEstimators

from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.functional.deterministic import smoothing_noise
from marl_td.losses.matd3 import MATD3Loss
from marl_td.losses.targets import TargetUpdater

UNIT = {"bounds": (-torch.ones(1), torch.ones(1))}
Q_KEY = ("agents", "chosen_action_value")


# ------------------------------------------------------------------------ one agent
class Cat(nn.Module):
    """Q of one agent over its own observation and action."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, observation, action):
        return self.net(torch.cat([observation, action], -1))


def critic_of(value, action):
    return TensorDictModule(value, [("agents", "observation"), ("agents", action)], [Q_KEY])


def td3_and_ours():
    """TorchRL's TD3 and ours, with equal networks: the critics' parameters are theirs, which it draws."""
    actor, values = make_actor(n_agents=1, **UNIT), [Cat(), Cat()]
    theirs = TD3Loss(
        copy.deepcopy(actor.network),
        critic_of(Cat(), "action"),
        bounds=(-1.0, 1.0),
        policy_noise=0.3,
        noise_clip=0.4,
        loss_function="l2",
    )
    theirs.set_keys(
        action=("agents", "action"),
        state_action_value=Q_KEY,
        reward=("agents", "reward"),
        done=("agents", "done"),
        terminated=("agents", "terminated"),
        priority=("agents", "td_error"),
    )
    theirs.make_value_estimator(ValueEstimators.TD0, gamma=0.9)
    critics = [critic_of(value, "joint_action") for value in values]
    with torch.no_grad():
        drawn = their_tensors(theirs)[-8:]
        for tensor, value in zip(our_tensors(*critics), drawn, strict=True):
            tensor.copy_(value)
    noise = {"target_noise": 0.3, "target_noise_clip": 0.4}
    return theirs, MATD3Loss(actor, *critics, gamma=0.9, **noise)


def their_tensors(loss, of=""):
    """Actor's tensors, then those of the first critic, then those of the second."""
    actor = getattr(loss, f"{of}actor_network_params").flatten_keys(".")
    critics = getattr(loss, f"{of}qvalue_network_params").flatten_keys(".")
    names = [name for name in sorted(actor.keys()) if not name.endswith(("low", "high"))]
    stacked = [critics[name] for name in sorted(critics.keys())]
    return [actor[name] for name in names] + [row[k] for k in range(2) for row in stacked]


def our_tensors(*modules):
    return [dict(m.named_parameters())[n] for m in modules for n, _ in sorted(m.named_parameters())]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_one_agent_is_td3_step_for_step():
    """Same noise, actor and targets at every second step: networks and targets after six steps are equal."""
    theirs, ours = td3_and_ours()
    soft = SoftUpdate(theirs, tau=0.05)
    moving = TargetUpdater(ours.target_pairs(), tau=0.05, interval=ours.delays["loss_actor"])
    their_actor = [p for n, p in theirs.named_parameters() if n.startswith("actor")]
    their_critic = [p for n, p in theirs.named_parameters() if n.startswith("qvalue")]
    networks = ours.networks()
    optimisers = [
        [torch.optim.Adam(params, lr=1e-2) for params in both]
        for both in (
            (their_actor, their_critic),
            [
                [p for m in networks[n] for p in m.parameters()]
                for n in ("loss_actor", "loss_value")
            ],
        )
    ]
    for step in range(1, 7):
        batch = make_batch({"agents": 1})
        batch["next", "agents", "done"] = batch["next", "agents", "terminated"]
        results = []
        for loss in (theirs, ours):
            torch.manual_seed(step)
            results.append(loss(batch.clone()))
        torch.testing.assert_close(results[0]["loss_actor"], results[1]["loss_actor"])
        torch.testing.assert_close(results[0]["loss_qvalue"], results[1]["loss_value"])
        for result, name, (actor, critic) in zip(
            results, ("loss_qvalue", "loss_value"), optimisers, strict=True
        ):
            (result["loss_actor"] + result[name]).backward()
            critic.step()
            if step % 2 == 0:
                actor.step()
            actor.zero_grad()
            critic.zero_grad()
        moving.step()
        if step % 2 == 0:
            soft.step()
    assert_same(their_tensors(theirs), our_tensors(ours.actor, ours.critic, ours.second_critic))
    targets = ours.target_actor, ours.target_critic, ours.target_second_critic
    assert_same(their_tensors(theirs, "target_"), our_tensors(*targets))


# ------------------------------------------------------------------- the three tricks
@pytest.mark.parametrize("n_actions", [None, 4])
def test_without_noise_and_with_equal_critics_it_is_maddpg(n_actions):
    loss = make_matd3(n_actions=n_actions, target_noise=0.0, equal=True, regularisation_coeff=0.1)
    options = {"regularisation_coeff": 0.1}
    plain = MADDPGLoss(loss.actor, loss.critic, target_actors=dict(loss._actors), **options)
    batch = make_batch(n_actions=n_actions)
    results = []
    for each in (loss, plain):
        torch.manual_seed(3)
        results.append(each.compute(batch))
    for name, value in results[1].items():
        factor = 2.0 if name == "loss_value" else 1.0
        torch.testing.assert_close(results[0][name], factor * value)


def test_the_target_is_the_smaller_of_both_critics_value():
    loss, batch = make_matd3(target_noise=0.0), make_batch()
    batch["next", "agents", "terminated"][:] = False
    following = batch["next"]
    rows = loss._target_rows(following)
    values = [
        loss._action_value(critic, following, rows)
        for critic in (loss.target_critic, loss.target_second_critic)
    ]
    smaller = torch.minimum(*values)
    assert (smaller != values[0]).any() and (smaller != values[1]).any()
    reward = batch["next", "agents", "reward"].squeeze(-1)
    torch.testing.assert_close(loss._target(batch), reward + loss.gamma * smaller)


def test_noise_is_on_all_agents_target_actions_and_stays_inside_clip_and_bounds():
    torch.manual_seed(0)
    noise = {"target_noise": 0.5, "target_noise_clip": 0.1}
    loss = make_matd3(action_scale=2.0, **UNIT, **noise)
    batch = make_batch(shape=(256,))
    quiet = loss.target_actor(batch["next"])[0]
    found = loss._target_rows(batch["next"]).unflatten(-1, (2, 2))
    assert (found == found[:, :1]).all()  # both critics see the same joint action
    moved = found[:, 0] - quiet
    # In the critic's units the half range is 2: the noise's clip is 0.2, the bounds are at 2.
    assert (moved.abs().amax((0, 2)) > 0.19).all()
    assert moved.abs().max() <= 0.2 + 1e-6
    with torch.no_grad():
        for parameter in loss.target_actor.parameters():
            parameter.mul_(100.0)
    assert loss._target_rows(batch["next"]).abs().max() <= 2.0


def test_noise_does_not_depend_on_the_order_in_memory():
    like = torch.zeros(3, 4, 5)
    torch.manual_seed(1)
    first = smoothing_noise(like, sigma=1.0, clip=0.5)
    torch.manual_seed(1)
    turned = like.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert turned.stride() != like.stride()
    assert torch.equal(first, smoothing_noise(turned, sigma=1.0, clip=0.5))
    assert first.abs().max() == 0.5


def test_discrete_target_actions_are_plain_samples():
    loss = make_matd3(n_actions=3, target_noise=5.0)
    rows = loss._target_rows(make_batch(n_actions=3)["next"])
    assert ((rows == 0) | (rows == 1)).all()
    assert (rows.sum(-1) == 2).all()


def test_the_actor_climbs_the_first_critic_only():
    loss, batch = make_matd3(), make_batch()
    before = loss.compute(batch)["loss_actor"]
    with torch.no_grad():
        next(loss.second_critic.parameters()).add_(1.0)
    assert loss.compute(batch)["loss_actor"] == before
    with torch.no_grad():
        next(loss.critic.parameters()).add_(1.0)
    assert loss.compute(batch)["loss_actor"] != before


def test_both_critics_learn_and_have_targets():
    loss = make_matd3()
    loss(make_batch())["loss_value"].backward()
    for critic in (loss.critic, loss.second_critic):
        assert all(parameter.grad.any() for parameter in critic.parameters())
    pairs = loss.target_pairs()
    assert len(pairs) == 3 and (loss.second_critic, loss.target_second_critic) in pairs
    assert not any(p.requires_grad for p in loss.target_second_critic.parameters())


def test_targets_move_at_every_second_step():
    loss = make_matd3()
    with torch.no_grad():
        for parameter in loss.critic.parameters():
            parameter.add_(1.0)
    updater = TargetUpdater(loss.target_pairs(), tau=0.5, interval=2)
    target = next(loss.target_critic.parameters())
    seen = [target.clone()]
    for _ in range(4):
        updater.step()
        seen.append(target.clone())
    assert [torch.equal(a, b) for a, b in itertools.pairwise(seen)] == [True, False] * 2


# --------------------------------------------------------------------- overestimation
def bias_of_targets(kind, n_critics, seed):
    """Mean target over 16 agents where nothing pays, after actors have climbed critics that know nothing.

    The true value of everything is 0. Networks just made are errors of mean 0; what actors find in them is
    not. Rewards are 0 and gamma is 1, so that a target is the next value.
    """
    torch.manual_seed(seed)
    actor = make_actor(n_agents=16, **UNIT)
    loss = kind(actor, *[own_critic(16) for _ in range(n_critics)], central=False, gamma=1.0)
    batch = make_batch({"agents": 16}, shape=(32,))
    batch["next", "agents", "reward"][:] = 0.0
    batch["next", "agents", "terminated"][:] = False
    batch["agents"] = (
        batch["next", "agents"].select("observation").set("action", batch["agents", "action"])
    )
    optimiser = torch.optim.Adam(loss.actor.parameters(), lr=3e-2)
    for _ in range(40):
        optimiser.zero_grad()
        loss.compute(batch)["loss_actor"].backward()
        optimiser.step()
    TargetUpdater(loss.target_pairs(), tau=1.0).step()
    return loss._target(batch).mean().item()


def test_two_critics_overestimate_less_than_one():
    """One critic's target is above the truth by what the actor found; the smaller of two is not."""
    one = [bias_of_targets(MADDPGLoss, 1, seed) for seed in range(3)]
    two = [bias_of_targets(MATD3Loss, 2, seed) for seed in range(3)]
    assert min(one) > 0.05
    assert max(two) < 0.0


# --------------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_noise": -0.1}, "`target_noise` must be at least 0; got -0.1"),
        ({"target_noise_clip": -1.0}, "`target_noise_clip` must be at least 0; got -1.0"),
        ({"policy_freq": 0}, "`policy_freq` must be at least 1; got 0"),
        ({"loss_function": "l3"}, "`loss_function` must be one of l2, l1, smooth_l1; got 'l3'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    groups = {"agents": 2}
    critics = [make_critic(groups, "agents") for _ in range(2)]
    with pytest.raises(ValueError, match=message):
        MATD3Loss(make_actor(), *critics, **options)
