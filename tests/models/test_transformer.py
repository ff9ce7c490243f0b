"""The transformer over agents: order, causality, one pass against step by step, and what sizes it takes."""

import pytest
import torch
from torch import nn

from marl_td.models.autoregressive import ActionRows
from marl_td.models.transformer import Attention, Decoder, Encoder, ValueHead

SIZES = [(1, 1, 1), (3, 1, 1), (4, 2, 2)]
"""Agents, blocks, heads."""


def moved(module: nn.Module) -> nn.Module:
    """``module`` with parameters in which nothing is small."""
    for parameter in module.parameters():
        parameter.data.add_(0.5 * torch.randn_like(parameter))
    return module.double()


@pytest.mark.parametrize(("n_agents", "n_blocks", "n_heads"), SIZES)
def test_one_pass_equals_agent_after_agent(n_agents, n_blocks, n_heads):
    decoder = moved(Decoder(3, 5, 8, n_blocks, n_heads))
    encoding = torch.randn(2, 6, n_agents, 8, dtype=torch.double)
    action = torch.randn(2, 6, n_agents, 3, dtype=torch.double)
    past, before, found = [None] * n_blocks, None, []
    for agent in range(n_agents):
        one = slice(agent, agent + 1)
        out, past = decoder.step(encoding[..., one, :], before, past)
        found.append(out)
        before = action[..., one, :]
    torch.testing.assert_close(torch.cat(found, -2), decoder(encoding, action))


def test_no_agent_sees_later_representations_through_the_decoder():
    """The reference masks them too: agent i's output depends on the first i representations only."""
    decoder = moved(Decoder(3, 5, 8, 2))
    encoding, action = torch.randn(4, 8).double(), torch.randn(4, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: decoder(x, action).sum(-1), encoding)
    depends = jacobian.abs().sum(-1) > 0
    assert torch.equal(depends, torch.ones(4, 4, dtype=torch.bool).tril())


@pytest.mark.parametrize(("n_agents", "n_blocks", "n_heads"), SIZES)
def test_permuted_agents_are_encoded_alike(n_agents, n_blocks, n_heads):
    encoder, head = moved(Encoder(8, n_blocks, n_heads)), moved(ValueHead(8))
    features = torch.randn(7, n_agents, 8, dtype=torch.double)
    alive = torch.rand(7, n_agents) < 0.7
    order = torch.randperm(n_agents)
    one = encoder(features, alive)[:, order]
    two = encoder(features[:, order], alive[:, order])
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(head(one), head(two))


def test_each_agent_is_encoded_among_all():
    encoder = moved(Encoder(8))
    features = torch.randn(3, 8, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda x: encoder(x).sum(-1), features)
    assert (jacobian.abs().sum(-1) > 0).all()


def test_a_value_head_per_agent_has_a_layer_for_each():
    head = moved(ValueHead(8, n_groups=3))
    encoding = torch.randn(8).double().expand(3, 8)
    assert len(head(encoding).unique()) == 3
    assert len(moved(ValueHead(8))(encoding).unique()) == 1


def test_attention_by_hand():
    """One head, width 2, identity weights: scores by sqrt(2), weights by their softmax."""
    attention = Attention(2, 1)
    for layer in (attention.query, attention.key, attention.value, attention.out):
        layer.weight.data.copy_(torch.eye(2))
    x = torch.tensor([[2.0**0.5, 0.0], [0.0, 2.0**0.5]])
    weight = torch.tensor(2.0**0.5).exp() / (torch.tensor(2.0**0.5).exp() + 1.0)
    found = attention(x, *attention.keys_values(x))
    torch.testing.assert_close(found[0], torch.stack([weight, 1 - weight]) * 2.0**0.5)
    mask = torch.ones(2, 2, dtype=torch.bool).tril()
    found = attention(x, *attention.keys_values(x), mask)
    torch.testing.assert_close(found[0], x[0])


def test_actions_as_rows():
    rows = ActionRows(3)
    alive = torch.tensor([True, False])
    assert rows(torch.tensor([2, 1]), alive).tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    low, high = torch.tensor([[-2.0], [0.0]]), torch.tensor([[2.0], [4.0]])
    bounded = ActionRows(0, low, high)
    assert bounded(torch.tensor([[1.0], [1.0]])).tolist() == [[0.5], [-0.5]]
    assert bounded(torch.tensor([[1.0]]), agent=1).tolist() == [[-0.5]]
    free = ActionRows(0, torch.tensor([[-torch.inf]]), torch.tensor([[torch.inf]]))
    assert free(torch.tensor([[7.0]])).tolist() == [[7.0]]


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="must be a multiple of n_heads; got 6 and 4"):
        Attention(6, 4)
    with pytest.raises(ValueError, match="n_blocks must be at least 1; got 0"):
        Encoder(4, 0)
    with pytest.raises(ValueError, match="d_action must be at least 1; got 0"):
        Decoder(0, 3, 4)
