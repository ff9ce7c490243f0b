"""ROMA's networks: when roles are drawn, what a head makes of them, agents apart, messages."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.models.roles import Dissimilarity, GaussianRole, RoleEncoder, RoleHead, RolePosterior

D_AGENT, D_TRAJECTORY = 4, 5


def seen(*batch: int, n_agents: int = 3) -> TensorDict:
    """What the agents see and know of their histories."""
    agents = {
        "agent_input": torch.randn(*batch, n_agents, D_AGENT),
        "trajectory": torch.randn(*batch, n_agents, D_TRAJECTORY),
    }
    return TensorDict({"agents": TensorDict(agents, (*batch, n_agents))}, batch)


# ------------------------------------------------------------------- encoder
def test_roles_are_drawn_while_exploring_and_are_means_when_evaluated():
    encoder, data = RoleEncoder(D_AGENT), seen(2000)
    data["agents", "agent_input"] = torch.ones(2000, 3, D_AGENT)
    with set_exploration_type(ExplorationType.RANDOM):
        drawn = encoder(data.copy())["agents"]
    noise = (drawn["role"] - drawn["role_mean"]) / drawn["role_std"]
    assert noise.mean((0, 1)).abs().max() < 0.1
    assert (noise.std((0, 1)) - 1.0).abs().max() < 0.1
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        certain = encoder(data.copy())["agents"]
    assert torch.equal(certain["role"], certain["role_mean"])


def test_noise_that_is_given_is_used_whatever_the_exploration():
    encoder, data = RoleEncoder(D_AGENT, d_role=2), seen(7)
    data["agents", "role_noise"] = torch.randn(7, 3, 2)
    for kind in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
        with set_exploration_type(kind):
            found = encoder(data.copy())["agents"]
        expected = found["role_mean"] + found["role_std"] * data["agents", "role_noise"]
        torch.testing.assert_close(found["role"], expected)


@torch.no_grad()
def test_the_variance_has_a_floor_and_no_ceiling():
    net = GaussianRole(1, D_AGENT, 2, 8, 0.25)
    net.out.weight.zero_()
    net.out.bias.copy_(torch.tensor([[0.0, 0.0, -200.0, 12.0]]))
    _, std = net(torch.randn(6, 3, D_AGENT))
    torch.testing.assert_close(std, torch.tensor([0.5, 12.25**0.5]).expand(6, 3, 2))


@pytest.mark.parametrize("n_groups", [1, 3])
def test_an_agents_role_and_value_come_from_its_own_entries(n_groups):
    """In a batch or alone; with parameters of their own, equal agents differ."""
    encoder = RoleEncoder(D_AGENT, n_groups=n_groups)
    head = RoleHead(D_TRAJECTORY, 2, n_groups=n_groups)
    data = seen(4)

    def values(data):
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            return head(encoder(data.copy()))["agents", "action_value"]

    before = values(data)
    torch.testing.assert_close(values(data[1:2]), before[1:2])
    changed = data.clone()
    for key in ("agent_input", "trajectory"):
        changed["agents", key][:, 0] += 1.0
    after = values(changed)
    torch.testing.assert_close(after[:, 1:], before[:, 1:])
    assert not torch.allclose(after[:, 0], before[:, 0])
    for key in ("agent_input", "trajectory"):
        data["agents", key][:] = data["agents", key][:, :1]
    alike = values(data)
    assert torch.allclose(alike[:, 0], alike[:, 1], atol=1e-6) is (n_groups == 1)


# ---------------------------------------------------------------------- head
@torch.no_grad()
@pytest.mark.parametrize("batch", [(), (6,), (2, 3)])
def test_a_heads_output_is_a_layer_of_weights_from_the_role(batch):
    head = RoleHead(D_TRAJECTORY, 2, d_role=3, d_hidden=4)
    trajectory, role = torch.randn(*batch, 3, D_TRAJECTORY), torch.randn(*batch, 3, 3)
    hidden = nn.functional.leaky_relu(role @ head.hidden.weight[0].T + head.hidden.bias[0])
    weight = hidden @ head.weight.weight[0].T + head.weight.bias[0]
    bias = hidden @ head.bias.weight[0].T + head.bias.bias[0]
    expected = bias + torch.stack(
        [
            sum(trajectory[..., f].tanh() * weight[..., 2 * f + a] for f in range(D_TRAJECTORY))
            for a in range(2)
        ],
        -1,
    )
    torch.testing.assert_close(head.value(trajectory, role), expected)


def test_agents_with_one_history_and_two_roles_have_two_values():
    head = RoleHead(D_TRAJECTORY, 2)
    trajectory = torch.randn(D_TRAJECTORY).expand(2, -1)
    value = head.value(trajectory, torch.eye(2, 3))
    assert (value[0] - value[1]).abs().max() > 1e-3


# ------------------------------------------------- posterior and dissimilarity
@torch.no_grad()
def test_a_posterior_reads_history_and_observation():
    posterior, data = RolePosterior(D_TRAJECTORY, D_AGENT), seen(4)
    before = posterior(data.copy())["agents", "posterior_mean"]
    assert before.shape == (4, 3, 3)
    for key in ("agent_input", "trajectory"):
        changed = data.clone()
        changed["agents", key] += 1.0
        assert not torch.allclose(posterior(changed)["agents", "posterior_mean"], before)


@torch.no_grad()
def test_dissimilarity_is_a_network_over_each_pair():
    net, data = Dissimilarity(D_TRAJECTORY, d_hidden=6), seen(4)
    found = net(data.copy())["dissimilarity"]
    assert found.shape == (4, 3, 3) and (found > 0.0).all()
    weight = torch.cat([net.first.weight, net.second.weight], 1)
    known = data["agents", "trajectory"].tanh()
    for i in range(3):
        for j in range(3):
            pair = torch.cat([known[:, i], known[:, j]], -1)
            hidden = nn.functional.leaky_relu(pair @ weight.T + net.first.bias)
            expected = nn.functional.softplus(net.out(hidden)).squeeze(-1)
            torch.testing.assert_close(found[:, i, j], expected)


# ------------------------------------------------------------------- messages
def test_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="d_role must be at least 1; got 0"):
        RoleEncoder(D_AGENT, 0)
    with pytest.raises(ValueError, match="var_floor must be above 0; got 0"):
        RolePosterior(D_TRAJECTORY, D_AGENT, var_floor=0.0)
    with pytest.raises(ValueError, match="d_trajectory must be at least 1; got 0"):
        RoleHead(0, 2)
    with pytest.raises(ValueError, match="d_hidden must be at least 1; got 0"):
        Dissimilarity(D_TRAJECTORY, d_hidden=0)
