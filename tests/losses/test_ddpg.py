"""MADDPG's loss: the limit N = 1, who sees what, which gradient goes where, ends, masks, messages."""

import copy

import pytest
import torch
from small_ddpg import make_actor, make_batch, make_critic, make_loss, make_losses
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import nn
from torchrl.objectives import DDPGLoss, SoftUpdate, ValueEstimators

from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import FrozenView, TargetUpdater, target_copy

TEAMS = {"red": 3, "blue": 2}


def gradients(module):
    return [parameter.grad for parameter in module.parameters()]


# ---------------------------------------------------------------------- one agent
class Cat(nn.Module):
    """Q of one agent over its own observation and action."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, observation, action):
        return self.net(torch.cat([observation, action], -1))


def ddpg_and_ours():
    """TorchRL's DDPG and ours, with equal networks, optimisers and target updates."""
    actor = make_actor(n_agents=1)
    value, observation = Cat(), ("agents", "observation")
    q_key = ("agents", "chosen_action_value")
    theirs = DDPGLoss(
        copy.deepcopy(actor.network),
        TensorDictModule(copy.deepcopy(value), [observation, ("agents", "action")], [q_key]),
        delay_actor=True,
        delay_value=True,
    )
    theirs.set_keys(
        state_action_value=q_key,
        reward=("agents", "reward"),
        done=("agents", "done"),
        terminated=("agents", "terminated"),
        priority=("agents", "td_error"),
    )
    theirs.make_value_estimator(ValueEstimators.TD0, gamma=0.9)
    critic = TensorDictModule(value, [observation, ("agents", "joint_action")], [q_key])
    ours = MADDPGLoss(actor, critic, gamma=0.9)
    return theirs, ours


def values_of(params):
    items = sorted(params.flatten_keys(".").items())
    return [value for name, value in items if not name.endswith(("low", "high"))]


def their_networks(loss, of=""):
    networks = [getattr(loss, f"{of}{name}_network_params") for name in ("actor", "value")]
    return [value for params in networks for value in values_of(params)]


def our_networks(*modules):
    return [dict(m.named_parameters())[n] for m in modules for n, _ in sorted(m.named_parameters())]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_one_agent_is_ddpg_step_for_step():
    theirs, ours = ddpg_and_ours()
    updates = SoftUpdate(theirs, tau=0.05), TargetUpdater(ours.target_pairs(), tau=0.05)
    optimisers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (theirs, ours)]
    for _ in range(5):
        batch = make_batch({"agents": 1})
        batch["next", "agents", "done"] = batch["next", "agents", "terminated"]
        results = theirs(batch.clone()), ours(batch)
        for name in ("loss_actor", "loss_value"):
            torch.testing.assert_close(results[0][name], results[1][name])
        for result in results:
            (result["loss_actor"] + result["loss_value"]).backward()
        theirs_grad = [v.grad for v in their_networks(theirs)]
        assert_same(theirs_grad, [v.grad for v in our_networks(ours.actor, ours.critic)])
        for optimiser, update in zip(optimisers, updates, strict=True):
            optimiser.step()
            optimiser.zero_grad()
            update.step()
    assert_same(their_networks(theirs), our_networks(ours.actor, ours.critic))
    target = our_networks(ours.target_actor, ours.target_critic)
    assert_same(their_networks(theirs, "target_"), target)


# ------------------------------------------------------------- gradients of the actor
def cross_critic():
    """Agent 0's Q is agent 1's action; agent 1's Q is 0: what does agent 1's actor learn of it?"""

    def q(joint_action):
        first = joint_action[..., 0, 1].unsqueeze(-1)
        return torch.stack([first, torch.zeros_like(first)], -2)

    return TensorDictModule(q, [("agents", "joint_action")], [("agents", "chosen_action_value")])


@pytest.mark.parametrize(("actor_gradient", "learns"), [("own", False), ("all", True)])
def test_an_agents_critic_teaches_others_only_in_the_form_all(actor_gradient, learns):
    actor = make_actor(d_action=1)
    loss = MADDPGLoss(actor, cross_critic(), actor_gradient=actor_gradient)
    batch = make_batch()
    batch["agents", "action"] = batch["agents", "action"][..., :1]
    loss.compute(batch)["loss_actor"].backward()
    for grad in gradients(loss.actor):  # [n_agents, ...]: one network per agent
        assert not grad[0].any()
        assert bool(grad[1].any()) is learns


