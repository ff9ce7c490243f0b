"""The straight forward pass of TorchRL's multi-agent MLP."""

import copy

import pytest
import torch
from torch import nn
from torchrl.modules import MultiAgentConvNet, MultiAgentMLP

from marl_td.models.compiling import Compiled
from marl_td.models.fast_tanh import fast_tanh
from marl_td.models.straight import StraightMultiAgentMLP, straighten

CASES = [(shared, central) for shared in (True, False) for central in (True, False)]


def network(shared, central, **kwargs):
    """A small network of three agents."""
    options = {"depth": 2, "num_cells": 8, "activation_class": nn.Tanh, **kwargs}
    return MultiAgentMLP(4, 2, n_agents=3, centralized=central, share_params=shared, **options)


@pytest.mark.parametrize(("shared", "central"), CASES)
@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
def test_outputs_and_gradients_stay_the_same(shared, central, batch):
    theirs = network(shared, central)
    ours = copy.deepcopy(theirs)
    assert straighten(nn.Sequential(ours)) == []
    x = torch.randn(*batch, 3, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x).shape == (*batch, 3, 2)
    torch.testing.assert_close(ours(x[..., :1], x[..., 1:]), theirs(x))
    for net in (ours, theirs):
        net(x).square().sum().backward()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize(("shared", "central"), CASES)
def test_layer_norms_of_all_agents_or_of_each(shared, central):
    norms = {"norm_class": nn.LayerNorm, "norm_kwargs": [{"normalized_shape": 8}] * 2}
    theirs = network(shared, central, **norms)
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    ours = copy.deepcopy(theirs)
    assert straighten(nn.Sequential(ours)) == []
    assert type(ours) is StraightMultiAgentMLP
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    for net in (ours, theirs):
        net(x).square().sum().backward()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    again = copy.deepcopy(ours)  # its layers are its own
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(2.0)
    torch.testing.assert_close(again(x), theirs(x))


def test_a_layer_norm_without_parameters_is_a_function_like_any_other():
    norm = {"normalized_shape": 8, "elementwise_affine": False}
    net = network(True, False, norm_class=nn.LayerNorm, norm_kwargs=[norm] * 2)
    x = torch.randn(5, 3, 4)
    expected = net(x)
    assert straighten(nn.Sequential(net)) == []
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(("shared", "central"), CASES)
def test_the_layout_of_the_input_does_not_matter(shared, central):
    net = network(shared, central)
    straighten(net)
    x = torch.randn(4, 3, 5).permute(2, 1, 0)  # the environments are last in memory
    torch.testing.assert_close(net(x), net(x.contiguous()))


@pytest.mark.parametrize(("shared", "central"), CASES)
def test_compiling_leaves_the_state_dict_alone(shared, central):
    net = network(shared, central)
    before = list(net.state_dict())
    n_parameters = len(list(net.parameters()))
    straighten(net)
    run = Compiled("network", net, backend="eager")
    x = torch.randn(5, 3, 4)
    with torch._dynamo.config.patch(error_on_recompile=True), torch.no_grad():
        first = run(x)
        net(x)
        for parameter in net.parameters():
            parameter.add_(0.1)
        assert not torch.allclose(run(x), first)
        torch.testing.assert_close(run(x), net(x))
    assert list(net.state_dict()) == before
    assert len(list(net.parameters())) == n_parameters


def test_target_networks_are_straightened_by_themselves():
    net = network(False, True)
    straighten(net)
    target = copy.deepcopy(net)
    straighten(target)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    x = torch.randn(5, 3, 4)
    assert (target(x) == 0).all()
    assert (net(x) != 0).any()


def test_other_networks_are_named():
    convolution = MultiAgentConvNet(n_agents=2, centralized=False, share_params=True, in_features=1)
    norm = {"normalized_shape": 8, "bias": False}
    normalised = network(True, False, norm_class=nn.LayerNorm, norm_kwargs=norm)
    root = nn.ModuleDict({"a": network(True, False), "b": convolution, "c": normalised})
    assert straighten(root) == ["b (MultiAgentConvNet)", "c (MultiAgentMLP)"]
    assert isinstance(root["a"], StraightMultiAgentMLP)


def test_the_compiled_tanh_is_tanh_with_its_gradient():
    x = torch.cat([torch.linspace(-12.0, 12.0, 100_001), torch.tensor([1e-6, -1e-6, 1e30, -1e30])])
    found = Compiled("tanh", fast_tanh, backend="eager")(x)
    exact = torch.tanh(x.double())
    torch.testing.assert_close(found.double(), exact, rtol=5e-7, atol=0.0)
    assert found.abs().max() <= 1.0
    torch.testing.assert_close(fast_tanh(x), torch.tanh(x), rtol=0.0, atol=0.0)
    doubles = torch.linspace(-3.0, 3.0, 50, dtype=torch.float64)
    same = Compiled("tanh", fast_tanh, backend="eager")(doubles)
    assert torch.equal(same, torch.tanh(doubles))

    inputs = torch.linspace(-4.0, 4.0, 101, requires_grad=True)
    Compiled("tanh", lambda v: fast_tanh(v) * 3.0, backend="eager")(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, 3.0 * (1.0 - torch.tanh(inputs.detach()).square()))


def test_graphs_of_others_keep_torchs_tanh():
    x = torch.linspace(-3.0, 3.0, 1001)
    assert torch.equal(torch.compile(fast_tanh, backend="eager")(x), torch.tanh(x))
    assert not torch.equal(Compiled("tanh", fast_tanh, backend="eager")(x), torch.tanh(x))
    assert torch.equal(torch.compile(fast_tanh, backend="eager")(x), torch.tanh(x))


def test_numbers_that_are_none_stay_none():
    x = torch.tensor([float("nan"), float("inf"), -float("inf")])
    found = Compiled("tanh", fast_tanh, backend="eager")(x)
    assert found[0].isnan()
    assert found[1:].tolist() == pytest.approx([1.0, -1.0], rel=5e-7)
