"""Independent Q-learning: it is one DQN per agent, with own rewards, ends, masks."""

import pytest
import torch
from small_qmix import (
    SmallGru,
    agents_data,
    make_batch,
    make_episodes,
    network,
    perturb_targets,
    small_loss,
)
from tensordict import TensorDict

from marl_td.losses.independent_q import IndependentQLoss

GAMMA = 0.9
SIGNALS = ("reward", "done", "terminated")


def loss_of(n_agents=2, share=False, **options) -> IndependentQLoss:
    return perturb_targets(IndependentQLoss(network(n_agents, share), gamma=GAMMA, **options))


def with_own_signals(batch: TensorDict, n_agents: int = 2) -> TensorDict:
    """Every agent has its own reward, and the team's ends."""
    shape = (*batch.shape, n_agents, 1)
    batch["next", "agents", "reward"] = torch.randn(shape)
    for name in ("done", "terminated"):
        flag = batch["next", name].unsqueeze(-2).expand(shape).clone()
        batch["next", "agents", name] = flag
    return batch


def only(batch: TensorDict, agent: int) -> TensorDict:
    """The batch as a team of one agent sees it, with that agent's signals as the team's."""
    rows = slice(agent, agent + 1)
    time = batch.ndim
    alone = batch.exclude("agents", ("next", "agents"))
    for source, target in ((batch, alone), (batch["next"], alone["next"])):
        target["agents"] = source["agents"][(slice(None),) * time + (rows,)]
    for name in SIGNALS:
        alone["next", name] = batch["next", "agents", name][(slice(None),) * time + (agent,)]
    return alone


def alone_loss(loss: IndependentQLoss, agent: int, **options):
    """A VDN of one agent (which is DQN, see `test_qmix.py`) with this agent's parameters."""
    single = small_loss("sum", n_agents=1, share=False, gamma=GAMMA, **options)
    for pair, source in zip(single.target_pairs(), loss.target_pairs(), strict=False):
        for mine, theirs in zip(pair, source, strict=True):
            for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
                p.data.copy_(q.data[agent : agent + 1])
    return single


@pytest.mark.parametrize("options", [{}, {"double_q": False, "loss_function": "smooth_l1"}])
def test_it_is_one_dqn_per_agent_on_its_own_reward(options):
    loss, batch = loss_of(**options), with_own_signals(make_batch(masked=True))
    singles = [alone_loss(loss, i, **options)(only(batch, i)) for i in range(2)]
    out = loss(batch)
    for key in ("loss_value", "td_error", "target_value", "chosen_action_value"):
        torch.testing.assert_close(out[key], (singles[0][key] + singles[1][key]) / 2)


@pytest.mark.parametrize("options", [{"lmbda": 0.7}, {"n_steps": 3}, {}])
def test_on_whole_episodes_too(options):
    loss = loss_of(sequences=True, **options)
    batch = with_own_signals(make_episodes())
    singles = [
        alone_loss(loss, i, sequences=True, **options)(only(batch, i))["loss_value"]
        for i in range(2)
    ]
    torch.testing.assert_close(loss(batch)["loss_value"], sum(singles) / 2)


def test_a_dead_agent_does_not_learn_and_the_value_of_dying_is_zero():
    loss = loss_of()
    batch = with_own_signals(make_batch())
    batch["agents", "mask"] = torch.tensor([True, False]).expand(16, 2)
    batch["next", "agents", "mask"] = torch.zeros(16, 2, dtype=torch.bool)
    out = loss(batch)
    reward = batch["next", "agents", "reward"][:, 0, 0]
    torch.testing.assert_close(out["target_value"], reward.mean())
    out["loss_value"].backward()
    for parameter in loss.network.parameters():
        assert parameter.grad[0].abs().sum() > 0
        assert torch.equal(parameter.grad[1], torch.zeros_like(parameter.grad[1]))


