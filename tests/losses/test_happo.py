"""The HAPPO loss: its limits (MAPPO, PPO), its factor, its masks, its graph."""

import copy

import pytest
import torch
from small_ppo import GROUP, actor, collected, critic
from tensordict import TensorDict

from marl_td.losses.happo import HAPPOLoss
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.value_norm import PopArt, ValueNorm

N = 3
KINDS = ["discrete", "masked", "continuous"]


def small_happo(kind="discrete", n_agents=N, n_updates=2 * N, policy=None, **options) -> HAPPOLoss:
    """A loss of small networks, one policy per agent."""
    policy = policy or actor(kind, own=n_agents)
    return HAPPOLoss(policy, critic(), n_agents=n_agents, n_updates=n_updates, **options)


def batch_of(loss, **sizes) -> TensorDict:
    """An estimated batch ``[n_envs * T]``."""
    return loss.estimate(collected(loss.actor, **sizes), gamma=0.9, lmbda=0.8).reshape(-1)


def as_mappo(loss: HAPPOLoss, **options) -> MAPPOLoss:
    """MAPPO of copies of the same networks."""
    networks = copy.deepcopy((loss.actor, loss.critic))
    return MAPPOLoss(*networks, value_norm=copy.deepcopy(loss.value_norm), **options)


def of_one(batch: TensorDict, agent: int) -> TensorDict:
    """The batch with everybody else taken for dead."""
    alive = torch.zeros(*batch.batch_size, N, dtype=torch.bool)
    alive[..., agent] = True
    out = batch.clone()
    out[GROUP, "mask"] = alive & batch.get((GROUP, "mask"), torch.ones_like(alive))
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [None, "running", "popart"])
def test_the_first_agent_learns_as_under_mappo_step_for_step(kind, norm):
    """Losses, gradients and parameters after its two Adam steps; nobody else moves."""
    loss = small_happo(kind, entropy_coeff=0.02)
    if norm:
        loss.value_norm = ValueNorm() if norm == "running" else PopArt(loss.critic)
    batch = batch_of(loss)
    theirs = as_mappo(loss, entropy_coeff=0.02)
    if norm == "popart":
        theirs.value_norm = PopArt(theirs.critic)
        theirs.value_norm.load_state_dict(loss.value_norm.state_dict())
    first = int(loss.turns.order[0])
    before = [p.detach().clone() for p in loss.actor.parameters()]
    ours = torch.optim.Adam([*loss.agent_parameters(), *loss.critic.parameters()], lr=1e-2)
    his = torch.optim.Adam([*theirs.actor.parameters(), *theirs.critic.parameters()], lr=1e-2)
    for step in range(2):
        torch.manual_seed(step)
        out = loss(batch)
        torch.manual_seed(step)
        expected = theirs(of_one(batch, first))
        for name in ("loss_objective", "entropy", "kl_approx", "clip_fraction"):
            torch.testing.assert_close(out[name], expected[name], msg=name)
        assert out["factor_deviation"] == 0.0
        # The critic learns from all.
        torch.manual_seed(step)
        torch.testing.assert_close(out["loss_critic"], expected["loss_critic"])
        for values, optimiser in ((out, ours), (expected, his)):
            (values["loss_objective"] + values["loss_critic"]).backward()
            optimiser.step()
            optimiser.zero_grad()
    for p, other, start in zip(
        loss.actor.parameters(), theirs.actor.parameters(), before, strict=True
    ):
        torch.testing.assert_close(p[first], other[first], rtol=1e-4, atol=1e-6)
        assert not torch.equal(p[first], start[first])
        waiting = [agent for agent in range(N) if agent != first]
        assert torch.equal(p[waiting], start[waiting])


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_one_agent_is_ppo(kind):
    loss = small_happo(kind, n_agents=1, n_updates=3)
    batch = batch_of(loss, n_agents=1)
    theirs = as_mappo(loss)
    optimisers = [
        torch.optim.Adam(x, lr=1e-2) for x in (loss.agent_parameters(), theirs.actor.parameters())
    ]
    for step in range(3):
        for each, optimiser in zip((loss, theirs), optimisers, strict=True):
            torch.manual_seed(step)
            each(batch)["loss_objective"].backward()
            optimiser.step()
            optimiser.zero_grad()
    for ours, his in zip(loss.actor.parameters(), theirs.actor.parameters(), strict=True):
        torch.testing.assert_close(ours, his)


