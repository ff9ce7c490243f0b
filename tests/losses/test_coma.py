"""COMA's loss: the exact gradient of a game, targets by hand, masks, hidden states, one graph."""

import itertools

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torch import nn

from marl_td.losses.coma import ComaLoss
from marl_td.losses.functional.counterfactual import floored_log_probability
from marl_td.losses.value_norm import ValueNorm
from marl_td.models.counterfactual import CounterfactualInput
from marl_td.models.floored import FlooredSoftmax

N, A, D = 3, 4, 2
FLOOR = {"eps_init": 0.3, "eps_end": 0.3, "annealing_steps": 1}


class Table(nn.Module):
    """Numbers ``[n_agents, n_actions]`` for every row, whatever is observed."""

    def __init__(self, n_agents: int, n_actions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(n_agents, n_actions))

    def forward(self, observation):
        return self.table.expand(*observation.shape[:-2], -1, -1)


def actor(net: nn.Module, masked: bool = False) -> ProbabilisticTensorDictSequential:
    layer = TensorDictModule(net, [("agents", "observation")], [("agents", "logits")])
    return ProbabilisticTensorDictSequential(layer, FlooredSoftmax("agents", masked, **FLOOR))


def network_critic() -> TensorDictModule:
    """A network over the agent's observation and index and the others' actions."""
    rows = CounterfactualInput(N, A, other_actions=[])
    net = nn.Sequential(nn.Linear(1 + D + N * A + N, 8), nn.Tanh(), nn.Linear(8, A))

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, observation, action):
            joint = observation.sum((-1, -2)).unsqueeze(-1)
            return self.net(rows(joint, action, observation))

    keys = [("agents", "observation"), ("agents", "action")]
    return TensorDictModule(Critic(), keys, [("agents", "action_value")])


def make_loss(masked: bool = False, **options) -> ComaLoss:
    net = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, A))
    return ComaLoss(actor(net, masked), network_critic(), **options)


def make_batch(loss: ComaLoss, n_envs: int = 4, n_steps: int = 6) -> TensorDict:
    """Steps ``[n_envs, T]`` of the loss's actor, a third of which end, half of those by termination."""
    shape = (n_envs, n_steps)
    done = torch.rand(*shape, 1) < 0.3
    terminated = done & (torch.rand(*shape, 1) < 0.5)
    mask = torch.rand(*shape, N, A) < 0.7
    mask[..., 0] = True

    def per_agent(x):
        return x.unsqueeze(-2).expand(*shape, N, 1).clone()

    agents = {"observation": torch.randn(*shape, N, D), "action_mask": mask}
    reached = {
        "observation": torch.randn(*shape, N, D),
        "action_mask": mask.roll(1, 0),
        "reward": torch.randn(*shape, N, 1),
        "done": per_agent(done),
        "terminated": per_agent(terminated),
    }
    batch = TensorDict({}, batch_size=shape)
    batch["agents"] = TensorDict(agents, batch_size=(*shape, N))
    batch["next"] = TensorDict(
        {"agents": TensorDict(reached, batch_size=(*shape, N)), "done": done}, batch_size=shape
    )
    with torch.no_grad():
        return loss.actor(batch)


def ready(loss: ComaLoss, **sizes) -> TensorDict:
    """Single steps with targets."""
    return loss.estimate(make_batch(loss, **sizes), gamma=0.9, lmbda=0.8).reshape(-1)


