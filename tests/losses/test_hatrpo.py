"""HATRPO's loss: one agent's step after the other's, each within its trust region."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_ppo import GROUP, actor, collected, critic
from torch.distributions import Categorical, Normal, kl_divergence

from marl_td.losses.hatrpo import HATRPOLoss

N = 3


def small_hatrpo(kind="discrete", n_agents=N, n_updates=N, **options) -> HATRPOLoss:
    """A loss of small networks, one policy per agent."""
    policy = actor(kind, own=n_agents)
    return HATRPOLoss(policy, critic(), n_agents=n_agents, n_updates=n_updates, **options)


def batch_of(loss, **sizes):
    """An estimated batch ``[n_envs * T]``."""
    return loss.estimate(collected(loss.actor, **sizes), gamma=0.9, lmbda=0.8).reshape(-1)


def copied(loss) -> list[torch.Tensor]:
    """Copies of the policies' parameters."""
    return [p.detach().clone() for p in loss.actor.parameters()]


def same(loss, before) -> bool:
    """Whether the policies are what they were."""
    return all(torch.equal(p, b) for p, b in zip(loss.actor.parameters(), before, strict=True))


def exact_divergence(old, new, batch, agent) -> torch.Tensor:
    """Of the policies of two losses, over the living entries of one agent, by torch's own formulas."""
    distributions = [x.distribution(batch) for x in (old, new)]
    if hasattr(distributions[0], "logits"):
        pairs = [Categorical(logits=d.logits.clamp(min=-1e9)) for d in distributions]
    else:
        pairs = [Normal(d.loc, d.scale) for d in distributions]
    found = kl_divergence(*pairs)
    found = (found if found.ndim == 2 else found.sum(-1))[:, agent]
    alive = batch.get((GROUP, "mask"), None)
    return found.mean() if alive is None else found[alive[:, agent]].mean()