def test_in_the_own_form_others_actions_come_from_the_batch():
    loss, batch = make_loss(), make_batch()
    before = loss.compute(batch)["loss_actor"]
    batch["agents", "action"] = -batch["agents", "action"]
    assert loss.compute(batch)["loss_actor"] != before
    loss.actor_gradient = "all"
    before = loss.compute(batch)["loss_actor"]
    batch["agents", "action"] = -batch["agents", "action"]
    assert loss.compute(batch)["loss_actor"] == before


@pytest.mark.parametrize("n_actions", [None, 4])
def test_the_two_losses_share_no_graph_and_teach_only_their_own_network(n_actions):
    loss = make_loss(n_actions=n_actions)
    out = loss(make_batch(n_actions=n_actions))
    out["loss_actor"].backward()
    assert all(grad is None for grad in gradients(loss.critic))
    assert all(grad.any() for grad in gradients(loss.actor))
    loss.zero_grad()
    out["loss_value"].backward()
    assert all(grad is None or not grad.any() for grad in gradients(loss.actor))
    assert all(grad.any() for grad in gradients(loss.critic))
    targets = [loss.target_actor, loss.target_critic, loss._frozen_critic.module]
    for parameter in (p for module in targets for p in module.parameters()):
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_metrics_carry_no_gradient_and_the_batch_gains_only_the_priorities():
    loss, batch = make_loss(regularisation_coeff=0.1), make_batch()
    keys = set(batch.keys(True, True))
    out = loss(batch)
    assert set(loss.out_keys) == set(out.keys())
    assert {k for k in out.keys() if out[k].requires_grad} == {"loss_actor", "loss_value"}
    assert set(batch.keys(True, True)) - keys == {("agents", "td_error"), ("agents", "priority")}
    assert batch["agents", "td_error"].shape == (8, 2)
    item = batch["agents", "td_error"].mean(-1).reshape(8, 1, 1).expand(8, 2, 1)
    torch.testing.assert_close(batch["agents", "priority"], item)
    torch.testing.assert_close(batch["agents", "td_error"].mean(), out["td_error"])


def test_regularisation_is_the_mean_square_before_the_bound():
    loss, batch = make_loss(), make_batch()
    parameter = loss.actor.network(batch.clone())["agents", "parameter"]
    before = loss.compute(batch)["loss_actor"]
    loss.regularisation_coeff = 0.5
    after = loss.compute(batch)["loss_actor"]
    torch.testing.assert_close(after - before, 0.5 * parameter.square().mean())


# ------------------------------------------------------------------- frozen critic
def assert_view_follows(loss, batch):
    rows = loss._rows(loss._taken(batch))
    live = loss._action_value(loss.critic, batch, rows)
    assert torch.equal(loss._action_value(loss._frozen_critic.module, batch, rows), live)


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda loss: loss.double().float()])
def test_frozen_critic_follows_steps_checkpoints_copies_and_casts(remake):
    batch = make_batch()
    other = make_loss().state_dict()
    loss = remake(make_loss())
    assert_view_follows(loss, batch)
    before = next(loss.critic.parameters()).detach().clone()
    loss(batch)["loss_value"].backward()
    torch.optim.Adam(loss.critic.parameters(), lr=0.1).step()
    assert not torch.equal(before, next(loss.critic.parameters()))
    assert_view_follows(loss, batch)
    loss.load_state_dict(other)
    assert_view_follows(loss, batch)


def test_frozen_critic_is_listed_nowhere_and_shares_buffers():
    assert not any("frozen" in name for name in make_loss().state_dict())
    norm = nn.BatchNorm1d(3)
    view = FrozenView(norm)
    norm(torch.randn(5, 3))
    assert torch.equal(view.module.running_mean, norm.running_mean)
    assert norm.running_mean.any()


# ------------------------------------------------------------------ competing teams
def test_a_critic_sees_the_other_teams_actions_and_observations():
    losses = make_losses(TEAMS)
    batch = make_batch(TEAMS, "blue")
    before = losses["blue"](batch.clone())["pred_value"]
    for entry in ("action", "observation"):
        changed = batch.clone()
        changed["joint", "red", entry] = -changed["joint", "red", entry]
        assert losses["blue"](changed)["pred_value"] != before