# ------------------------------------------------------------------- the number
@pytest.mark.parametrize("seed", range(5))
def test_the_expected_gradient_is_the_games(seed):
    """A one-step game with exact Q: the mean over all joint actions is the gradient of the mean payoff."""
    torch.manual_seed(seed)
    payoff = torch.randn(A, A, A, dtype=torch.double)

    def exact(action):
        rows = []
        for agent in range(N):
            index = [u.unsqueeze(-1) for u in action.unbind(-1)]
            index[agent] = torch.arange(A)
            rows.append(payoff[tuple(index)])
        return torch.stack(rows, -2)

    net = Table(N, A).double()
    critic = TensorDictModule(exact, [("agents", "action")], [("agents", "action_value")])
    loss = ComaLoss(actor(net), critic)
    probability = floored_log_probability(net.table, None, 0.3).exp()
    value = torch.einsum("abc,a,b,c->", payoff, *probability)
    expected = torch.autograd.grad(value, net.table, retain_graph=True)[0]
    found = torch.zeros_like(expected)
    for joint in itertools.product(range(A), repeat=N):
        action = torch.tensor([joint])
        batch = TensorDict(
            {
                "agents": {
                    "observation": torch.zeros(1, N, D, dtype=torch.double),
                    "action": action,
                    "log_prob": torch.zeros(1, N, dtype=torch.double),
                    "value_target": torch.zeros(1, N, 1, dtype=torch.double),
                }
            },
            batch_size=[1],
        )
        chance = probability[torch.arange(N), action[0]].prod().detach()
        out = loss(batch)["loss_actor"]  # a mean over agents, whose gradients add up
        found -= N * chance * torch.autograd.grad(out, net.table)[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------- targets
def by_hand_batch(n_steps: int, ends: dict[int, bool]) -> TensorDict:
    """One environment, one agent; rewards 1, 2, ..; `ends`: which steps end, and whether they terminate."""
    reward = torch.arange(1.0, n_steps + 1).reshape(1, n_steps, 1, 1)
    done = torch.zeros(1, n_steps, 1, 1, dtype=torch.bool)
    terminated = done.clone()
    for step, terminal in ends.items():
        done[:, step] = True
        terminated[:, step] = terminal
    sizes = (1, n_steps, 1)
    batch = TensorDict({}, batch_size=(1, n_steps))
    agents = {
        "observation": torch.zeros(*sizes, D),
        "action": torch.arange(n_steps).view(sizes) % 2,
    }
    following = {"observation": torch.zeros(*sizes, D), "reward": reward, "done": done}
    batch["agents"] = TensorDict(agents, batch_size=sizes)
    batch["next"] = TensorDict(
        {"agents": TensorDict({**following, "terminated": terminated}, batch_size=sizes)},
        batch_size=(1, n_steps),
    )
    return batch


@pytest.fixture
def simple():
    """Target values 10 and 20 of the two actions, live ones 0; the actor always draws the second."""
    net, values = Table(1, 2), Table(1, 2)
    with torch.no_grad():
        net.table.copy_(torch.tensor([[0.0, 1e4]]))
        values.table.copy_(torch.tensor([[10.0, 20.0]]))
    layer = TensorDictModule(net, [("agents", "observation")], [("agents", "logits")])
    head = FlooredSoftmax("agents", False, eps_init=0.0, eps_end=0.0, annealing_steps=1)
    critic = TensorDictModule(values, [("agents", "observation")], [("agents", "action_value")])
    loss = ComaLoss(ProbabilisticTensorDictSequential(layer, head), critic)
    values.table.data.zero_()
    return loss


@pytest.mark.parametrize(
    ("ends", "lmbda", "expected"),
    [
        # Actions 0, 1, 0, 1: the next ones are worth 20, 10, 20; what is drawn at the end, 20.
        ({}, 0.0, [1 + 10, 2 + 5, 3 + 10, 4 + 10]),
        ({}, 1.0, [1 + 0.5 * 7, 2 + 0.5 * 10, 3 + 0.5 * 14, 4 + 10]),
        ({1: True}, 0.0, [1 + 10, 2, 3 + 10, 4 + 10]),
        ({1: True}, 1.0, [1 + 0.5 * 2, 2, 3 + 0.5 * 14, 14]),
        # A time limit bootstraps from what is drawn (20), not from the next row's action (10).
        ({1: False}, 0.0, [1 + 10, 2 + 10, 3 + 10, 4 + 10]),
        ({1: False}, 0.5, [1 + 0.5 * (10 + 6), 12, 3 + 0.5 * (10 + 7), 14]),
        ({3: True}, 0.0, [1 + 10, 2 + 5, 3 + 10, 4]),
    ],
)
def test_targets_by_hand(ends, lmbda, expected, simple):
    out = simple.estimate(by_hand_batch(4, ends), gamma=0.5, lmbda=lmbda)
    assert out["agents", "value_target"].flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ends_with_life", "expected"), [(True, [11, 2, 3, 4]), (False, [11, 7, 13, 14])]
)
def test_a_return_ends_with_the_agents_life_if_the_dead_are_not_valued(
    ends_with_life, expected, simple
):
    simple.mask_dead_values = ends_with_life
    batch = by_hand_batch(4, {})
    alive = torch.tensor([True, True, False, False, False]).reshape(1, 5, 1)
    batch["agents", "mask"], batch["next", "agents", "mask"] = alive[:, :4], alive[:, 1:]
    out = simple.estimate(batch, gamma=0.5, lmbda=0.0)
    assert out["agents", "value_target"].flatten().tolist() == pytest.approx(expected)


def test_who_was_only_cut_off_is_bootstrapped_if_the_dead_are_not_valued(simple):
    """The last step reaches a time limit, and with it the environment clears the mask."""
    simple.mask_dead_values = True
    batch = by_hand_batch(2, {})
    alive = torch.tensor([True, True, False]).reshape(1, 3, 1)
    batch["agents", "mask"], batch["next", "agents", "mask"] = alive[:, :2], alive[:, 1:]
    batch["next", "agents", "truncated"] = torch.tensor([False, True]).reshape(1, 2, 1, 1)
    out = simple.estimate(batch, gamma=0.5, lmbda=0.0)
    assert out["agents", "value_target"].flatten().tolist() == pytest.approx([1 + 10, 2 + 10])


def test_targets_come_from_the_target_network_and_carry_no_gradient(simple):
    before = simple.estimate(by_hand_batch(4, {}), gamma=0.5, lmbda=0.8)["agents", "value_target"]
    simple.critic.module.table.data.fill_(1e6)
    after = simple.estimate(by_hand_batch(4, {}), gamma=0.5, lmbda=0.8)["agents", "value_target"]
    assert torch.equal(before, after)
    assert not after.requires_grad


