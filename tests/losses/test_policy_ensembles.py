"""Policy ensembles: one memory with an index is one memory per sub-policy; an ensemble of one is MADDPG."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_ddpg import D_OBS, make_actor, make_batch, make_critic, make_loss
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.functional.ensembles import ensemble_weight
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import TargetUpdater
from marl_td.models.sub_policies import FixedSubPolicy, SubPolicies, played

N_AGENTS = 2
INDEX = ("agents", "sub_policy")


def ensemble_actor(size, n_actions=None):
    """An actor of ``size`` sub-policies per agent."""
    members = [make_actor(n_actions=n_actions).network for _ in range(size)]
    if n_actions is not None:
        return GroupActor(SubPolicies(members), n_actions=n_actions)
    parameters = SubPolicies([member[0] for member in members])
    return GroupActor(TensorDictSequential(parameters, members[0][1]))


def ensemble_loss(size, n_actions=None, **options):
    critic = make_critic({"agents": N_AGENTS}, "agents", n_actions or 2)
    return MADDPGLoss(ensemble_actor(size, n_actions), critic, ensemble_size=size, **options)


def played_batch(size, n_steps=16, **options):
    """A batch that says who played what."""
    batch = make_batch(shape=(n_steps,), **options)
    index = torch.randint(size, (n_steps, N_AGENTS))
    batch[INDEX] = index
    batch[("next", *INDEX)] = index
    return batch


def per_member(loss):
    """Gradients of the actor, ``[K]`` lists."""
    return [[p.grad for p in member.parameters()] for member in loss.actor.network[0].members]


# --------------------------------------------------------------------------- the weights
@given(
    st.integers(1, 4), st.integers(1, 12), st.integers(1, 3), st.integers(0, 1000), st.booleans()
)
def test_weights_are_the_mean_over_memories_of_the_means_over_their_steps(
    size, n_steps, n_agents, seed, masked
):
    """Brute force: one memory per agent and sub-policy, the mean of each, their mean."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(size, (n_steps, n_agents), generator=generator)
    value = torch.randn(n_steps, n_agents, generator=generator)
    mask = torch.rand(n_steps, n_agents, generator=generator) < (0.6 if masked else 2.0)
    weight = ensemble_weight(index, size, mask if masked else None)
    expected, n_all = 0.0, mask.sum().clamp(min=1)
    for i in range(n_agents):
        memories = [value[:, i][(index[:, i] == k) & mask[:, i]] for k in range(size)]
        means = [memory.mean() for memory in memories if len(memory)]
        expected += mask[:, i].sum() / n_all * sum(means) / size
    torch.testing.assert_close((weight * value).sum(), torch.as_tensor(expected))
    assert (weight >= 0).all() and not weight[~mask].any()


def test_sequences_have_weights_of_their_shape():
    index = torch.randint(3, (4, 5, 2))
    assert ensemble_weight(index, 3).shape == (4, 5, 2)
    flat = ensemble_weight(index.reshape(20, 2), 3).reshape(4, 5, 2)
    torch.testing.assert_close(ensemble_weight(index, 3), flat)


# -------------------------------------------------------------------------- an ensemble of one
@pytest.mark.parametrize("n_actions", [None, 4])
def test_an_ensemble_of_one_is_maddpg_step_for_step(n_actions):
    """With all of the ensemble's machinery: the selecting network, the index and the weights."""
    torch.manual_seed(0)
    plain = make_loss(n_actions=n_actions, regularisation_coeff=0.1)
    weighted = copy.deepcopy(plain)
    # A size of one takes the plain mean; the weights are used all the same.
    weighted._actor_mean = lambda td, value, mask: (
        value * ensemble_weight(td[INDEX], 1, mask)
    ).sum()
    for actor in (weighted.actor, weighted.target_actor):
        network = actor.network
        actor.network = (
            SubPolicies([network])
            if n_actions is not None
            else TensorDictSequential(SubPolicies([network[0]]), network[1])
        )
    losses = plain, weighted
    optimisers = [torch.optim.Adam(loss.parameters(), lr=1e-2) for loss in losses]
    updaters = [TargetUpdater(loss.target_pairs(), tau=0.1) for loss in losses]
    for step in range(5):
        batch = played_batch(1, n_actions=n_actions)
        for loss, optimiser, updater in zip(losses, optimisers, updaters, strict=True):
            torch.manual_seed(step)
            out = loss(batch.clone())
            (out["loss_actor"] + out["loss_value"]).backward()
            optimiser.step()
            optimiser.zero_grad()
            updater.step()
    for one, other in zip(plain.parameters(), weighted.parameters(), strict=True):
        torch.testing.assert_close(one, other)