def test_targets_use_the_other_teams_target_actor_as_it_moves():
    losses = make_losses(TEAMS)
    batch = make_batch(TEAMS, "blue")
    before = losses["blue"](batch)["target_value"]
    with torch.no_grad():
        for parameter in losses["red"].target_actor.parameters():
            parameter.add_(0.5)
    assert losses["blue"](batch)["target_value"] != before


def test_a_loss_saves_and_moves_only_its_own_target_actor():
    losses = make_losses(TEAMS)
    own = sum(p.numel() for p in losses["blue"].actor.parameters())
    critic = sum(p.numel() for p in losses["blue"].critic.parameters())
    assert sum(v.numel() for v in losses["blue"].parameters()) == 2 * (own + critic)
    reds = [p.clone() for p in losses["red"].target_actor.parameters()]
    with torch.no_grad():
        for actor in (losses["red"].actor, losses["blue"].actor):
            next(actor.parameters()).add_(1.0)
    TargetUpdater(losses["blue"].target_pairs(), tau=0.5).step()
    assert_same(list(losses["red"].target_actor.parameters()), reds)


def test_target_value_by_hand_over_two_teams():
    losses = make_losses(TEAMS, gamma=0.5)
    loss, batch = losses["blue"], make_batch(TEAMS, "blue")
    batch["next", "blue", "terminated"][:] = False
    following = batch["next"]
    actions = []
    for name in TEAMS:
        out = losses[name].target_actor.network(following["joint"].clone())
        actions.append(out[name, "action"].flatten(-2))
    following["blue", "joint_action"] = torch.cat(actions, -1).unsqueeze(-2).expand(-1, 2, -1)
    value = loss.target_critic(following.clone())["blue", "chosen_action_value"]
    expected = following["blue", "reward"] + 0.5 * value
    torch.testing.assert_close(loss(batch)["target_value"], expected.mean())


# ---------------------------------------------------------------------------- ends
def test_terminated_does_not_bootstrap_and_a_time_limit_does():
    loss, batch = make_loss(), make_batch()
    following = batch["next", "agents"]
    following["truncated"] = ~following["terminated"]
    following["done"] = torch.ones_like(following["terminated"])
    target = loss._target(batch)
    reward = following["reward"].squeeze(-1)
    terminated = following["terminated"].squeeze(-1)
    assert torch.equal(target[terminated], reward[terminated])
    assert (target[~terminated] != reward[~terminated]).all()


def with_deaths(batch):
    """Agent 0 is dead from entry 4 on, and dies in entry 3."""
    alive = torch.ones(8, 2, dtype=torch.bool)
    alive[4:, 0] = False
    batch["agents", "mask"] = alive
    batch["next", "agents", "mask"] = alive.clone()
    batch["next", "agents", "mask"][3, 0] = False
    return batch


@pytest.mark.parametrize("actor_gradient", ["own", "all"])
def test_the_dead_teach_no_actor_and_are_not_taught(actor_gradient):
    loss, batch = make_loss(actor_gradient=actor_gradient), with_deaths(make_batch())
    batch["agents", "mask"][:, 0] = False
    loss.compute(batch)["loss_actor"].backward()
    for grad in gradients(loss.actor):
        assert not grad[0].any()
        assert grad[1].any()


def test_masked_dead_values_are_not_learned_and_not_bootstrapped_from():
    loss, batch = make_loss(mask_dead_values=True), with_deaths(make_batch())
    batch["next", "agents", "terminated"][:] = False
    target = loss._target(batch)
    assert target[3, 0] == batch["next", "agents", "reward"][3, 0, 0]
    before = loss(batch)["loss_value"]
    batch["next", "agents", "reward"][5, 0] = 1e6
    assert loss(batch)["loss_value"] == before
    loss.mask_dead_values = False
    assert loss(batch)["loss_value"] > 1e6


def test_who_was_only_cut_off_is_bootstrapped_if_the_dead_are_not_valued():
    """Agent 0's mask is cleared in entry 3, where it was cut off."""
    loss, batch = make_loss(mask_dead_values=True), with_deaths(make_batch())
    batch["next", "agents", "terminated"][:] = False
    batch["next", "agents", "truncated"] = torch.zeros(8, 2, 1, dtype=torch.bool)
    assert loss._target(batch)[3, 0] == batch["next", "agents", "reward"][3, 0, 0]
    batch["next", "agents", "truncated"][3, 0] = True
    found = loss._target(batch)
    loss.mask_dead_values = False
    assert found[3, 0] == loss._target(batch)[3, 0] != batch["next", "agents", "reward"][3, 0, 0]


