"""Running value statistics, PopArt and advantage normalisation."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchrl.modules import MultiAgentMLP

from marl_td.losses.functional.normalisation import (
    masked_moments,
    normalise_advantage,
    popart_rescale,
    running_moments,
)
from marl_td.losses.value_norm import PopArt, ValueNorm, output_layer


def double(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def critics() -> dict[str, nn.Module]:
    """A shared network ``[*B, 3, 4] -> [*B, 3, 1]`` and one per agent (layers ``[3, 1, 5]``)."""
    return {
        "shared": nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)),
        "per agent": MultiAgentMLP(4, 1, 3, centralised=False, share_params=False, num_cells=[5]),
    }


# ------------------------------------------------------------------ functions
def test_masked_moments_by_hand():
    value = torch.tensor([[1.0, 10.0], [3.0, 30.0], [8.0, 50.0]])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    mean, variance, count = masked_moments(value, mask, (0,))
    assert mean.tolist() == [2.0, 10.0]
    assert variance.tolist() == [1.0, 0.0]
    assert count.tolist() == [2.0, 1.0]
    mean, variance, count = masked_moments(value, torch.zeros_like(mask), (0, 1))
    assert (mean.item(), variance.item(), count.item()) == (0.0, 0.0, 0.0)


def test_masked_entries_may_be_anything():
    value = torch.tensor([1.0, 3.0, float("nan"), float("inf")])
    mean, variance, _ = masked_moments(value, torch.tensor([True, True, False, False]), (0,))
    assert (mean.item(), variance.item()) == (2.0, 1.0)


@given(seed=st.integers(0, 1000), rate=st.floats(1e-5, 1.0), n=st.integers(1, 6))
def test_running_moments_are_the_debiased_averages_of_x_and_x_squared(seed, rate, n):
    """What MAPPO's reference keeps: EMA(x) / w and EMA(x^2) / w - mean^2, w = 1 - (1 - rate)^n."""
    batches = double(seed, n, 8) * 3 + 1
    zero = torch.zeros((), dtype=torch.float64)
    state = (zero, torch.ones_like(zero), zero)
    mean, mean_square = zero, zero
    for batch in batches:
        variance = batch.var(unbiased=False)
        state = running_moments(*state, batch.mean(), variance, torch.full_like(zero, rate))
        mean = (1 - rate) * mean + rate * batch.mean()
        mean_square = (1 - rate) * mean_square + rate * batch.square().mean()
    weight = 1 - (1 - rate) ** n
    torch.testing.assert_close(state[2], torch.full_like(zero, weight))
    torch.testing.assert_close(state[0], mean / weight)
    expected = mean_square / weight - (mean / weight).square()
    torch.testing.assert_close(state[1], expected, rtol=1e-4, atol=1e-8)


def test_running_moments_keep_precision_far_from_zero():
    """Returns of 1e4 +- 1 in single precision: E[x^2] - E[x]^2 would lose the variance altogether."""
    norm = ValueNorm(beta=0.9)
    torch.manual_seed(0)
    for _ in range(50):
        norm.update(1e4 + torch.randn(4096))
    assert norm.running_mean.item() == pytest.approx(1e4, abs=0.2)
    assert norm.running_variance.item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("shape", [(1, 5), (3, 1, 5)])
def test_popart_rescale_keeps_denormalised_outputs(shape):
    weight, bias = double(0, *shape), double(1, *shape[:-1])
    x = double(2, 7, *shape[:-2], shape[-1])
    old_mean, new_mean = double(3, *shape[:-1]), double(4, *shape[:-1])
    old_scale, new_scale = double(5, *shape[:-1]).exp(), double(6, *shape[:-1]).exp()

    def output(w, b, scale, mean):
        return scale * (torch.einsum("...i,...oi->...o", x, w) + b) + mean

    new = popart_rescale(weight, bias, old_mean, old_scale, new_mean, new_scale)
    before = output(weight, bias, old_scale, old_mean)
    torch.testing.assert_close(output(*new, new_scale, new_mean), before)


