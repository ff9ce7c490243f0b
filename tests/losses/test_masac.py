"""MASAC's loss: the limit N = 1, targets by hand, which gradient goes where, masks, ends, messages."""

import copy

import pytest
import torch
from small_ddpg import make_batch
from small_sac import make_actor, make_loss, make_losses, with_masks
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import DiscreteSACLoss, SACLoss, SoftUpdate, ValueEstimators

from marl_td.losses.functional.soft import categorical_sample
from marl_td.losses.masac import MASACLoss
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.targets import TargetUpdater
from marl_td.losses.temperature import Temperature
from marl_td.losses.value_norm import ValueNorm

TEAMS = {"red": 3, "blue": 2}
N_ACTIONS = 4
OBSERVATION, ACTION = ("agents", "observation"), ("agents", "action")
Q_KEY, Q_BLUE = ("agents", "chosen_action_value"), ("blue", "chosen_action_value")


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


# -------------------------------------------------------------------------- targets
def test_a_continuous_target_by_hand_over_two_teams():
    losses = make_losses(TEAMS, gamma=0.5)
    loss, batch = losses["blue"], make_batch(TEAMS, "blue")
    batch["next", "blue", "terminated"][:] = False
    torch.manual_seed(1)
    found = loss._target(batch, torch.tensor([0.3]))
    torch.manual_seed(1)
    following = batch["next"]
    samples = [losses[g].actor(following["joint"]) for g in TEAMS]  # in the order of the groups
    joint = torch.cat([sample.action.flatten(-2) for sample in samples], -1)
    following["blue", "joint_action"] = joint.unsqueeze(-2).expand(-1, 2, -1)
    values = [critic(following.clone())[Q_BLUE].squeeze(-1) for critic in loss.target_critics]
    expected = torch.minimum(*values) - 0.3 * samples[1].log_prob
    reward = following["blue", "reward"].squeeze(-1)
    torch.testing.assert_close(found, reward + 0.5 * expected)


def test_a_discrete_target_is_an_expectation_over_available_own_actions():
    loss = make_loss(n_actions=N_ACTIONS, gamma=0.5)
    batch = with_masks(make_batch(n_actions=N_ACTIONS), "agents", N_ACTIONS)
    following = batch["next"]
    following["agents", "terminated"][:] = False
    torch.manual_seed(1)
    found = loss._target(batch, torch.tensor([0.3]))
    torch.manual_seed(1)
    others = loss.actor(following).action
    logits = loss.actor.network(following.clone())["agents", "logits"]
    mask = following["agents", "action_mask"]
    reward = following["agents", "reward"].squeeze(-1)
    for row in range(8):
        for agent in range(2):
            one = following[row : row + 1].clone()
            joint = others[row : row + 1].clone()
            joint[:, agent] = 0.0  # its own action is not told
            one["agents", "joint_action"] = joint.flatten(-2).unsqueeze(-2).expand(1, 2, -1)
            values = [critic(one.clone())[Q_KEY][0, agent] for critic in loss.target_critics]
            least = torch.minimum(*values)
            open_ = mask[row, agent]
            log_pi = logits[row, agent][open_].log_softmax(-1)
            value = (log_pi.exp() * (least[open_] - 0.3 * log_pi)).sum()
            torch.testing.assert_close(found[row, agent], reward[row, agent] + 0.5 * value)


def test_the_teams_entropy_is_the_sum_over_the_living():
    batch = make_batch({"agents": 3})
    batch["next", "agents", "terminated"][:] = False
    alive = torch.rand(8, 3) < 0.7
    alive[0, 0], alive[1, 0] = False, True
    batch["next", "agents", "mask"] = alive
    own = make_loss(3, gamma=0.5)
    own.entropy_bonus = "team"
    found = {}
    for alpha in (0.0, 0.3):
        torch.manual_seed(1)
        found[alpha] = own._target(batch, torch.tensor([alpha]))
    torch.manual_seed(1)
    log_prob = own.actor(batch["next"]).log_prob
    bonus = -0.3 * torch.where(alive, log_prob, 0.0).sum(-1, keepdim=True).expand(-1, 3)
    torch.testing.assert_close(found[0.3] - found[0.0], 0.5 * bonus)
    own.entropy_bonus = "own"
    torch.manual_seed(1)
    alone = own._target(batch, torch.tensor([0.3])) - found[0.0]
    torch.testing.assert_close(alone, -0.15 * torch.where(alive, log_prob, 0.0))