def test_who_lives_after_a_step_must_be_known_if_the_dead_are_not_valued():
    loss, batch = make_loss(mask_dead_values=True), make_batch()
    batch["agents", "mask"] = torch.ones(8, 2, dtype=torch.bool)
    with pytest.raises(KeyError, match=r"next.*agents.*mask"):
        loss(batch)


def test_padded_steps_and_importance_weights_count_in_the_loss():
    loss, batch = make_loss(), make_batch()
    first = loss(batch[:4])["loss_value"]
    batch["step_mask"] = (torch.arange(8) < 4).unsqueeze(-1)
    torch.testing.assert_close(loss(batch)["loss_value"], first)
    batch["priority_weight"] = torch.full((8,), 0.5)
    torch.testing.assert_close(loss(batch)["loss_value"], 0.5 * first)


# ------------------------------------------------------------------------ recurrence
class Memory(TensorDictModuleBase):
    """An actor whose action is the sum of what it saw since the last ``is_init`` of the row."""

    in_keys = [("agents", "observation"), "is_init"]  # noqa: RUF012
    out_keys = [("agents", "action")]  # noqa: RUF012

    def forward(self, tensordict):
        total, sums = 0.0, []
        starts = tensordict["is_init"].unsqueeze(-1).unbind(1)
        for seen, start in zip(tensordict["agents", "observation"].unbind(1), starts, strict=True):
            total = torch.where(start, 0.0, total) + seen
            sums.append(total)
        return tensordict.set(("agents", "action"), torch.stack(sums, 1))


def recurrent_targets(is_init, seen, reached):
    """Targets ``[T]`` of one agent, where Q^- is the target actor's action and rewards are 0."""
    shape = (1, len(seen), 1, 1)
    keys = [("agents", "joint_action")], [("agents", "chosen_action_value")]
    critic = TensorDictModule(lambda joint_action: joint_action, *keys)
    loss = MADDPGLoss(GroupActor(Memory()), critic, gamma=1.0, recurrent=True)
    following = {
        "observation": torch.tensor(reached).reshape(shape),
        "reward": torch.zeros(shape),
        "terminated": torch.zeros(shape, dtype=torch.bool),
    }
    batch = TensorDict(
        {
            "agents": {
                "observation": torch.tensor(seen).reshape(shape),
                "action": torch.zeros(shape),
            },
            "is_init": torch.tensor(is_init).reshape(shape[:-1]),
            "next": {"agents": following, "is_init": torch.zeros(shape[:-1], dtype=torch.bool)},
        },
        shape[:2],
    )
    return loss._target(batch).flatten().tolist()