@given(
    kind=st.sampled_from(["discrete", "masked", "continuous"]),
    seed=st.integers(0, 10_000),
    kl_threshold=st.sampled_from([1e-4, 0.01, 0.3]),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_no_step_leaves_the_trust_region(kind, seed, kl_threshold, spread):
    """Accepted: closer than the threshold, and better; rejected: nothing has changed. Others stay."""
    torch.manual_seed(seed)
    loss = small_hatrpo(kind, kl_threshold=kl_threshold)
    batch = batch_of(loss)
    batch[GROUP, "mask"] = torch.rand(len(batch), N) < 0.8
    with torch.no_grad():
        for parameter in loss.actor.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    for agent in loss.turns.order.tolist():
        before = copy.deepcopy(loss)
        out = loss(batch)
        divergence = exact_divergence(before, loss, batch, agent)
        torch.testing.assert_close(out["kl"], divergence, rtol=1e-3, atol=1e-6)
        assert divergence <= kl_threshold * 1.001
        assert out["accepted"] == (out["improvement"] > 0.0)
        for p, start in zip(loss.actor.parameters(), before.actor.parameters(), strict=True):
            waiting = [other for other in range(N) if other != agent]
            assert torch.equal(p[waiting], start[waiting])
            assert out["accepted"] or torch.equal(p, start)


def plain_trpo(loss, batch, *, kl_threshold=0.01, damping=0.1, bonus=0.0) -> list[torch.Tensor]:
    """One step of textbook TRPO with exact linear algebra: what the parameters become."""
    parameters = list(loss.actor.parameters())
    advantage = batch[GROUP, "advantage"].squeeze(-1)

    def objective():
        new = loss.distribution(batch)
        ratio = (new.log_prob(batch[GROUP, "action"]) - batch[GROUP, "log_prob"]).exp()
        entropy = bonus * new.entropy() if bonus else 0.0
        return (ratio * advantage + entropy).mean()

    old = loss.distribution(batch)
    old_parameters = (old.loc.detach(), old.scale.detach()) if hasattr(old, "loc") else None

    def divergence():
        new = loss.distribution(batch)
        if old_parameters is None:
            return kl_divergence(
                Categorical(logits=old.logits.detach()), Categorical(logits=new.logits)
            ).mean()
        pair = (Normal(*old_parameters), Normal(new.loc, new.scale))
        return kl_divergence(*pair).sum(-1).mean()

    flat = lambda ts: torch.cat([t.reshape(-1) for t in ts])  # noqa: E731
    before = objective()
    g = flat(torch.autograd.grad(before, parameters))
    slope = flat(torch.autograd.grad(divergence(), parameters, create_graph=True))
    rows = [flat(torch.autograd.grad(s, parameters, retain_graph=True)) for s in slope]
    fisher = torch.stack(rows) + damping * torch.eye(len(g))
    x = torch.linalg.solve(fisher, g)
    x = (2 * kl_threshold / (x @ fisher @ x)).sqrt() * x
    start = flat([p.detach() for p in parameters]).clone()
    for fraction in (0.8**k for k in range(10)):
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(start + fraction * x, parameters)
            gained = objective() - before
            if divergence() <= kl_threshold and gained > 0.5 * fraction * (g @ x):
                return [p.detach() for p in parameters]
    torch.nn.utils.vector_to_parameters(start, parameters)
    return [p.detach() for p in parameters]


@pytest.mark.parametrize(
    ("kind", "bonus"), [("discrete", 0.0), ("continuous", 0.0), ("discrete", 2.0)]
)
def test_one_agent_is_trpo(kind, bonus):
    loss = small_hatrpo(kind, n_agents=1, n_updates=1, cg_iterations=80, entropy_coeff=bonus)
    batch = batch_of(loss, n_agents=1)
    other = copy.deepcopy(loss)
    start = [p.detach().clone() for p in loss.actor.parameters()]
    expected = plain_trpo(other, batch, bonus=bonus)
    out = loss(batch)
    assert out["accepted"] == 1.0
    for p, his, first in zip(loss.actor.parameters(), expected, start, strict=True):
        torch.testing.assert_close(p.detach(), his, rtol=1e-2, atol=1e-4)
        assert not torch.equal(p.detach(), first)


def mean_entropy(loss, batch) -> torch.Tensor:
    """Of the policies, where they are squashed normals by a thousand draws of each."""
    with torch.no_grad():
        new = loss.distribution(batch)
        if hasattr(new, "logits"):
            return new.entropy().mean()
        draws = new.rsample((1000,))
        return -new.log_prob(draws).mean()


@pytest.mark.parametrize("kind", ["masked", "continuous"])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_where_there_is_nothing_else_to_gain_a_step_raises_the_entropy(kind, spread):
    """Of the available actions, and of squashed actions, also where the wider normal has less of it."""
    torch.manual_seed(0)
    loss = small_hatrpo(kind, n_agents=1, n_updates=1, entropy_coeff=1.0)
    with torch.no_grad():
        for parameter in loss.actor.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    batch = batch_of(loss, n_agents=1, n_envs=64)
    batch[GROUP, "advantage"] = torch.zeros_like(batch[GROUP, "advantage"])
    before = mean_entropy(loss, batch)
    out = loss(batch)
    assert out["accepted"] == 1.0
    gained = mean_entropy(loss, batch) - before
    assert gained > 0.3 * out["improvement"] > 0.0


def test_the_objective_is_that_of_the_factor():
    """What the second agent gains is the change of the mean of M rho A, with M of the first one's step."""
    loss = small_hatrpo(kl_threshold=0.3)
    batch = batch_of(loss)
    first, second, _ = loss.turns.order.tolist()
    old, a = batch[GROUP, "log_prob"], batch[GROUP, "advantage"].squeeze(-1)[:, second]

    def ratio(agent):
        with torch.no_grad():
            now = loss.distribution(batch).log_prob(batch[GROUP, "action"])
        return (now - old).exp()[:, agent]

    assert loss(batch)["factor_deviation"] == 0.0
    m, before = ratio(first), ratio(second)
    out = loss(batch)
    torch.testing.assert_close(out["factor_deviation"], (m - 1).abs().mean())
    torch.testing.assert_close(out["improvement"], (m * (ratio(second) - before) * a).mean())
    assert (m - 1).abs().max() > 0.1


def test_an_agent_steps_once_in_its_turn_and_the_critic_always_learns():
    """Two calls each: only the first moves the policy, and what is said of it stays."""
    loss = small_hatrpo(n_updates=2 * N)
    batch = batch_of(loss)
    for _ in range(N):
        before = copied(loss)
        first = loss(batch)
        moved = copied(loss)
        second = loss(batch)
        assert same(loss, moved)
        assert not same(loss, before)
        assert set(first.keys()) == set(second.keys()) == set(loss.out_keys)
        assert all(torch.equal(first[k], second[k]) for k in first.keys() if "critic" not in k)
        assert second["loss_critic"].requires_grad
        second["loss_critic"].backward()
        assert all(p.grad is None for p in loss.actor.parameters())


def test_an_agent_that_is_never_alive_stays():
    loss = small_hatrpo()
    batch = batch_of(loss)
    batch[GROUP, "mask"] = torch.zeros(len(batch), N, dtype=torch.bool)
    before = copied(loss)
    out = loss(batch)
    assert all(value.isfinite() for value in out.values())
    assert out["accepted"] == 0.0
    assert same(loss, before)


def test_nothing_moves_in_evaluation_mode():
    loss = small_hatrpo()
    batch = batch_of(loss)
    before = copied(loss)
    loss.eval()
    assert loss(batch)["accepted"] == 0.0
    assert same(loss, before)


# ---------------------------------------------------------------- failures
def break_gradient(loss, call, value):
    """Make one of the actor's gradients bad: 1 the objective's, 3 to 12 those of the solver, 13 the last."""
    seen = []

    def change(gradient):
        seen.append(1)
        return gradient * value if len(seen) == call else gradient

    next(loss.actor.parameters()).register_hook(change)


def break_lengths(loss, tried, objective=0.0, divergence=0.0):
    """Add numbers to what the first step's lengths with these indices are measured by."""
    real, seen = loss._measure, []

    def measure(*args):
        seen.append(1)
        values = real(*args)
        if len(seen) - 2 not in tried:  # the first call is that before the step
            return values
        return values[0] + objective, values[1] + divergence

    loss._measure = measure


NAN, INF = float("nan"), float("inf")
FAILURES = {
    "gradient": lambda loss: break_gradient(loss, 1, NAN),
    "infinite gradient": lambda loss: break_gradient(loss, 1, INF),
    "direction": lambda loss: break_gradient(loss, 3, NAN),
    "infinite direction": lambda loss: break_gradient(loss, 12, INF),
    "image": lambda loss: break_gradient(loss, 13, NAN),
    "infinite image": lambda loss: break_gradient(loss, 13, INF),
    "objectives": lambda loss: break_lengths(loss, range(10), objective=NAN),
    "infinite objectives": lambda loss: break_lengths(loss, range(10), objective=INF),
    "divergences": lambda loss: break_lengths(loss, range(10), divergence=NAN),
    "infinite divergences": lambda loss: break_lengths(loss, range(10), divergence=INF),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_step_that_fails_says_so_once_and_moves_nothing(failure):
    """The first agent's; its other call has not failed, and the second agent steps."""
    loss = small_hatrpo(n_updates=2 * N)
    batch = batch_of(loss)
    FAILURES[failure](loss)
    before = copied(loss)
    out = loss(batch)
    assert out["grad_norm_policy"].isnan()
    assert out["accepted"] == 0.0
    assert same(loss, before)
    later = loss(batch)
    assert all(value.isfinite() for value in later.values())
    assert later["grad_norm_policy"] == 0.0
    following = loss(batch)
    assert all(value.isfinite() for value in following.values())
    assert following["grad_norm_policy"] > 0.0
    assert not same(loss, before)


@pytest.mark.parametrize("bad", [{"objective": NAN}, {"objective": INF}, {"divergence": INF}])
@pytest.mark.parametrize("n_bad", [1, 9])
def test_lengths_that_are_too_long_for_finite_numbers_are_cut_back(bad, n_bad):
    loss = small_hatrpo(kl_threshold=1e-4)
    batch = batch_of(loss)
    break_lengths(loss, range(n_bad), **bad)
    out = loss(batch)
    assert out["accepted"] == 1.0
    assert out["grad_norm_policy"].isfinite()
    torch.testing.assert_close(out["step_fraction"], torch.tensor(0.8**n_bad))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_norm_is_that_of_the_agents_own_gradient(kind):
    """Of the mean of rho A, before the step; also where no length is accepted."""
    loss = small_hatrpo(kind)
    batch = batch_of(loss)
    agent = int(loss.turns.order[0])
    new = loss.distribution(batch).log_prob(batch[GROUP, "action"])
    gain = (new - batch[GROUP, "log_prob"]).exp() * batch[GROUP, "advantage"].squeeze(-1)
    gradients = torch.autograd.grad(gain[:, agent].mean(), list(loss.actor.parameters()))
    expected = torch.stack([g[agent].square().sum() for g in gradients]).sum().sqrt()
    break_lengths(loss, range(10), objective=-100.0)
    out = loss(batch)
    assert out["accepted"] == 0.0
    torch.testing.assert_close(out["grad_norm_policy"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_threshold": 0.0}, "`kl_threshold` must be above 0"),
        ({"backtrack": 1.0}, r"`backtrack` must lie in \(0, 1\); got 1.0"),
        ({"accept_ratio": 1.5}, r"`accept_ratio` must lie in \[0, 1\]; got 1.5"),
        ({"cg_iterations": 0}, "`cg_iterations` must be at least 1; got 0"),
        ({"line_search_steps": 0}, "`line_search_steps` must be at least 1; got 0"),
        ({"steps_per_turn": 0}, "`steps_per_turn` must be at least 1; got 0"),
        ({"cg_damping": -1.0}, "`cg_damping` must be at least 0; got -1.0"),
        ({"entropy_coeff": -1.0}, "`entropy_coeff` must be at least 0; got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_hatrpo(**options)