@pytest.mark.parametrize("kind", KINDS)
def test_later_agents_learn_under_the_factor_of_the_earlier(kind):
    """By hand: M outside the minimum, not clipped, of the policies that the earlier ones have now."""
    loss = small_happo(kind, n_updates=N, entropy_coeff=0.0)
    batch = batch_of(loss)
    order = loss.turns.order.tolist()
    adam = torch.optim.Adam(loss.agent_parameters(), lr=0.3)
    old, advantage = batch[GROUP, "log_prob"], batch[GROUP, "advantage"].squeeze(-1)
    m = torch.ones(len(batch))
    for agent in order:
        with torch.no_grad():
            now = loss.distribution(batch).log_prob(batch[GROUP, "action"])[:, agent]
        rho = (now - old[:, agent]).exp()
        a = advantage[:, agent]
        gain = m * torch.minimum(rho * a, rho.clamp(0.8, 1.2) * a)
        out = loss(batch)
        torch.testing.assert_close(out["loss_objective"].detach(), -gain.mean())
        torch.testing.assert_close(out["factor_deviation"], (m - 1.0).abs().mean())
        out["loss_objective"].backward()
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            after = loss.distribution(batch).log_prob(batch[GROUP, "action"])[:, agent]
        m = m * (after - old[:, agent]).exp()
    assert (m - 1.0).abs().max() > 0.25  # the clipping of a ratio would have shown


def test_without_a_learning_rate_everybody_learns_as_the_first():
    loss = small_happo(n_updates=N)
    batch = batch_of(loss)
    for agent in loss.turns.order.tolist():
        out = loss(batch)
        assert out["factor_deviation"] == 0.0
        expected = as_mappo(loss)(of_one(batch, agent))
        torch.testing.assert_close(out["loss_objective"], expected["loss_objective"])


def test_who_comes_first_makes_a_difference():
    """From the same start on the same batch, other orders lead to other policies; the same one does not."""
    start = small_happo(n_updates=N)
    batch = batch_of(start)
    ends = {}
    for order in ([0, 1, 2], [2, 1, 0], [0, 1, 2]):
        loss = copy.deepcopy(start)
        loss.turns.order.copy_(torch.tensor(order))
        adam = torch.optim.Adam(loss.agent_parameters(), lr=0.3)
        for _ in range(N):
            loss(batch)["loss_objective"].backward()
            adam.step()
            adam.zero_grad()
        ends.setdefault(tuple(order), []).append(
            torch.cat([p.detach().flatten() for p in loss.actor.parameters()])
        )
    first, again = ends[0, 1, 2]
    assert torch.equal(first, again)
    # Agent 1 is the second in both orders, but after another.
    assert not torch.allclose(first, ends[2, 1, 0][0], atol=1e-3)


# ------------------------------------------------------------------ masks
def test_dead_and_padded_entries_change_nothing():
    loss = small_happo("masked", n_updates=N, mask_dead_values=True)
    batch = batch_of(loss)
    batch[GROUP, "mask"] = torch.rand(len(batch), N) < 0.7
    batch["step_mask"] = torch.rand(len(batch), 1) < 0.8
    off = ~(batch[GROUP, "mask"] & batch["step_mask"])
    changed = batch.clone()
    for key in ("advantage", "value_target", "state_value"):
        changed[GROUP, key] = torch.where(
            off.unsqueeze(-1), batch[GROUP, key] + 3, batch[GROUP, key]
        )
    changed[GROUP, "log_prob"] = torch.where(
        off, batch[GROUP, "log_prob"] - 1, batch[GROUP, "log_prob"]
    )
    other = copy.deepcopy(loss)
    adams = [torch.optim.Adam(x.agent_parameters(), lr=0.3) for x in (loss, other)]
    for _ in range(N):
        outs = [loss(batch), other(changed)]
        for key, value in outs[0].items():
            torch.testing.assert_close(outs[1][key], value, msg=key)
        for out, adam in zip(outs, adams, strict=True):
            out["loss_objective"].backward()
            adam.step()
            adam.zero_grad()
    assert outs[0]["factor_deviation"] > 0.01