def test_target_networks_with_memory_have_seen_the_steps_before():
    start = [True, False, False]
    assert recurrent_targets(start, [1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == [3.0, 7.0, 15.0]


def test_an_episode_that_begins_inside_a_row_starts_without_memory():
    start = [True, False, True, False]
    targets = recurrent_targets(start, [1.0, 2.0, 100.0, 200.0], [2.0, 4.0, 200.0, 400.0])
    # Exact would be 300 and 700: the memory lacks the new episode's own first step, as documented.
    assert targets == [3.0, 7.0, 200.0, 600.0]


# ------------------------------------------------------------------------ invariants
def independent_critic(n_agents):
    def q(observation, action):
        return (observation[..., :2] * action).sum(-1, keepdim=True)

    keys = [("agents", "observation"), ("agents", "joint_action")]
    return TensorDictModule(q, keys, [("agents", "chosen_action_value")])


def test_permuting_agents_permutes_what_independent_shared_networks_do():
    actor = make_actor(n_agents=4, share=True)
    loss = MADDPGLoss(actor, independent_critic(4), central=False)
    batch, order = make_batch({"agents": 4}), torch.tensor([2, 0, 3, 1])
    permuted = batch.clone()
    for data in (permuted, permuted["next"]):
        data["agents"] = data["agents"][:, order]
    out, other = loss(batch), loss(permuted)
    torch.testing.assert_close(out["loss_actor"], other["loss_actor"])
    torch.testing.assert_close(
        batch["agents", "td_error"][:, order], permuted["agents", "td_error"]
    )


def test_an_independent_critic_sees_its_own_action_only():
    loss = MADDPGLoss(make_actor(), independent_critic(2), central=False)
    batch = make_batch()
    loss(batch)
    before = batch["agents", "td_error"].clone()
    batch["agents", "action"][:, 0] *= -1.0
    loss(batch)
    changed = batch["agents", "td_error"] != before
    assert changed[:, 0].all()
    assert not changed[:, 1].any()


def test_two_losses_with_different_keys_do_not_disturb_each_other():
    losses = make_losses(TEAMS)
    assert losses["red"].tensor_keys.reward == ("red", "reward")
    assert losses["blue"].tensor_keys.reward == ("blue", "reward")
    assert ("red", "reward") in losses["red"].in_keys
    losses["red"](make_batch(TEAMS, "red"))


# -------------------------------------------------------------------------- discrete
def test_critics_see_discrete_actions_as_one_hot_vectors():
    loss, batch = make_loss(n_actions=4), make_batch(n_actions=4)
    (taken,) = loss._taken(batch)
    assert torch.equal(taken.argmax(-1), batch["agents", "action"])
    fresh, _ = loss.actor(batch)
    for action in (taken, fresh):
        assert action.shape == (8, 2, 4)
        assert torch.equal(action.sum(-1), torch.ones(8, 2))
        assert set(action.unique().tolist()) == {0.0, 1.0}


def test_one_discrete_agent_keeps_its_agent_dimension():
    loss = make_loss(n_agents=1, n_actions=3)
    batch = make_batch({"agents": 1}, n_actions=3)
    assert loss.actor.taken(batch).shape == (8, 1, 3)
    loss(batch)


def test_unavailable_actions_are_drawn_neither_now_nor_next():
    actor = make_actor(n_actions=4)
    batch = make_batch(n_actions=4, shape=(200,))
    mask = torch.rand(200, 2, 4) < 0.5
    mask[..., 3] = True
    batch["agents", "action_mask"] = mask
    action, logits = actor(batch)
    assert not (action.bool() & ~mask).any()
    assert (actor.entropy(batch, logits) <= mask.sum(-1).float().log() + 1e-5).all()


def test_a_discrete_actor_learns_the_better_action():
    def q(joint_action):
        return joint_action.unflatten(-1, (2, 4))[
            ..., 0, 1:2
        ]  # both are paid for agent 0's action 1

    keys = [("agents", "joint_action")]
    critic = TensorDictModule(q, keys, [("agents", "chosen_action_value")])
    loss = MADDPGLoss(make_actor(n_actions=4), critic, actor_gradient="all")
    optimiser = torch.optim.Adam(loss.actor.parameters(), lr=0.05)
    for _ in range(60):
        loss.compute(make_batch(n_actions=4, shape=(32,)))["loss_actor"].backward()
        optimiser.step()
        optimiser.zero_grad()
    action, _ = loss.actor(make_batch(n_actions=4, shape=(500,)))
    assert action[:, 0, 1].mean() > 0.95


# ---------------------------------------------------------------------------- compile
# Per-agent networks are TorchRL's; TensorDict warns about what it does itself to run them.
third_party_warnings = [
    pytest.mark.filterwarnings("ignore:Using lock_:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning"),
]


@pytest.mark.parametrize(
    ("groups", "n_actions", "gradient", "backend"),
    [
        pytest.param(
            TEAMS,
            4,
            "straight_through",
            "eager",
            marks=third_party_warnings,
            id="two teams, discrete",
        ),
        pytest.param(
            TEAMS, 4, "expected", "eager", marks=third_party_warnings, id="mean over own actions"
        ),
        pytest.param(
            {"agents": 2},
            None,
            "straight_through",
            "inductor",
            marks=[*third_party_warnings, pytest.mark.slow],
            id="one group, continuous, all of the compiler",
        ),
    ],
)
def test_compiles_whole_and_equals_eager(groups, n_actions, gradient, backend):
    group = next(iter(groups))
    options = {"regularisation_coeff": 1e-3, "discrete_gradient": gradient}
    loss = make_losses(groups, n_actions=n_actions, **options)[group]
    batch = make_batch(groups, group, n_actions)
    compiled = torch.compile(loss.compute, fullgraph=True, backend=backend)
    results, grads = [], []
    for function in (loss.compute, compiled):
        torch.manual_seed(3)
        out = function(batch)
        (out["loss_actor"] + out["loss_value"]).backward()
        results.append(out)
        grads.append([p.grad.clone() for p in loss.parameters() if p.grad is not None])
        loss.zero_grad()
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name])
    assert_same(*grads)