# ----------------------------------------------------------------- one memory is K memories
def test_a_sub_policy_learns_from_what_it_played_as_from_a_memory_of_its_own():
    """Equation 10: its gradient is 1/K of that of MADDPG on the steps that it played."""
    size = 3
    loss = ensemble_loss(size)
    batch = played_batch(size)
    batch[INDEX][:] = batch[INDEX][
        :, :1
    ]  # both agents alike, so that a memory is a part of the batch
    loss.compute(batch)["loss_actor"].backward()
    found = per_member(loss)
    for k in range(size):
        part = batch[batch[INDEX][:, 0] == k]
        assert 1 < len(part) < len(batch)
        member = GroupActor(
            TensorDictSequential(loss.actor.network[0].members[k], loss.actor.network[1])
        )
        alone = MADDPGLoss(member, loss.critic)
        alone.zero_grad()
        alone.compute(part)["loss_actor"].backward()
        for one, other in zip(found[k], member.parameters(), strict=True):
            torch.testing.assert_close(one, other.grad / size)


def test_agents_play_different_members():
    loss, batch = ensemble_loss(2), played_batch(2)
    batch[INDEX][:] = torch.tensor([0, 1])
    loss.compute(batch)["loss_actor"].backward()
    first, second = per_member(loss)
    for grad in first:
        assert grad[0].any() and not grad[1].any()
    for grad in second:
        assert grad[1].any() and not grad[0].any()


def test_the_target_plays_on_with_the_member_of_the_episode():
    loss, batch = ensemble_loss(2), played_batch(2)
    batch["next", "agents", "terminated"][:] = False
    before = loss._target(batch)
    with torch.no_grad():
        for parameter in loss.target_actor.network[0].members[1].parameters():
            parameter.add_(0.5)
    changed = (loss._target(batch) != before).any(-1)
    assert torch.equal(changed, (batch[("next", *INDEX)] == 1).any(-1))


# ------------------------------------------------------------------------------ the networks
def test_what_is_played_is_chosen_by_the_index():
    values = [torch.full((3, 2, 4), float(k)) for k in range(3)]
    index = torch.tensor([[0, 1], [2, 0], [1, 2]])
    assert torch.equal(played(values, index), index.unsqueeze(-1).expand(3, 2, 4).float())


def test_evaluation_may_play_a_fixed_member():
    fixed, batch = FixedSubPolicy("agents", 2), played_batch(3)
    before = batch[INDEX].clone()
    with set_exploration_type(ExplorationType.RANDOM):
        assert torch.equal(fixed(batch)[INDEX], before)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert (fixed(batch)[INDEX] == 2).all()


def test_states_of_the_member_that_plays_go_on():
    """A network of memory writes its state under "next"; that of the others is dropped."""

    def member(step):
        keys = [("agents", "observation"), ("agents", "state")]
        return TensorDictModule(
            lambda seen, state: (seen + state, state + step),
            in_keys=keys,
            out_keys=[("agents", "parameter"), ("next", "agents", "state")],
        )

    both = SubPolicies([member(1.0), member(10.0)], states=[("agents", "state")])
    batch = played_batch(2)
    batch["agents", "state"] = torch.zeros(16, N_AGENTS, D_OBS)
    after = both(batch)["next", "agents", "state"]
    expected = torch.where(batch[INDEX] == 1, 10.0, 1.0).unsqueeze(-1).expand_as(after)
    assert torch.equal(after, expected)


# ---------------------------------------------------------------------------------- messages
def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`ensemble_size` must be at least 1; got 0"):
        ensemble_loss_of_size_zero()
    with pytest.raises(ValueError, match="an ensemble needs at least 1 member; got none"):
        SubPolicies([])
    with pytest.raises(KeyError, match="sub_policy"):
        MADDPGLoss(make_actor(), make_critic({"agents": 2}, "agents"), ensemble_size=2).compute(
            make_batch()
        )


def ensemble_loss_of_size_zero():
    return MADDPGLoss(make_actor(), make_critic({"agents": 2}, "agents"), ensemble_size=0)
