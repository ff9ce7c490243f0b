"""Trust-region steps: divergences, curvature, conjugate gradients, and HATRPO's loss."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_ppo import GROUP, actor, collected, critic
from torch.distributions import Categorical, Normal, kl_divergence

from marl_td.losses.functional.distributions import categorical_divergence, gaussian_divergence
from marl_td.losses.functional.trust_region import (
    conjugate_gradient,
    hessian_product,
    trust_region_step,
)
from marl_td.losses.hatrpo import HATRPOLoss

N = 3


# ------------------------------------------------------------ divergences
def test_divergences_are_torchs():
    old, new = torch.randn(5, 2, 4).log_softmax(-1), torch.randn(5, 2, 4).log_softmax(-1)
    expected = kl_divergence(Categorical(logits=old), Categorical(logits=new))
    torch.testing.assert_close(categorical_divergence(old, new), expected)
    m, n, s, t = (torch.randn(5, 2, 3).abs() + 0.1 for _ in range(4))
    expected = kl_divergence(Normal(m, s), Normal(n, t)).sum(-1)
    torch.testing.assert_close(gaussian_divergence(m, s, n, t), expected)
    assert categorical_divergence(old, old).abs().max() < 1e-6
    assert gaussian_divergence(m, s, m, s).abs().max() < 1e-6


def test_unavailable_actions_add_nothing_and_have_no_gradient():
    mask = torch.tensor([[True, True, False]])
    logits = torch.tensor([[0.2, 0.5, 3.0]], requires_grad=True)
    old = torch.tensor([[0.5, 0.5, 0.0]]).log()
    new = logits.masked_fill(~mask, float("-inf")).log_softmax(-1)
    found = categorical_divergence(old, new)
    expected = categorical_divergence(old[:, :2], logits[:, :2].log_softmax(-1))
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 2] == 0.0


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="`other_log_probs` must have the shape of `log_probs`"):
        categorical_divergence(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="`other_std` must have the shape of `mean`"):
        gaussian_divergence(*[torch.ones(2, 3)] * 3, torch.ones(3))


# -------------------------------------------------------------- curvature
def test_the_curvature_of_the_divergence_is_fishers_matrix():
    """Of a softmax over logits W x: mean over x of (diag(p) - p p') times x x', entry by entry."""
    weight = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(6, 2, dtype=torch.float64)
    log_probs = (x @ weight.T).log_softmax(-1)
    divergence = categorical_divergence(log_probs.detach(), log_probs).mean()
    product = hessian_product(divergence, [weight], lambda ts: ts[0].reshape(-1))
    found = torch.stack([product(row) for row in torch.eye(6, dtype=torch.float64)])
    p = log_probs.exp().detach()
    softmax = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    fisher = torch.einsum("bij,bk,bl->ikjl", softmax, x, x).reshape(6, 6) / len(x)
    torch.testing.assert_close(found, fisher)
    score = torch.eye(3, dtype=torch.float64) - p.unsqueeze(1)  # of each action
    scores = torch.einsum("bai,bk->baik", score, x).reshape(6, 3, 6)
    by_scores = torch.einsum("ba,bai,baj->ij", p, scores, scores) / len(x)
    torch.testing.assert_close(found, by_scores)


# ----------------------------------------------------- conjugate gradients
@given(d=st.integers(1, 8), seed=st.integers(0, 1000))
def test_a_quadratic_is_solved_in_as_many_steps_as_it_has_dimensions(d, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(d, dtype=torch.float64)
    target = torch.randn(d, generator=generator, dtype=torch.float64)
    found = conjugate_gradient(lambda v: matrix @ v, target, n_iters=d, tolerance=1e-24)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)
    more = conjugate_gradient(lambda v: matrix @ v, target, n_iters=d + 20, tolerance=1e-24)
    torch.testing.assert_close(more, found, rtol=1e-6, atol=1e-8)


def test_by_hand():
    """diag(1, 4) x = (1, 4): the first step is along (1, 4), by 17 / 65."""
    matrix, target = torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([1.0, 4.0])
    first = conjugate_gradient(lambda v: matrix @ v, target, n_iters=1)
    torch.testing.assert_close(first, target * 17 / 65)
    whole = conjugate_gradient(lambda v: matrix @ v, target, n_iters=2)
    torch.testing.assert_close(whole, torch.ones(2))
    zero = conjugate_gradient(lambda v: matrix @ v, torch.zeros(2))
    assert zero.tolist() == [0.0, 0.0]


def test_the_step_is_as_long_as_the_quadratic_model_allows():
    matrix = torch.diag(torch.tensor([1.0, 4.0]))
    direction = torch.tensor([3.0, -1.0])
    step = trust_region_step(direction, matrix @ direction, 0.01)
    torch.testing.assert_close(0.5 * step @ matrix @ step, torch.tensor(0.01))
    assert step[0] / step[1] == -3.0
    assert trust_region_step(torch.zeros(2), torch.zeros(2), 0.01).tolist() == [0.0, 0.0]


# ------------------------------------------------------------------- loss
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


def plain_trpo(loss, batch, *, kl_threshold=0.01, damping=0.1) -> list[torch.Tensor]:
    """One step of textbook TRPO with exact linear algebra: what the parameters become."""
    parameters = list(loss.actor.parameters())
    advantage = batch[GROUP, "advantage"].squeeze(-1)

    def objective():
        log_prob = loss.distribution(batch).log_prob(batch[GROUP, "action"])
        return ((log_prob - batch[GROUP, "log_prob"]).exp() * advantage).mean()

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


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_one_agent_is_trpo(kind):
    loss = small_hatrpo(kind, n_agents=1, n_updates=1, cg_iterations=80)
    batch = batch_of(loss, n_agents=1)
    other = copy.deepcopy(loss)
    start = [p.detach().clone() for p in loss.actor.parameters()]
    expected = plain_trpo(other, batch)
    out = loss(batch)
    assert out["accepted"] == 1.0
    for p, his, first in zip(loss.actor.parameters(), expected, start, strict=True):
        torch.testing.assert_close(p.detach(), his, rtol=1e-2, atol=1e-4)
        assert not torch.equal(p.detach(), first)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_threshold": 0.0}, "`kl_threshold` must be above 0"),
        ({"backtrack": 1.0}, "0.01, 1.0 and 0.5"),
        ({"accept_ratio": 1.5}, "0.01, 0.8 and 1.5"),
        ({"cg_iterations": 0}, "must be at least 1, `cg_damping` at least 0; got 0, 10, 1 and 0.1"),
        ({"cg_damping": -1.0}, "got 10, 10, 1 and -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_hatrpo(**options)
