"""Updates of one agent at a time: the factor, the turns, and parameters that wait for theirs."""

import copy
import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from marl_td.losses.functional.sequential import sequential_factor, turn_position
from marl_td.losses.turns import AgentRows, AgentTurns, stacked_parameters


# ----------------------------------------------------------------- factor
def test_the_factor_by_hand():
    """Of the agents before: twice as likely times half as likely, times 3 where agent 1 counts too."""
    new = torch.tensor([[0.5, 0.9, 0.3], [0.25, 0.6, 0.3]]).log().requires_grad_()
    old = torch.tensor([[0.25, 0.3, 0.6], [0.25, 0.2, 0.6]]).log()
    found = sequential_factor(new, old, torch.tensor([True, False, True]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5]))
    found = sequential_factor(new, old, torch.tensor([True, True, True]))
    torch.testing.assert_close(found, torch.tensor([3.0, 1.5]))
    assert not found.requires_grad


def test_the_factor_of_plays_that_became_likely_beyond_float_is_finite():
    new, old = torch.tensor([[60.0, 60.0, 0.0]]), torch.zeros(1, 3)
    found = sequential_factor(new, old, torch.tensor([True, True, False]))
    torch.testing.assert_close(found, torch.tensor([math.exp(20.0)]))


def test_before_the_first_agent_and_without_a_change_it_is_1():
    new, old = torch.randn(5, 3), torch.randn(5, 3)
    assert (sequential_factor(new, old, torch.zeros(3, dtype=torch.bool)) == 1.0).all()
    assert (sequential_factor(new, new, torch.ones(3, dtype=torch.bool)) == 1.0).all()


def test_the_dead_do_not_count():
    new = torch.tensor([[0.0, float("-inf")]])
    alive = torch.tensor([[True, False]])
    both = torch.ones(2, dtype=torch.bool)
    assert sequential_factor(new, torch.tensor([[-1.0, float("-inf")]]), both, alive) == torch.e


def test_an_unclipped_factor_corrects_a_mean_exactly():
    """Under the old policies the mean of M f(u) is the mean of f under the new ones."""
    old, new = torch.rand(2, 2, 4).log_softmax(-1), (3 * torch.rand(2, 2, 4)).log_softmax(-1)
    joint = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    f = torch.randn(16)
    chosen = [x[0].gather(-1, joint.T).T for x in (new, old)]
    m = sequential_factor(*chosen, torch.tensor([True, True]))
    torch.testing.assert_close(
        (chosen[1].sum(-1).exp() * m * f).sum(), (chosen[0].sum(-1).exp() * f).sum()
    )


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"`old_log_prob` must have the shape of `log_prob`"):
        sequential_factor(torch.zeros(3, 2), torch.zeros(3, 2, 1), torch.zeros(2).bool())
    with pytest.raises(ValueError, match=r"`mask` must have the shape of `log_prob`"):
        sequential_factor(
            torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2).bool(), torch.ones(2)
        )


# ------------------------------------------------------------------ turns
@given(n_agents=st.integers(1, 9), n_updates=st.integers(1, 40))
def test_updates_are_divided_in_order_and_fairly(n_agents, n_updates):
    positions = turn_position(torch.arange(n_updates + 3), n_updates, n_agents).tolist()
    assert positions[n_updates:] == [n_agents - 1] * 3
    positions = positions[:n_updates]
    assert positions == sorted(positions)
    counts = Counter(positions)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == min(n_agents, n_updates)


def walk(turns: AgentTurns) -> list[tuple[int, list[bool], int]]:
    """The turns of one batch."""
    turns.begin()
    found = [turns.next() for _ in range(turns.n_updates)]
    return [(int(turn.agent), turn.earlier.tolist(), int(turn.n_before)) for turn in found]


@pytest.mark.parametrize(("n_agents", "n_updates"), [(3, 6), (3, 7), (4, 2), (1, 3)])
def test_each_agent_comes_after_those_before_it(n_agents, n_updates):
    turns = AgentTurns(n_agents, n_updates, seed=3)
    for _ in range(5):
        seen: list[int] = []
        for agent, earlier, n_before in walk(turns):
            assert n_before == seen.count(agent)
            if agent not in seen:
                assert all(earlier[other] for other in seen)
                assert not earlier[agent]
            seen.append(agent)
        assert int(turns.agent) == seen[-1]