def test_terminated_does_not_bootstrap_and_a_time_limit_does():
    loss, batch = make_loss(), make_batch()
    following = batch["next", "agents"]
    following["done"] = torch.ones_like(following["terminated"])
    target = loss._target(batch, loss.temperature())
    reward, ended = following["reward"].squeeze(-1), following["terminated"].squeeze(-1)
    assert torch.equal(target[ended], reward[ended])
    assert (target[~ended] != reward[~ended]).all()


def test_a_stored_discount_takes_the_place_of_gamma():
    loss, batch = make_loss(gamma=0.9), make_batch()
    alpha = loss.temperature()
    targets = []
    for discount in (None, 0.9, 0.81):
        if discount is not None:
            following = batch["next", "agents"]
            following["discount"] = torch.full_like(following["reward"], discount)
        torch.manual_seed(1)
        targets.append(loss._target(batch, alpha))
    reward = batch["next", "agents", "reward"].squeeze(-1)
    torch.testing.assert_close(targets[1], targets[0])
    torch.testing.assert_close(targets[2] - reward, 0.9 * (targets[0] - reward))


def test_normalised_critics_predict_what_they_are_taught():
    loss, batch = make_loss(value_norm=ValueNorm(beta=0.0)), make_batch()
    batch["next", "agents", "terminated"][:] = True
    batch["next", "agents", "reward"] = 50.0 + 10.0 * torch.randn(8, 2, 1)
    out = loss(batch)
    reward = batch["next", "agents", "reward"]
    mean, scale = loss.value_norm.statistics()
    torch.testing.assert_close(mean, reward.mean())
    torch.testing.assert_close(out["target_value"], reward.mean())
    predicted = loss._values(loss.critics, batch, loss._rows(loss._taken(batch)))
    wanted = ((reward.squeeze(-1) - mean) / scale).expand_as(predicted)
    torch.testing.assert_close(
        out["loss_value"], (predicted - wanted).square().sum(0).mean(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(out["pred_value"], (predicted * scale + mean).mean())
    before = loss.value_norm.running_mean.clone()
    loss.eval()(make_batch())
    assert torch.equal(loss.value_norm.running_mean, before)


# ------------------------------------------------------------------------ gradients
def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("n_actions", [None, N_ACTIONS])
def test_named_losses_share_no_graph_and_teach_only_their_own(n_actions):
    loss = make_loss(n_actions=n_actions)
    batch = make_batch(n_actions=n_actions)
    keys = set(batch.keys(True, True))
    out = loss(batch)
    assert set(out.keys()) == set(loss.out_keys)
    assert {k for k in out.keys() if out[k].requires_grad} == {
        "loss_actor",
        "loss_value",
        "loss_alpha",
    }
    assert set(batch.keys(True, True)) - keys == {("agents", "td_error"), ("agents", "priority")}
    taught = {"loss_actor": loss.actor, "loss_value": loss.critics, "loss_alpha": loss.temperature}
    for name, module in taught.items():
        out[name].backward()
        for other in taught.values():
            found = gradients(other)
            if other is module:
                assert all(grad.any() for grad in found)
            else:
                assert all(grad is None for grad in found)
        loss.zero_grad()
    assert not any(p.requires_grad for p in loss.target_critics.parameters())


def cross_critic():
    """Agent 0's Q is agent 1's action; agent 1's Q is 0: what does agent 1's actor learn of it?"""

    def q(joint_action):
        first = joint_action[..., 0, 2].unsqueeze(-1)
        return torch.stack([first, torch.zeros_like(first)], -2)

    return TensorDictModule(q, [("agents", "joint_action")], [Q_KEY])


@pytest.mark.parametrize(
    ("actor_gradient", "learns"), [("own", False), ("current", False), ("all", True)]
)
def test_an_agents_critics_teach_others_only_in_the_form_all(actor_gradient, learns):
    temperature = Temperature(0.0, init=1e-9, fixed=True)
    loss = MASACLoss(make_actor(), [cross_critic()], temperature, actor_gradient=actor_gradient)
    loss.compute(make_batch())["loss_actor"].backward()
    for grad in gradients(loss.actor):  # [n_agents, ...]: one network per agent
        assert grad[0].abs().max() < 1e-6
        assert bool(grad[1].abs().max() > 1e-6) is learns


def test_others_act_as_in_the_batch_or_as_they_would_now():
    loss, batch = make_loss(actor_gradient="own"), make_batch()
    results = {}
    for actor_gradient in ("own", "current"):
        loss.actor_gradient = actor_gradient
        for sign in (1.0, -1.0):
            changed = batch.clone()
            changed["agents", "action"] *= sign
            torch.manual_seed(1)
            results[actor_gradient, sign] = loss.compute(changed)["loss_actor"]
    assert results["own", 1.0] != results["own", -1.0]
    assert results["current", 1.0] == results["current", -1.0]


def test_a_fixed_temperature_stays_and_a_learned_one_moves_towards_the_target():
    fixed = make_loss(alpha={"fixed": True})
    out = fixed(make_batch())
    assert not out["loss_alpha"].requires_grad
    assert list(fixed.temperature.parameters()) == []
    for target, sign in ((50.0, -1.0), (-50.0, 1.0)):  # too little entropy: alpha must rise
        loss = make_loss(alpha={"target_entropy": target, "n_agents": 2})
        loss(make_batch())["loss_alpha"].backward()
        assert torch.equal(loss.temperature.log_alpha.grad.sign(), sign * torch.ones(2))


def test_a_temperature_is_put_back_into_its_limits():
    temperature = Temperature(0.0, init=0.5, low=0.1, high=2.0)
    for value, limit in ((5.0, 2.0), (-9.0, 0.1)):
        temperature.log_alpha.data.fill_(value)
        torch.testing.assert_close(temperature(), torch.tensor([limit]))
        torch.testing.assert_close(temperature.log_alpha.exp(), torch.tensor([limit]))


# ---------------------------------------------------------------------------- masks
@pytest.mark.parametrize("actor_gradient", ["own", "current", "all"])
def test_the_dead_teach_no_actor_and_no_temperature(actor_gradient):
    loss = make_loss(alpha={"n_agents": 2}, actor_gradient=actor_gradient)
    batch = make_batch()
    batch["agents", "mask"] = torch.tensor([False, True]).expand(8, 2)
    out = loss.compute(batch)
    (out["loss_actor"] + out["loss_alpha"]).backward()
    for grad in [*gradients(loss.actor), loss.temperature.log_alpha.grad]:
        assert not grad[0].any()
        assert grad[1].any()


def test_masked_dead_values_are_not_learned_and_not_bootstrapped_from():
    loss, batch = make_loss(mask_dead_values=True), make_batch()
    alive = torch.ones(8, 2, dtype=torch.bool)
    alive[4:, 0] = False
    batch["agents", "mask"], batch["next", "agents", "mask"] = alive, alive.clone()
    batch["next", "agents", "mask"][3, 0] = False
    batch["next", "agents", "terminated"][:] = False
    target = loss._target(batch, loss.temperature())
    assert target[3, 0] == batch["next", "agents", "reward"][3, 0, 0]
    losses = []
    for reward in (0.0, 1e6):
        batch["next", "agents", "reward"][5, 0] = reward
        torch.manual_seed(0)
        losses.append(loss(batch)["loss_value"])
    assert losses[0] == losses[1]
    loss.mask_dead_values = False
    assert loss(batch)["loss_value"] > 1e6


def test_who_was_only_cut_off_is_bootstrapped_if_the_dead_are_not_valued():
    """Agent 0's mask is cleared in entry 3, where it was cut off."""
    loss, batch = make_loss(mask_dead_values=True), make_batch()
    alive = torch.ones(8, 2, dtype=torch.bool)
    batch["agents", "mask"], batch["next", "agents", "mask"] = alive, alive.clone()
    batch["next", "agents", "mask"][3, 0] = False
    batch["next", "agents", "terminated"][:] = False
    batch["next", "agents", "truncated"] = ~batch["next", "agents", "mask"].unsqueeze(-1)
    targets = []
    for masked in (True, False):
        loss.mask_dead_values = masked
        torch.manual_seed(0)
        targets.append(loss._target(batch, loss.temperature()))
    assert torch.equal(*targets)
    assert targets[0][3, 0] != batch["next", "agents", "reward"][3, 0, 0]


def test_padded_steps_and_importance_weights_count_in_the_critics_loss():
    loss, batch = make_loss(), make_batch()
    batch["next", "agents", "terminated"][:] = True  # no noise in the targets
    first = loss(batch[:4])["loss_value"]
    batch["step_mask"] = (torch.arange(8) < 4).unsqueeze(-1)
    torch.manual_seed(1)
    plain = loss(batch)
    torch.testing.assert_close(plain["loss_value"], first)
    batch["priority_weight"] = torch.full((8,), 0.5)
    torch.manual_seed(1)
    weighted = loss(batch)
    torch.testing.assert_close(weighted["loss_value"], 0.5 * first)
    assert weighted["loss_actor"] == plain["loss_actor"]


def test_unavailable_actions_have_no_probability_and_no_gradient():
    loss = make_loss(n_actions=N_ACTIONS)
    batch = with_masks(make_batch(n_actions=N_ACTIONS, shape=(200,)), "agents", N_ACTIONS)
    mask = batch["agents", "action_mask"]
    sample = loss.actor(batch)
    assert not (sample.action.bool() & ~mask).any()
    assert torch.equal(sample.prob > 0, mask)
    assert (-sample.log_prob <= mask.sum(-1).float().log() + 1e-5).all()
    logits = torch.randn(5, N_ACTIONS, requires_grad=True)
    only = torch.zeros(5, N_ACTIONS, dtype=torch.bool)
    only[:, :2] = True
    chosen = categorical_sample(logits, only, torch.zeros_like(logits))
    (chosen.log_prob + (chosen.prob * torch.arange(4.0)).sum(-1)).sum().backward()
    assert logits.grad.isfinite().all() and not logits.grad[:, 2:].any() and logits.grad[:, 0].all()


# -------------------------------------------------------------------- frozen critics
@pytest.mark.parametrize("remake", [copy.deepcopy, lambda loss: loss.double().float()])
def test_frozen_critics_follow_steps_copies_and_casts(remake):
    batch, loss = make_batch(), remake(make_loss())
    rows = loss._rows(loss._taken(batch))
    for _ in range(2):
        live = loss._values(loss.critics, batch, rows)
        assert torch.equal(loss._values(loss._frozen_critics.module, batch, rows), live)
        loss(batch)["loss_value"].backward()
        torch.optim.Adam(loss.critics.parameters(), lr=0.1).step()
    assert not any("frozen" in name for name in loss.state_dict())


# ------------------------------------------------------------------- competing teams
def test_critics_see_the_other_teams_and_targets_their_policies():
    losses = make_losses(TEAMS)
    batch = make_batch(TEAMS, "blue")
    before = losses["blue"](batch.clone())["pred_value"]
    for entry in ("action", "observation"):
        changed = batch.clone()
        changed["joint", "red", entry] = -changed["joint", "red", entry]
        assert losses["blue"](changed)["pred_value"] != before
    torch.manual_seed(1)
    target = losses["blue"](batch)["target_value"]
    with torch.no_grad():
        for parameter in losses["red"].actor.parameters():
            parameter.add_(0.5)
    torch.manual_seed(1)
    assert losses["blue"](batch)["target_value"] != target
    names = [name for name, _ in losses["blue"].named_parameters()]
    assert not any("red" in name for name in names)
    own = {id(p) for p in losses["blue"].parameters()}
    assert not own & {id(p) for p in losses["red"].actor.parameters()}


# ------------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_function": "l3"}, r"`loss_function` must be one of .*; got 'l3'"),
        (
            {"actor_gradient": "none"},
            r"`actor_gradient` must be one of own, current, all; got 'none'",
        ),
        ({"entropy_bonus": "none"}, r"`entropy_bonus` must be one of own, team; got 'none'"),
        ({"gamma": 1.5}, r"`gamma` must lie in \[0, 1\]; got 1.5"),
        ({"n_steps": 0}, "`n_steps` must be at least 1; got 0"),
        ({"n_critics": 0}, "`critics` must hold at least one critic"),
        ({"huber_delta": 0.0}, "`huber_delta` must be above 0; got 0.0"),
        ({"alpha": {"target_entropy": float("nan")}}, "`target_entropy` must be a finite number"),
        ({"alpha": {"n_agents": 0}}, "`n_agents` must be at least 1; got 0"),
        ({"alpha": {"init": 0.0}}, r"alpha must be above 0 .* got 0 in \[0, inf\]"),
        ({"alpha": {"init": 3.0, "high": 2.0}}, r"got 3 in \[0, 2\]"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_loss(**options)


@pytest.mark.parametrize("options", [{"target_entropy": "auto"}, {"init": None}])
def test_what_is_no_number_is_refused(options):
    name, value = next(iter(options.items()))
    with pytest.raises(TypeError, match=f"`{name}` must be a number; got {value!r}"):
        make_loss(alpha=options)


def test_actors_without_the_own_group_are_refused():
    actor, other = make_actor(), make_actor("blue")
    with pytest.raises(ValueError, match=r"own group 'agents'; got \['blue'\]"):
        MASACLoss(actor, [cross_critic()], Temperature(0.0), actors={"blue": other})


# ------------------------------------------------------------------------- plain normal actions
class Fixed(torch.nn.Module):
    """A normal policy with the mean 1 and the deviation 3 in every dimension."""

    def forward(self, observation):
        return torch.full_like(observation, 1.0), torch.full_like(observation, 3.0)


@pytest.mark.parametrize("bounds", [(-10.0, 10.0), (0.0, 8.0)])
@pytest.mark.parametrize("action_scale", [1.0, 2.0])
def test_the_density_of_a_plain_normal_counts_actions_in_unit_bounds(bounds, action_scale):
    """Of two dimensions, the second of half the range; the target entropy counts actions likewise."""
    keys = [("agents", "loc"), ("agents", "scale")]
    network = TensorDictModule(Fixed(), [("agents", "observation")], keys)
    low, high = (torch.tensor([end, end / 2]) for end in bounds)
    options = {"bounds": (low, high), "action_scale": action_scale}
    actor = SoftActor(network, squash=False, **options)
    sample = actor(TensorDict({"agents": {"observation": torch.zeros(5, 3, 2)}}, [5]))
    middle, half = (low + high) / 2, (high - low) / 2
    counted = torch.distributions.Normal((1.0 - middle) / half, 3.0 / half)
    expected = counted.log_prob(sample.action / action_scale).sum(-1)
    torch.testing.assert_close(sample.log_prob, expected)


def test_without_bounds_the_density_is_that_of_the_action():
    keys = [("agents", "loc"), ("agents", "scale")]
    network = TensorDictModule(Fixed(), [("agents", "observation")], keys)
    sample = SoftActor(network, squash=False)(
        TensorDict({"agents": {"observation": torch.zeros(5, 3, 2)}}, [5])
    )
    expected = torch.distributions.Normal(1.0, 3.0).log_prob(sample.action).sum(-1)
    torch.testing.assert_close(sample.log_prob, expected)
