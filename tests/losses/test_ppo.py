"""The MAPPO loss: its limit N = 1, its masks, its graphs, the value normaliser, compilation and messages."""

import copy

import pytest
import torch
from small_ppo import GROUP, actor, collected, critic, small_loss
from torch import nn
from torchrl.objectives import ClipPPOLoss, ValueEstimators

from marl_td.losses.functional.normalisation import normalise_advantage
from marl_td.losses.functional.returns import gae
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.value_norm import PopArt, ValueNorm

PLAIN = {"value_norm": None, "normalize_advantage": False}


def torchrl_loss(policy, value, **options) -> ClipPPOLoss:
    """TorchRL's PPO loss with the keys of a group."""
    loss = ClipPPOLoss(policy, value, normalize_advantage=False, entropy_coeff=0.02, **options)
    names = ("reward", "action", "done", "terminated", "advantage", "value_target")
    loss.set_keys(
        value=(GROUP, "state_value"),
        sample_log_prob=(GROUP, "log_prob"),
        **{name: (GROUP, name) for name in names},
    )
    loss.make_value_estimator(ValueEstimators.GAE, gamma=0.9, lmbda=0.8)
    return loss


def estimated(loss: MAPPOLoss, **sizes):
    """A batch ``[n_envs * T]`` with advantages, and the loss's actor a little away from what collected it."""
    batch = collected(loss.actor, **sizes)
    loss.estimate(batch, gamma=0.9, lmbda=0.8)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return batch.reshape(-1)