def test_popart_rescale_by_hand():
    """s: 2 -> 4, m: 1 -> 3: W' = W / 2, b' = (2 b + 1 - 3) / 4."""
    two, four = torch.tensor(2.0), torch.tensor(4.0)
    weight, bias = popart_rescale(
        torch.tensor([[6.0]]), torch.tensor([5.0]), torch.tensor(1.0), two, torch.tensor(3.0), four
    )
    assert (weight.item(), bias.item()) == (3.0, 2.0)


@given(seed=st.integers(0, 1000))
def test_normalised_advantages_have_mean_0_and_deviation_1_over_what_counts(seed):
    advantage = double(seed, 4, 6, 3) * 5 + 2
    mask = double(seed + 1, 4, 6, 3) > -0.5
    out = normalise_advantage(advantage, mask)
    assert out[mask].mean().abs() < 1e-10
    assert out[mask].std(unbiased=False) == pytest.approx(1.0, abs=1e-4)
    assert (out[~mask] == 0).all()
    each = normalise_advantage(advantage, mask, exclude_dims=(-1,))
    for agent in range(3):
        kept = each[..., agent][mask[..., agent]]
        assert kept.mean().abs() < 1e-10
        assert kept.std(unbiased=False) == pytest.approx(1.0, abs=1e-4)


def test_equal_advantages_become_0():
    assert normalise_advantage(torch.full((5, 2), 3.0)).abs().max() == 0.0


# ----------------------------------------------------------------- value norm
def test_fresh_statistics_change_nothing():
    value = torch.randn(4, 3)
    for norm in (ValueNorm(), ValueNorm(3)):
        assert torch.equal(norm.normalise(value), value)
        assert torch.equal(norm.denormalise(value), value)


@pytest.mark.parametrize("n_agents", [None, 3])
@given(seed=st.integers(0, 1000))
def test_denormalise_inverts_normalise(n_agents, seed):
    norm = ValueNorm(n_agents).double()
    value = double(seed, 5, 3) * 40 + 100
    for _ in range(3):
        norm.update(value)
    torch.testing.assert_close(norm.denormalise(norm.normalise(value)), value)


def test_the_first_update_takes_the_batch_as_it_is():
    """Debiased: after one update the statistics are the batch's, whatever beta."""
    value = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    norm = ValueNorm(beta=0.99999)
    norm.update(value)
    assert norm.running_mean.item() == pytest.approx(11.0)
    assert norm.running_variance.item() == pytest.approx(131.5)
    each = ValueNorm(2)
    each.update(value)
    torch.testing.assert_close(each.running_mean, torch.tensor([2.0, 20.0]))
    torch.testing.assert_close(each.running_variance, torch.tensor([1.0, 100.0]))


def test_statistics_of_which_nothing_counts_stay():
    norm = ValueNorm(2)
    value = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    norm.update(value)
    before = norm.running_mean.clone()
    norm.update(value + 100, torch.tensor([[True, False], [True, False]]))
    assert norm.running_mean[0] != before[0]
    assert norm.running_mean[1] == before[1]
    assert norm.weight[0] > norm.weight[1]
    fresh = ValueNorm()
    fresh.update(value, torch.zeros(2, 2, dtype=torch.bool))
    assert torch.equal(fresh.normalise(value), value)


def test_the_scale_has_a_floor():
    norm = ValueNorm(min_variance=0.04)
    norm.update(torch.full((4, 2), 7.0))
    assert norm.statistics()[1].item() == pytest.approx(0.2)


# --------------------------------------------------------------------- PopArt
@pytest.mark.parametrize(
    ("kind", "n_agents"), [("shared", None), ("per agent", None), ("per agent", 3)]
)
def test_popart_leaves_denormalised_outputs_unchanged(kind, n_agents):
    critic = critics()[kind].double()
    norm = PopArt(critic, n_agents, beta=0.5).double()
    x = double(0, 6, 3, 4)
    before = critic(x).squeeze(-1)
    for step in range(4):
        norm.update(double(step, 6, 3) * 10**step + 7.0 * torch.arange(3))
        torch.testing.assert_close(norm.denormalise(critic(x).squeeze(-1)), before)
    raw = critic(x).squeeze(-1)
    assert (raw - before).abs().max() > 0.3  # the raw outputs did move