def test_orders_are_random_seeded_and_all_as_frequent():
    turns, same, other = (AgentTurns(3, 3, seed=seed) for seed in (0, 0, 1))
    orders = [tuple(turns.order_of(torch.tensor(k)).tolist()) for k in range(3000)]
    assert orders == [tuple(same.order_of(torch.tensor(k)).tolist()) for k in range(3000)]
    assert orders != [tuple(other.order_of(torch.tensor(k)).tolist()) for k in range(3000)]
    counts = Counter(orders)
    assert len(counts) == 6
    assert all(abs(count - 500) < 4 * (3000 * 5 / 36) ** 0.5 for count in counts.values())
    repeated = sum(a == b for a, b in itertools.pairwise(orders)) / 2999
    assert abs(repeated - 1 / 6) < 4 * (5 / 36 / 2999) ** 0.5


def test_a_fixed_order_is_the_agents_own():
    turns = AgentTurns(3, 3, fixed_order=True)
    for _ in range(4):
        assert [agent for agent, _, _ in walk(turns)] == [0, 1, 2]


def test_a_saved_state_goes_on_with_the_same_orders():
    turns, resumed = AgentTurns(4, 8, seed=5), AgentTurns(4, 8, seed=5)
    walk(turns)
    turns.begin()
    turns.next()
    resumed.load_state_dict(copy.deepcopy(turns.state_dict()))
    assert resumed.order.tolist() == turns.order.tolist()
    assert [int(resumed.next().agent) for _ in range(7)] == [
        int(turns.next().agent) for _ in range(7)
    ]
    assert walk(resumed) == walk(turns)


def test_turns_rest_in_evaluation_mode():
    turns = AgentTurns(2, 2)
    turns.begin()
    turns.eval()
    assert [int(turns.next().agent) for _ in range(3)] == [int(turns.order[0])] * 3


def test_there_must_be_an_update():
    with pytest.raises(ValueError, match="`n_updates` must be at least 1; got 0"):
        AgentTurns(2, 0)


# ------------------------------------------------------------------- rows
class Scale(nn.Module):
    """A network of one stack."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))

    def forward(self, x):
        return (x * self.weight).sum(-1)


def rows_of(net: nn.Module) -> AgentRows:
    return AgentRows(stacked_parameters(net, 3), AgentTurns(3, 3))


def test_who_has_no_turn_does_not_move_and_keeps_its_momentum():
    """Each agent as its own Adam would move it, whatever happens between its turns."""
    net = Scale()
    rows = rows_of(net)
    adam = torch.optim.Adam(rows.parameters(), lr=0.1)
    alone = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    adams = [torch.optim.Adam([p], lr=0.1) for p in alone]
    for agent in (0, 0, 2, 0, 1, 2, 2):
        rows.agent = agent
        x = torch.randn(4, 3, 2)
        before = net.weight.detach().clone()
        net(x).mean(0).sum().backward()
        adam.step()
        adam.zero_grad()
        alone[agent].grad = x[:, agent].mean(0)
        adams[agent].step()
        others = [other for other in range(3) if other != agent]
        assert torch.equal(net.weight[others], before[others])
        torch.testing.assert_close(net.weight.detach(), torch.stack(alone).detach())


def test_two_backward_passes_add_up_and_the_stack_keeps_no_gradient():
    net = Scale()
    rows = rows_of(net)
    rows.agent = 1
    for _ in range(2):
        net(torch.full((1, 3, 2), 3.0)).sum().backward()
    assert rows.rows[1][0].grad.tolist() == [6.0, 6.0]
    assert rows.rows[0][0].grad is None
    assert net.weight.grad is None


def test_a_copy_has_rows_of_its_own():
    net = Scale()
    pair = nn.Module()
    pair.net, pair.__dict__["rows"] = net, rows_of(net)
    other = copy.deepcopy(pair)
    with torch.no_grad():
        other.rows.rows[2][0].fill_(7.0)
    assert other.net.weight[2].tolist() == [7.0, 7.0]
    assert (net.weight == 1.0).all()
    other.rows.agent = 2
    other.net(torch.ones(1, 3, 2)).sum().backward()
    assert other.rows.rows[2][0].grad is not None


def test_what_is_no_stack_is_named():
    with pytest.raises(ValueError, match=r"\[4, \.\.\.\]; the actor's 'weight' has shape \[3, 2\]"):
        stacked_parameters(Scale(), 4)