@pytest.mark.parametrize("options", [{"lmbda": 0.6}, {"n_steps": 2}])
def test_a_return_of_several_steps_ends_with_the_agents_own_end(options):
    """After agent 0 terminated in step 1, its later rewards change nothing; agent 1's do."""
    loss = loss_of(sequences=True, **options)
    batch = with_own_signals(make_episodes((6,), 6, (True,)))
    batch["next", "agents", "terminated"][0, 1, 0] = True
    batch["next", "agents", "done"][0, 1, 0] = True
    batch["agents", "mask"] = torch.ones(1, 6, 2, dtype=torch.bool)
    batch["agents", "mask"][0, 2:, 0] = False
    batch["next", "agents", "mask"] = batch["agents", "mask"].roll(-1, 1)
    moved = batch.clone()
    moved["next", "agents", "reward"][0, 2:] += 1.0
    errors = []
    for data in (batch, moved):
        loss(data)
        errors.append(data["agents", "td_error"][0, :, :, 0])
    assert torch.equal(errors[0][:, 0], errors[1][:, 0])
    assert not torch.allclose(errors[0][:2, 1], errors[1][:2, 1])


def test_what_stands_in_the_padding_changes_nothing():
    loss = perturb_targets(IndependentQLoss(SmallGru(), sequences=True, lmbda=0.5))
    batch = with_own_signals(make_episodes(masked=True, mortal=True))
    noisy = batch.clone()
    padding = ~batch["step_mask"].squeeze(-1)
    noisy["next", "agents", "reward"][padding] = 50.0
    noisy["next", "agents", "terminated"][padding] ^= True
    noisy["next", "agents"][padding] = noisy["next", "agents"][padding].update(
        agents_data((int(padding.sum()),), 2, True, True)
    )
    assert torch.equal(loss(noisy)["loss_value"], loss(batch)["loss_value"])


@pytest.mark.parametrize("sequences", [True, False])
def test_a_dead_agents_steps_do_not_count_where_there_is_padding_too(sequences):
    """Nothing says that its trajectory is done: the alive mask alone does."""
    loss = loss_of(sequences=sequences)
    batch = with_own_signals(make_episodes((6, 4), 6, (True, False)))
    batch["agents", "mask"] = torch.ones(2, 6, 2, dtype=torch.bool)
    batch["agents", "mask"][:, 3:, 0] = False
    moved = batch.clone()
    moved["next", "agents", "reward"][:, 3:, 0] += 7.0
    assert torch.equal(loss(moved)["loss_value"], loss(batch)["loss_value"])
    moved["next", "agents", "reward"][:, 2, 0] += 7.0
    assert not torch.equal(loss(moved)["loss_value"], loss(batch)["loss_value"])


def test_importance_weights_and_priorities_are_per_row_and_agent():
    loss, batch = loss_of(), with_own_signals(make_batch((2,)))
    loss(batch)
    error = batch["agents", "td_error"]
    assert error.shape == (2, 2, 1)
    batch["priority_weight"] = torch.tensor([0.5, 2.0])
    expected = (error[0].square().sum() * 0.5 + error[1].square().sum() * 2.0) / 4.0
    torch.testing.assert_close(loss(batch)["loss_value"], expected)


def test_an_items_priority_is_the_mean_over_the_living():
    loss, batch = loss_of(), with_own_signals(make_batch((3,)))
    batch["agents", "mask"] = torch.tensor([[True, True], [False, True], [False, False]])
    loss(batch)
    error, found = batch["agents", "td_error"].squeeze(-1), batch["agents", "priority"].squeeze(-1)
    expected = torch.stack([error[0].mean(), error[1, 1], torch.zeros(())])
    torch.testing.assert_close(found, expected.unsqueeze(-1).expand(3, 2))


def test_a_reward_of_the_team_is_refused():
    batch = with_own_signals(make_batch())
    batch["next", "agents", "reward"] = torch.randn(16, 2, 1, 1)
    with pytest.raises(ValueError, match="must have the shape of `reward`"):
        loss_of()(batch)