# ---------------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_function": "l3"}, r"`loss_function` must be one of l2, l1, smooth_l1; got 'l3'"),
        (
            {"discrete_gradient": "exact"},
            r"`discrete_gradient` must be one of straight_through, expected; got 'exact'",
        ),
        (
            {"discrete_gradient": "expected", "actor_gradient": "all"},
            r"it needs actor_gradient=own \(got all\)",
        ),
        ({"actor_gradient": "none"}, r"`actor_gradient` must be one of own, all; got 'none'"),
        ({"gamma": 1.5}, r"`gamma` must lie in \[0, 1\]; got 1.5"),
        ({"regularisation_coeff": -1.0}, r"`regularisation_coeff` must be at least 0; got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_loss(**options)


def test_target_actors_without_the_own_group_are_refused():
    actor = make_actor()
    with pytest.raises(ValueError, match=r"own group 'agents'; got \['blue'\]"):
        MADDPGLoss(actor, make_critic({"agents": 2}, "agents"), target_actors={"blue": actor})


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"`temperature` must be above 0; got 0.0"):
        GroupActor(make_actor().network, n_actions=3, temperature=0.0)


def test_live_actors_are_no_target_actors():
    actor, critic = make_actor(), make_critic({"agents": 2}, "agents")
    with pytest.raises(ValueError, match=r"`target_actors` must be .* Take `target_copy\(network"):
        MADDPGLoss(actor, critic, target_actors={"agents": actor})
    MADDPGLoss(actor, critic, target_actors={"agents": target_copy(actor)})


@pytest.mark.parametrize("place", [(), ("next",)])
def test_critics_of_several_groups_ask_for_the_joined_entries(place):
    batch = make_batch(TEAMS, "blue").exclude((*place, "joint"))
    with pytest.raises(KeyError, match=r"of the batch and of its 'next'; one is missing.*join_gr"):
        make_losses(TEAMS)["blue"](batch)


@pytest.mark.parametrize("place", [(), ("next",)])
def test_joined_entries_without_the_masks_that_there_are_are_refused(place):
    batch = make_batch(TEAMS, "blue", n_actions=3)
    losses = make_losses(TEAMS, n_actions=3)
    mask = torch.ones(*batch.shape, TEAMS["blue"], 3, dtype=torch.bool)
    batch[(*place, "blue", "action_mask")] = mask
    with pytest.raises(KeyError, match=r"lacks \('blue', 'action_mask'\), which the batch has"):
        losses["blue"](batch)
    batch[(*place, "joint", "blue", "action_mask")] = mask
    assert losses["blue"](batch)["loss_value"].isfinite()


@pytest.mark.parametrize("key", [("blue", "reward"), ("joint", "red", "action")])
def test_a_missing_entry_is_named(key):
    batch = make_batch(TEAMS, "blue")
    batch = batch.exclude(("next", *key) if "reward" in key else key)
    with pytest.raises(KeyError, match="the batch has no entry"):
        make_losses(TEAMS)["blue"](batch)


def test_critics_take_actions_scaled_from_their_bounds():
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 3.0])
    network = TensorDictModule(torch.nn.Linear(2, 2), [("agents", "x")], [("agents", "action")])
    actor = GroupActor(network, bounds=(low, high), action_scale=2.0)
    taken = torch.stack([low, (low + high) / 2, high]).unsqueeze(0)
    batch = TensorDict({"agents": {"action": taken}}, batch_size=[1])
    torch.testing.assert_close(
        actor.taken(batch)[0], torch.tensor([[-2.0] * 2, [0.0] * 2, [2.0] * 2])
    )
    with pytest.raises(ValueError, match="`action_scale` must be above 0; got 0"):
        GroupActor(network, bounds=(low, high), action_scale=0.0)
