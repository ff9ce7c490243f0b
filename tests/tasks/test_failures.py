"""Dead agents and lost messages, as every task draws them."""

import pytest
import torch

from marl_td.tasks.failures import DeadAgentsParams, FailureParams, alive_agents, dead_count


@pytest.mark.parametrize(
    ("share", "n_agents", "expected"), [(0.0, 5, 0), (0.1, 10, 1), (0.1, 3, 0), (0.99, 4, 3)]
)
def test_the_share_is_rounded_and_one_agent_always_lives(share, n_agents, expected):
    assert dead_count(share, n_agents) == expected


def test_so_many_die_as_asked_and_everybody_equally_often():
    alive = alive_agents(torch.rand(20_000, 5, generator=torch.Generator().manual_seed(0)), 2)
    assert ((~alive).sum(-1) == 2).all()
    torch.testing.assert_close(alive.float().mean(0), torch.full((5,), 0.6), atol=0.015, rtol=0)


def test_equal_draws_still_kill_the_number_asked_for():
    assert alive_agents(torch.zeros(1, 4), 1).tolist() == [[False, True, True, True]]


def test_shares_and_probabilities_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"dead_agents is a share .* in \[0, 1\); got 1"):
        DeadAgentsParams(dead_agents=1.0)
    with pytest.raises(ValueError, match=r"message_dropout is a probability .*; got -0.5"):
        FailureParams(message_dropout=-0.5)