# ------------------------------------------------------------------ N = 1
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize(
    ("error", "clip_value"), [(("l2", None), None), (("l2", None), 0.1), (("smooth_l1", 1.0), 0.1)]
)
def test_one_agent_is_ppo_step_for_step(kind, error, clip_value):
    """Same advantages, losses, gradients and, after several Adam steps, parameters as TorchRL's PPO."""
    name, delta = error
    policy, value = actor(kind), critic()
    # TorchRL's "l2" is e^2, its "smooth_l1" Huber's with delta 1; ours is half the square, and Huber's.
    coef = 1.0 if name == "smooth_l1" else 2.0
    ours = MAPPOLoss(
        copy.deepcopy(policy),
        copy.deepcopy(value),
        clip_epsilon=0.2,
        entropy_coeff=0.02,
        critic_coeff=coef,
        clip_value=clip_value,
        huber_delta=delta,
        **PLAIN,
    )
    theirs = torchrl_loss(
        policy,
        value,
        clip_epsilon=0.2,
        critic_coeff=1.0,
        loss_critic_type=name,
        clip_value=clip_value,
    )
    batch = collected(policy, n_agents=1)
    our_batch = ours.estimate(batch.clone(), gamma=0.9, lmbda=0.8).reshape(-1)
    with torch.no_grad():
        their_batch = batch.clone()
        theirs.value_estimator(
            their_batch,
            params=theirs.critic_network_params,
            target_params=theirs.target_critic_network_params,
        )
    their_batch = their_batch.reshape(-1)
    for key in ("advantage", "value_target", "state_value"):
        torch.testing.assert_close(our_batch[GROUP, key], their_batch[GROUP, key])

    their_parameters = list(theirs.parameters())
    optimisers = [torch.optim.Adam(x, lr=1e-2) for x in (ours.parameters(), their_parameters)]
    for step in range(5):
        torch.manual_seed(step)  # the entropy of a squashed normal is sampled
        out = ours(our_batch)
        torch.manual_seed(step)
        their_out = theirs(their_batch)
        objective = their_out["loss_objective"] + their_out["loss_entropy"]
        torch.testing.assert_close(out["loss_objective"], objective)
        torch.testing.assert_close(out["loss_critic"], their_out["loss_critic"])
        torch.testing.assert_close(out["entropy"], their_out["entropy"])
        for optimiser in optimisers:
            optimiser.zero_grad()
        (out["loss_objective"] + out["loss_critic"]).backward()
        (objective + their_out["loss_critic"]).backward()
        for our, their in zip(ours.parameters(), their_parameters, strict=True):
            torch.testing.assert_close(our.grad, their.grad, rtol=1e-4, atol=1e-6)
        for optimiser in optimisers:
            optimiser.step()
    for our, their in zip(ours.parameters(), their_parameters, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------- estimate
def test_estimate_is_gae_on_denormalised_values():
    loss = small_loss(value_norm=ValueNorm(beta=0.5), normalize_advantage=True)
    loss.value_norm.update(torch.randn(20) * 3 + 5)
    batch = collected(loss.actor)
    with torch.no_grad():
        raw = loss.critic(batch.clone())[GROUP, "state_value"]
        raw_next = loss.critic(batch["next"].clone())[GROUP, "state_value"]
    following = batch["next", GROUP]
    mean, scale = loss.value_norm.statistics()
    advantage, target = gae(
        following["reward"].squeeze(-1),
        (raw * scale + mean).squeeze(-1),
        (raw_next * scale + mean).squeeze(-1),
        following["done"].squeeze(-1),
        following["terminated"].squeeze(-1),
        gamma=0.9,
        lmbda=0.8,
    )
    loss.estimate(batch, gamma=0.9, lmbda=0.8)
    torch.testing.assert_close(batch[GROUP, "value_target"].squeeze(-1), target)
    expected = normalise_advantage(advantage)
    torch.testing.assert_close(batch[GROUP, "advantage"].squeeze(-1), expected)
    torch.testing.assert_close(batch[GROUP, "state_value"], raw)
    torch.testing.assert_close(batch[GROUP, "old_value"], raw * scale + mean)


def test_advantages_per_agent_have_statistics_of_their_own():
    loss = small_loss(value_norm=None, normalize_advantage_exclude_dims=(-1,))
    batch = loss.estimate(collected(loss.actor), gamma=0.9, lmbda=0.8)
    advantage = batch[GROUP, "advantage"].squeeze(-1)
    torch.testing.assert_close(advantage.mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    deviation = advantage.std((0, 1), unbiased=False)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-4, rtol=0)


def test_a_single_row_is_the_same_as_in_a_batch():
    loss = small_loss(**PLAIN)
    batch = loss.estimate(collected(loss.actor), gamma=0.9, lmbda=0.8)
    row = batch[2].exclude((GROUP, "advantage"), (GROUP, "value_target"))
    loss.estimate(row, gamma=0.9, lmbda=0.8)
    for key in ("advantage", "value_target"):
        torch.testing.assert_close(row[GROUP, key], batch[2][GROUP, key])


def test_padding_behind_a_cut_row_does_not_leak_into_it():
    """Rows padded behind their end (no done there) get the advantages of the rows alone."""
    loss = small_loss(**PLAIN)
    batch = collected(loss.actor, n_steps=6)
    alone = loss.estimate(batch[:, :4].clone(), gamma=0.9, lmbda=0.8)
    steps = torch.arange(6) < 4
    batch["step_mask"] = steps.unsqueeze(-1).expand(4, 6, 1)
    loss.estimate(batch, gamma=0.9, lmbda=0.8)
    torch.testing.assert_close(batch[GROUP, "advantage"][:, :4], alone[GROUP, "advantage"])


def test_estimate_normalises_over_the_living():
    loss = small_loss(value_norm=None)
    batch = collected(loss.actor)
    batch[GROUP, "mask"] = torch.rand(4, 6, 3) < 0.5
    loss.estimate(batch, gamma=0.9, lmbda=0.8)
    alive = batch[GROUP, "advantage"].squeeze(-1)[batch[GROUP, "mask"]]
    assert alive.mean().abs() < 1e-5
    assert alive.std(unbiased=False) == pytest.approx(1.0, abs=1e-4)


def let_critic_say(loss, value):
    """The same value everywhere."""
    with torch.no_grad():
        for parameter in loss.critic.parameters():
            parameter.zero_()
        loss.critic.module[-1].bias.fill_(value)


@pytest.mark.parametrize(
    ("ends_with_life", "expected"),
    [
        # The second agent is dead from its second step on; all rewards are 1, all values 8.
        (True, [[4.0625, 1.0], [4.25, 1.0], [5.0, 1.0]]),
        (False, [[4.0625, 4.0625], [4.25, 4.25], [5.0, 5.0]]),
    ],
)
def test_a_return_ends_with_the_agents_life_if_the_dead_are_not_valued(ends_with_life, expected):
    """G = 1 + 0.5 (0.5 * 8 + 0.5 * next G) while it lives, and 1 + 0.5 * 8 in the last step of the data."""
    loss = small_loss(**PLAIN, mask_dead_values=ends_with_life)
    let_critic_say(loss, 8.0)
    batch = collected(loss.actor, n_envs=1, n_steps=3, n_agents=2)
    following = batch["next", GROUP]
    following["reward"] = torch.ones(1, 3, 2, 1)
    for name in ("done", "terminated"):
        following[name] = torch.zeros(1, 3, 2, 1, dtype=torch.bool)
    batch[GROUP, "mask"] = torch.tensor([[[True, True], [True, False], [True, False]]])
    following["mask"] = torch.tensor([[[True, False], [True, False], [True, False]]])
    loss.estimate(batch, gamma=0.5, lmbda=0.5)
    found = batch[GROUP, "value_target"][0, :, :, 0]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_who_was_only_cut_off_is_bootstrapped_if_the_dead_are_not_valued():
    """Masks as TorchRL's PettingZoo environments give them, which clear them at a time limit as well.

    Agent 0 goes on to the time limit: 1 + 0.5 * 8 = 5 there. Agent 1 is cut off in its first step: the same
    there. Agent 2 dies in the step of the time limit: 1.
    """
    loss = small_loss(**PLAIN, mask_dead_values=True)
    let_critic_say(loss, 8.0)
    batch = collected(loss.actor, n_envs=1, n_steps=2, n_agents=3)
    following = batch["next", GROUP]
    following["reward"] = torch.ones(1, 2, 3, 1)
    terminated = torch.tensor([[[False, False, False], [False, True, True]]]).unsqueeze(-1)
    truncated = torch.tensor([[[False, True, False], [True, True, False]]]).unsqueeze(-1)
    following.update(
        {"terminated": terminated, "truncated": truncated, "done": terminated | truncated}
    )
    batch[GROUP, "mask"] = torch.tensor([[[True, True, True], [True, False, True]]])
    following["mask"] = torch.tensor([[[True, False, True], [False, False, False]]])
    loss.estimate(batch, gamma=0.5, lmbda=0.5)
    found = batch[GROUP, "value_target"][batch[GROUP, "mask"]].flatten()
    expected = [1 + 0.5 * (4 + 2.5), 5.0, 1 + 0.5 * (4 + 0.5), 5.0, 1.0]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_who_lives_after_a_step_must_be_known_if_the_dead_are_not_valued():
    loss = small_loss(mask_dead_values=True)
    batch = collected(loss.actor)
    batch[GROUP, "mask"] = torch.ones(4, 6, 3, dtype=torch.bool)
    with pytest.raises(KeyError, match=r"next.*agents.*mask"):
        loss.estimate(batch, gamma=0.9, lmbda=0.8)


# ------------------------------------------------------------ permutation
@pytest.mark.parametrize("kind", ["masked", "discrete"])
def test_permuting_agents_permutes_what_is_per_agent_and_nothing_else(kind):
    loss = small_loss(kind, value_norm=None)
    order = torch.tensor([2, 0, 1])
    batch = collected(loss.actor)
    permuted = batch.clone()
    for source in (permuted, permuted["next"]):
        for key, value in list(source[GROUP].items()):
            source[GROUP, key] = value[:, :, order]
    for data in (batch, permuted):
        loss.estimate(data, gamma=0.9, lmbda=0.8)
    for key in ("advantage", "value_target", "state_value"):
        torch.testing.assert_close(permuted[GROUP, key], batch[GROUP, key][:, :, order])
    out, other = loss(batch.reshape(-1)), loss(permuted.reshape(-1))
    for key in loss.out_keys:
        torch.testing.assert_close(out[key], other[key])


# ------------------------------------------------------------------ masks
def with_masks(batch):
    """Random alive and padding masks, each agent alive somewhere."""
    batch[GROUP, "mask"] = torch.rand(batch.shape[0], 3) < 0.6
    batch["step_mask"] = torch.rand(batch.shape[0], 1) < 0.7
    batch[GROUP, "mask"][0], batch["step_mask"][0] = True, True
    return batch


def disturbed(batch, where):
    """The batch with everything the loss reads changed where ``where`` ``[*B, n_agents]`` is true."""
    out = batch.clone()
    where = where.unsqueeze(-1)
    for key in ("observation", "advantage", "value_target", "state_value", "old_value"):
        value = out[GROUP, key]
        out[GROUP, key] = torch.where(where, value + 3.0, value)
    log_prob = out[GROUP, "log_prob"]
    out[GROUP, "log_prob"] = torch.where(where.squeeze(-1), log_prob - 1.0, log_prob)
    return out


def losses_and_gradients(loss, batch):
    loss = copy.deepcopy(loss)
    out = loss(batch)
    (out["loss_objective"] + out["loss_critic"]).backward()
    gradients = {name: p.grad for name, p in loss.named_parameters() if p.grad is not None}
    return {**out, **gradients}


@pytest.mark.parametrize("norm", [None, "running", "popart"])
def test_dead_and_padded_entries_change_nothing(norm):
    loss = small_loss("masked", mask_dead_values=True, value_norm=None)
    if norm == "running":
        loss.value_norm = ValueNorm()
    elif norm == "popart":
        loss.value_norm = PopArt(loss.critic)
    batch = with_masks(estimated(loss))
    off = ~(batch[GROUP, "mask"] & batch["step_mask"])
    expected = losses_and_gradients(loss, batch)
    other = losses_and_gradients(loss, disturbed(batch, off))
    for key, value in expected.items():
        torch.testing.assert_close(other[key], value, msg=key)
    assert expected["loss_critic"] > 0


def test_by_default_the_critic_learns_what_death_is_worth():
    """The living bootstrap from the dead while the team's return goes on; padding never counts."""
    loss = small_loss(value_norm=None)
    batch = with_masks(estimated(loss))
    dead = ~batch[GROUP, "mask"] & batch["step_mask"]
    expected, other = loss(batch), loss(disturbed(batch, dead))
    torch.testing.assert_close(other["loss_objective"], expected["loss_objective"])
    assert (other["loss_critic"] - expected["loss_critic"]).abs() > 0.1
    padded = (~batch["step_mask"]).expand(-1, 3)
    torch.testing.assert_close(
        loss(disturbed(batch, padded))["loss_critic"], expected["loss_critic"]
    )


def test_a_batch_of_dead_agents_gives_no_gradient():
    loss = small_loss(value_norm=ValueNorm(), mask_dead_values=True)
    batch = estimated(loss)
    batch[GROUP, "mask"] = torch.zeros(batch.shape[0], 3, dtype=torch.bool)
    for key, value in losses_and_gradients(loss, batch).items():
        assert value.isfinite().all(), key
        assert value.abs().max() == 0.0 or key == "explained_variance"


# -------------------------------------------------------- value normaliser
@pytest.mark.parametrize("kind", ["running", "popart"])
def test_value_loss_by_hand(kind):
    """Statistics move by the batch's targets first; the error is between normalised units."""
    loss = small_loss(value_norm=None, clip_value=0.1, huber_delta=1.0, critic_coeff=0.5)
    loss.value_norm = ValueNorm(beta=0.5) if kind == "running" else PopArt(loss.critic, beta=0.5)
    loss.value_norm.update(torch.randn(30) * 2 - 1)
    batch = estimated(loss)
    target = batch[GROUP, "value_target"].squeeze(-1)
    expected_norm = copy.deepcopy(ValueNorm(beta=0.5))
    expected_norm.load_state_dict(loss.value_norm.state_dict())
    with torch.no_grad():
        value = loss.denormalise(loss.critic(batch.clone())[GROUP, "state_value"].squeeze(-1))
        out = loss(batch)
    expected_norm.update(target)
    mean, scale = expected_norm.statistics()
    torch.testing.assert_close(loss.value_norm.running_mean, mean)
    raw = loss.critic(batch.clone())[GROUP, "state_value"].squeeze(-1)
    old = batch[GROUP, "state_value"].squeeze(-1)
    if kind == "popart":
        # Outputs and the reference of the clipping are what they were, in the new units.
        torch.testing.assert_close(raw * scale + mean, value, rtol=1e-4, atol=1e-4)
        old = (batch[GROUP, "old_value"].squeeze(-1) - mean) / scale
    near = old + (raw - old).clamp(-0.1, 0.1)
    goal = (target - mean) / scale
    errors = [nn.functional.huber_loss(x, goal, reduction="none") for x in (raw, near)]
    torch.testing.assert_close(out["loss_critic"], 0.5 * torch.maximum(*errors).mean().detach())


def test_statistics_rest_in_evaluation_mode():
    loss = small_loss(value_norm=ValueNorm())
    batch = estimated(loss)
    loss.eval()
    loss(batch)
    assert loss.value_norm.weight == 0.0
    loss.train()
    loss(batch)
    assert loss.value_norm.weight > 0.0


def test_statistics_travel_in_the_checkpoint():
    loss, other = small_loss(value_norm=ValueNorm()), small_loss(value_norm=ValueNorm())
    loss(estimated(loss))
    other.load_state_dict(loss.state_dict())
    batch = collected(loss.actor)
    for each in (loss, other):
        each.eval()
        each.estimate(batch, gamma=0.9, lmbda=0.8)
        batch[f"out_{id(each)}"] = batch[GROUP, "advantage"]
    assert torch.equal(batch[f"out_{id(loss)}"], batch[f"out_{id(other)}"])


# ----------------------------------------------------------------- graphs
def test_losses_have_graphs_of_their_own_and_metrics_none():
    loss = small_loss(value_norm=ValueNorm())
    out = loss(estimated(loss))
    assert set(out.keys()) == set(loss.out_keys)
    assert all(out[key].requires_grad == key.startswith("loss_") for key in loss.out_keys)
    out["loss_critic"].backward()
    assert all(p.grad is None for p in loss.actor.parameters())
    assert all(p.grad is not None for p in loss.critic.parameters())
    loss.zero_grad()
    out["loss_objective"].backward()
    assert all(p.grad is not None for p in loss.actor.parameters())
    assert all(p.grad is None for p in loss.critic.parameters())


def test_the_batch_is_left_as_it_was():
    loss = small_loss("continuous", value_norm=ValueNorm())
    batch = estimated(loss)
    before = batch.clone()
    loss(batch)
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    assert (batch == before).all()


def test_metrics_at_the_collecting_policy():
    """Nothing changed yet: ratio 1, no divergence, no clipping, objective = minus mean advantage."""
    loss = small_loss("masked", entropy_coeff=0.0, **PLAIN)
    batch = loss.estimate(collected(loss.actor), gamma=0.9, lmbda=0.8).reshape(-1)
    out = loss(batch)
    torch.testing.assert_close(out["loss_objective"], -batch[GROUP, "advantage"].mean())
    assert out["kl_approx"].abs() < 1e-6
    assert out["clip_fraction"] == 0.0


def test_two_losses_with_other_keys_do_not_disturb_each_other():
    loss, other = small_loss(), small_loss()
    other.set_keys(advantage=("somewhere", "else"))
    assert loss.tensor_keys.advantage == (GROUP, "advantage")


# ---------------------------------------------------------------- compile
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "norm", "backend"),
    [
        pytest.param("discrete", "running", "inductor", marks=pytest.mark.slow),
        ("masked", "popart", "aot_eager"),
        ("continuous", "running", "eager"),
    ],
)
def test_compiled_equals_eager(kind, norm, backend):
    """In one graph: losses, gradients and the in-place steps of statistics and output layer."""
    loss = small_loss(kind, value_norm=None)
    if norm is not None:
        loss.value_norm = ValueNorm() if norm == "running" else PopArt(loss.critic)
    batch = with_masks(estimated(loss))
    other = copy.deepcopy(loss)
    compiled = torch.compile(other.compute, fullgraph=True, backend=backend)
    for step in range(2):
        results = []
        for function in (loss.compute, compiled):
            torch.manual_seed(step)
            out = function(batch)
            (out["loss_objective"] + out["loss_critic"]).backward()
            results.append(out)
        for key, value in results[0].items():
            torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-5, msg=key)
    for ours, theirs in zip(loss.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(loss.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(theirs, ours)


# --------------------------------------------------------------- messages
def test_messages():
    with pytest.raises(ValueError, match=r"`clip_epsilon` must lie in \(0, 1\); got 1.0"):
        small_loss(clip_epsilon=1.0)
    for name in ("entropy_coeff", "critic_coeff"):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 0; got -0.1"):
            small_loss(**{name: -0.1})
    loss = small_loss()
    batch = estimated(loss)
    for key in ("advantage", "log_prob", "action", "value_target"):
        with pytest.raises(KeyError, match=f"the batch has no entry .*{key}.* Point the loss"):
            loss(batch.exclude((GROUP, key)))
    with pytest.raises(KeyError, match=r"the batch has no entry .*reward"):
        loss.estimate(
            collected(loss.actor).exclude(("next", GROUP, "reward")), gamma=0.9, lmbda=0.8
        )
    with pytest.raises(
        KeyError, match=r"a network must write .*'other_value'.* writes .*state_value"
    ):
        other = MAPPOLoss(actor("discrete"), critic())
        other.set_keys(value=(GROUP, "other_value"))
        other.estimate(collected(loss.actor), gamma=0.9, lmbda=0.8)
    with pytest.raises(ValueError, match=r"`gamma` must lie in \[0, 1\]; got 2"):
        loss.estimate(collected(loss.actor), gamma=2.0, lmbda=0.8)