# ------------------------------------------------------------------------ masks
def test_dead_and_padded_entries_change_nothing():
    """Neither losses nor metrics nor gradients, whatever stands there; the critic is told of the dead."""
    loss = make_loss(mask_dead_values=True, entropy_coeff=0.1)
    batch = ready(loss)
    batch["agents", "mask"] = torch.rand(*batch.shape, N) < 0.7
    batch["step_mask"] = torch.rand(*batch.shape, 1) < 0.7
    counts = batch["agents", "mask"] & batch["step_mask"]
    other = batch.clone()
    for name, size in (("value_target", 1e3), ("log_prob", 5.0)):
        value = other["agents", name]
        where = counts.unsqueeze(-1) if value.ndim > counts.ndim else counts
        other["agents", name] = torch.where(where, value, value + size)
    results = []
    for data in (batch, other):
        out = loss(data)
        total = out["loss_actor"] + out["loss_critic"]
        results.append([*out.values(), *torch.autograd.grad(total, list(live(loss)))])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
    loss.mask_dead_values = False
    assert loss(other)["loss_critic"] > loss(batch)["loss_critic"]


def live(loss: ComaLoss):
    return [p for p in loss.parameters() if p.requires_grad]


def test_unavailable_actions_get_no_probability_and_no_gradient():
    loss = make_loss(masked=True)
    batch = ready(loss)
    assert batch["agents", "action_mask"].gather(-1, batch["agents", "action"].unsqueeze(-1)).all()
    found = loss.distribution(batch).probs
    assert (found[~batch["agents", "action_mask"]] == 0).all()
    assert loss(batch)["loss_actor"].isfinite()


# --------------------------------------------------------------------- the shell
def test_actor_and_critic_share_no_graph_and_the_target_gets_no_gradient():
    loss = make_loss(entropy_coeff=0.1)
    out = loss(ready(loss))
    assert set(out.keys()) == set(loss.out_keys)
    for name, own, other in (
        ("loss_actor", loss.actor, loss.critic),
        ("loss_critic", loss.critic, loss.actor),
    ):
        gradients = torch.autograd.grad(
            out[name], [*own.parameters(), *other.parameters()], allow_unused=True
        )
        n_own = len(list(own.parameters()))
        assert all(g is not None and g.abs().sum() > 0 for g in gradients[:n_own])
        assert all(g is None for g in gradients[n_own:])
    assert not any(p.requires_grad for p in loss.target_critic.parameters())
    assert out["kl_approx"] == pytest.approx(0.0, abs=1e-6)


def test_normalised_values_change_neither_targets_nor_advantages():
    """Statistics given by hand: the same critic in other units."""
    loss = make_loss()
    batch = make_batch(loss)
    torch.manual_seed(3)
    expected = loss.estimate(batch.clone(), gamma=0.9, lmbda=0.8)
    wanted = loss(expected)
    loss.value_norm = ValueNorm().eval()
    loss.value_norm.running_mean.fill_(2.0)
    loss.value_norm.running_variance.fill_(9.0)
    for critic in (loss.critic, loss.target_critic):
        last = critic.module.net[-1]
        last.weight.data.div_(3.0)
        last.bias.data.sub_(2.0).div_(3.0)
    loss.eval()
    torch.manual_seed(3)
    found = loss.estimate(batch.clone(), gamma=0.9, lmbda=0.8)
    torch.testing.assert_close(found["agents", "value_target"], expected["agents", "value_target"])
    out = loss(found)
    torch.testing.assert_close(out["loss_actor"], wanted["loss_actor"])
    torch.testing.assert_close(out["loss_critic"], wanted["loss_critic"] / 9.0)


def test_it_is_one_graph():
    torch._dynamo.reset()
    loss = make_loss(masked=True, entropy_coeff=0.1, value_norm=ValueNorm())
    batch = ready(loss)
    loss.eval()
    compiled = torch.compile(loss.compute, fullgraph=True, backend="eager")
    for key, value in loss.compute(batch).items():
        torch.testing.assert_close(compiled(batch)[key], value)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"`entropy_coeff` must be at least 0; got -0.1"):
        make_loss(entropy_coeff=-0.1)
    with pytest.raises(ValueError, match="epsilon must fall"):
        FlooredSoftmax("agents", False, eps_init=0.1, eps_end=0.2, annealing_steps=1)


def test_the_teams_reward_where_agents_are_read_is_named():
    loss = make_loss()
    loss.set_keys(reward="reward")
    batch = make_batch(loss)
    batch["next", "reward"] = torch.randn(4, 6, 1)
    with pytest.raises(
        ValueError, match=r"`done` must have the shape of `reward`, \(4, 6\); got \(4, 6, \d\)"
    ):
        loss.estimate(batch, gamma=0.9, lmbda=0.8)