def test_running_normalisation_does_move_denormalised_outputs():
    """What PopArt is for: without the rescaling they jump."""
    critic = critics()["shared"].double()
    norm = ValueNorm(beta=0.5).double()
    x = double(0, 6, 3, 4)
    before = norm.denormalise(critic(x))
    norm.update(double(1, 6, 3) + 100.0)
    assert (norm.denormalise(critic(x)) - before).abs().min() > 50.0


def copied(critic: nn.Module, norm: PopArt) -> tuple[nn.Module, PopArt]:
    return tuple(copy.deepcopy(nn.ModuleList([critic, norm])))


def moved(critic: nn.Module, norm: PopArt) -> tuple[nn.Module, PopArt]:
    both = nn.ModuleList([critic, norm]).to(torch.float64)
    return both[0], both[1]


def loaded(critic: nn.Module, norm: PopArt) -> tuple[nn.Module, PopArt]:
    both = nn.ModuleList([critic, norm])
    state = {key: value.clone() for key, value in both.state_dict().items()}
    both.load_state_dict(state, assign=True)
    return both[0], both[1]


@pytest.mark.parametrize("change", [copied, moved, loaded])
def test_popart_rescales_the_critic_it_stands_with(change):
    """After a copy, a change of type or device, and a load that replaces tensors."""
    critic = critics()["shared"]
    original = copy.deepcopy(critic.state_dict())
    critic, norm = change(critic, PopArt(critic, beta=0.5))
    x = torch.randn(6, 3, 4).to(next(critic.parameters()))
    before = critic(x).squeeze(-1)
    norm.update(torch.randn(6, 3).to(x) * 20 + 30)
    after = norm.denormalise(critic(x).squeeze(-1))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert not torch.equal(critic[2].weight.float(), original["2.weight"])


def test_output_layer_is_found():
    shared = critics()["shared"]
    assert output_layer(shared)[0] is shared[2].weight
    assert output_layer(critics()["per agent"])[0].shape == (3, 1, 5)


# ------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    "critic",
    [
        nn.Sequential(nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 1, bias=False)),
        nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 3)),
        nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)]),  # two output layers side by side
    ],
)
def test_popart_refuses_a_critic_without_one_output_layer(critic):
    with pytest.raises(ValueError, match="PopArt needs a critic that ends in one linear layer"):
        PopArt(critic)


def test_messages():
    with pytest.raises(ValueError, match=r"statistics for 3 agents need an output layer for each"):
        PopArt(critics()["shared"], 3)
    with pytest.raises(ValueError, match=r"`beta` must lie in \[0, 1\]; got 1.5"):
        ValueNorm(beta=1.5)
    with pytest.raises(ValueError, match=r"`beta` must be below 1; got 1.0"):
        ValueNorm(beta=1.0)
    with pytest.raises(ValueError, match=r"`min_variance` must be above 0; got 0.0"):
        ValueNorm(beta=0.9, min_variance=0.0)
    with pytest.raises(ValueError, match="`n_agents` must be at least 1; got 0"):
        ValueNorm(0)
    for use in (ValueNorm(2).update, ValueNorm(2).normalise, ValueNorm(2).denormalise):
        with pytest.raises(
            ValueError, match=r"`value` must be \[\*B, n_agents\] .* \(2\); got \(4, 3\)"
        ):
            use(torch.zeros(4, 3))
    with pytest.raises(
        ValueError, match=r"`exclude_dims` must be dimensions of \(4, 2\); got \(7,\)"
    ):
        normalise_advantage(torch.zeros(4, 2), exclude_dims=(7,))
    with pytest.raises(TypeError, match="`critic` must be the critic's module; got str"):
        PopArt("critic")
    with pytest.raises(ValueError, match="`mask` must have the shape of `value`"):
        ValueNorm().update(torch.zeros(4, 2), torch.ones(4, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="`mask` must have the shape of `value`"):
        normalise_advantage(torch.zeros(4, 2), torch.ones(4, dtype=torch.bool))
    scalar = torch.zeros(())
    with pytest.raises(ValueError, match="`batch_mean` must have the shape of `mean`"):
        running_moments(scalar, scalar, scalar, torch.zeros(1), scalar, scalar)