# ----------------------------------------------------------- other groups
def test_another_group_that_was_updated_before_counts():
    """M of the first agent is what the other group's policy has changed, and carries no gradient to it."""
    others = actor("discrete", own=2, group="others")
    loss = small_happo(n_updates=N, earlier_groups={"others": others}, entropy_coeff=0.0)
    batch = batch_of(loss)
    joint = {
        "observation": torch.randn(len(batch), 2, 4),
        "action": torch.randint(3, (len(batch), 2)),
    }
    inner = TensorDict(joint, [len(batch)])
    with torch.no_grad():
        logits = others[0](TensorDict({"others": inner.clone()}, [len(batch)]))["others", "logits"]
    now = logits.log_softmax(-1).gather(-1, joint["action"].unsqueeze(-1)).squeeze(-1)
    inner["log_prob"] = now - torch.tensor([0.3, -0.1])
    batch["joint"] = TensorDict({"others": inner}, [len(batch)])
    out = loss(batch)
    m = torch.tensor(0.2).exp()
    torch.testing.assert_close(out["factor_deviation"], m - 1.0)
    first = int(loss.turns.order[0])
    advantage = batch[GROUP, "advantage"].squeeze(-1)[:, first]
    torch.testing.assert_close(out["loss_objective"].detach(), -m * advantage.mean())
    out["loss_objective"].backward()
    assert all(p.grad is None for p in others.parameters())
    assert not any("others" in name for name in loss.state_dict())
    with pytest.raises(KeyError, match=r"the batch has no entry .*joint.*others"):
        loss(batch.exclude("joint"))


# ------------------------------------------------------------------ graph
def test_the_state_travels_and_goes_on():
    loss = small_happo(seed=4)
    batch = batch_of(loss)
    loss(batch)
    other = small_happo(seed=4)
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert other.turns.order.tolist() == loss.turns.order.tolist()
    for _ in range(5):
        torch.testing.assert_close(other(batch)["loss_objective"], loss(batch)["loss_objective"])
    for each in (loss, other):
        each.begin_batch()
    assert other.turns.order.tolist() == loss.turns.order.tolist()


def test_rows_stay_tied_when_the_loss_is_moved():
    loss = small_happo()
    rows = loss.agent_parameters()
    loss.to(torch.float64)
    assert rows[0].dtype == torch.float64
    with torch.no_grad():
        rows[0].fill_(2.0)
    assert (next(loss.actor.parameters())[0] == 2.0).all()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")
@pytest.mark.parametrize(("kind", "backend"), [("masked", "aot_eager"), ("continuous", "eager")])
def test_one_graph_for_all_agents_equals_eager(kind, backend):
    from marl_td.models.straight import require_straight

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    loss = small_happo(kind, n_updates=N, value_norm=ValueNorm())
    batch = batch_of(loss)
    require_straight(loss)
    with torch.no_grad():
        for parameter in loss.actor.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    other = copy.deepcopy(loss)
    require_straight(other)
    compiled = torch.compile(other.compute, fullgraph=True, backend=backend)
    for step in range(N):
        outs = []
        for function in (loss.compute, compiled):
            torch.manual_seed(step)
            outs.append(function(batch))
            outs[-1]["loss_objective"].backward()
        for key, value in outs[0].items():
            torch.testing.assert_close(outs[1][key], value, rtol=1e-4, atol=1e-5, msg=key)
        assert int(other.turns.agent) == int(loss.turns.order[step])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for ours, theirs in zip(loss.actor.parameters(), other.actor.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-5)


def test_shared_networks_are_refused():
    with pytest.raises(
        ValueError, match=r"need a network each, as stacks of parameters \[3, ...\]"
    ):
        small_happo(policy=actor("discrete"))
