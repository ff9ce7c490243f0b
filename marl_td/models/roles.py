"""ROMA's networks: each agent's role from its observation, and the last layer of its network from its role.

Entries of a group that they read and write, beside the action values:

* ``agent_input`` ``[*B, n_agents, d_agent]``: what the agent sees now;
* ``trajectory`` ``[*B, n_agents, d_trajectory]``: what its network knows of its history;
* ``role_mean``, ``role_std``, ``role_noise``, ``role`` ``[*B, n_agents, d_role]``.

There is no batch normalisation, which the authors' code has: a policy also runs on a batch of one, and what
an agent does must not depend on what else is in the batch.
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, exploration_type

from marl_td.models.grouped import GroupedLinear
from marl_td.models.mixers.base import check_sizes


class GaussianRole(nn.Module):
    """A hidden layer, then mean and standard deviation of independent normal distributions.

        var = var_floor + softplus(x)

    Args:
        n_groups: 1 for one network for all agents, or the number of agents for one each.
        d_in: width of the input, at least 1.
        d_role: width of a role, at least 1.
        d_hidden: width of the hidden layer, at least 1.
        var_floor: smallest variance, > 0.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self, n_groups: int, d_in: int, d_role: int, d_hidden: int, var_floor: float
    ) -> None:
        super().__init__()
        check_sizes(n_groups=n_groups, d_in=d_in, d_role=d_role, d_hidden=d_hidden)
        if not var_floor > 0.0:
            raise ValueError(f"var_floor must be above 0; got {var_floor:g}.")
        self.var_floor = var_floor
        self.hidden = GroupedLinear(n_groups, d_in, d_hidden)
        self.out = GroupedLinear(n_groups, d_hidden, 2 * d_role)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[*B, n_agents, d_role]`` from ``[*B, n_agents, d_in]``."""
        mean, raw = self.out(nn.functional.leaky_relu(self.hidden(x))).chunk(2, dim=-1)
        return mean, (self.var_floor + nn.functional.softplus(raw)).sqrt()


class RoleEncoder(TensorDictModuleBase):
    """Draws each agent's role from a distribution that depends on what it sees now.

        rho_i ~ N(mean(o_i), std(o_i))        rho_i = mean + std * noise

    (The role encoder of Wang et al. 2020, https://arxiv.org/abs/2003.08039.) The noise is read if it is
    there; if not, it is drawn where the policy explores, and 0 under a deterministic exploration type
    (evaluation).

    Args:
        d_agent: width of what an agent sees, at least 1.
        d_role: width of a role, at least 1.
        n_groups: as in :class:`GaussianRole`; so are the next two.
        d_hidden: width of the hidden layer, at least 1.
        var_floor: smallest variance, > 0.
        group: name of the agents' group.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        d_agent: int,
        d_role: int = 3,
        *,
        n_groups: int = 1,
        d_hidden: int = 16,
        var_floor: float = 2e-3,
        group: str = "agents",
    ) -> None:
        super().__init__()
        self.distribution = GaussianRole(n_groups, d_agent, d_role, d_hidden, var_floor)
        self.in_keys = [(group, "agent_input"), (group, "role_noise")]
        self.out_keys = [(group, name) for name in ("role_mean", "role_std", "role")]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write mean, standard deviation and role into ``tensordict``."""
        mean, std = self.distribution(tensordict.get(self.in_keys[0]))
        noise = tensordict.get(self.in_keys[1], None)
        if noise is None and exploration_type() in (ExplorationType.RANDOM, None):
            noise = torch.randn_like(mean, memory_format=torch.contiguous_format)
        role = mean if noise is None else mean + std * noise
        for key, value in zip(self.out_keys, (mean, std, role), strict=True):
            tensordict.set(key, value)
        return tensordict


class RoleHead(TensorDictModuleBase):
    """The last layer of each agent's network, with weights that a hypernetwork makes from its role.

        out_i = W(rho_i) tanh(h_i) + b(rho_i)

    W and b are linear in a hidden layer of the role. The features h are bounded as those of the authors' code
    are, which are the state of a gated recurrent unit.

    Args:
        d_trajectory: width of the features, at least 1.
        d_out: width of the output, at least 1.
        d_role: width of a role, at least 1.
        n_groups: 1 for one hypernetwork for all agents, or the number of agents for one each.
        d_hidden: width of the hypernetwork's hidden layer, at least 1.
        group: name of the agents' group.
        out_key: where the output goes, ``[*B, n_agents, d_out]``.

    Raises:
        ValueError: if a size is below its minimum.
    """

    def __init__(
        self,
        d_trajectory: int,
        d_out: int,
        d_role: int = 3,
        *,
        n_groups: int = 1,
        d_hidden: int = 16,
        group: str = "agents",
        out_key: NestedKey = ("agents", "action_value"),
    ) -> None:
        super().__init__()
        check_sizes(d_trajectory=d_trajectory, d_out=d_out, d_role=d_role, d_hidden=d_hidden)
        self.in_keys = [(group, "trajectory"), (group, "role")]
        self.out_keys = [out_key]
        self.sizes = (d_trajectory, d_out)
        self.hidden = GroupedLinear(n_groups, d_role, d_hidden)
        self.weight = GroupedLinear(n_groups, d_hidden, d_trajectory * d_out)
        self.bias = GroupedLinear(n_groups, d_hidden, d_out)
        with torch.no_grad():  # the size that a linear layer of this width would start with
            for parameter in self.weight.parameters():
                parameter.mul_(d_trajectory**-0.5)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the output into ``tensordict``."""
        trajectory, role = (tensordict.get(key) for key in self.in_keys)
        return tensordict.set(self.out_keys[0], self.value(trajectory, role))

    def value(self, trajectory: Tensor, role: Tensor) -> Tensor:
        """Output ``[*B, n_agents, d_out]`` of features and roles ``[*B, n_agents, d]``."""
        hidden = nn.functional.leaky_relu(self.hidden(role))
        weight = self.weight(hidden).unflatten(-1, self.sizes)
        product = (trajectory.tanh().unsqueeze(-2) @ weight).squeeze(-2)
        return product + self.bias(hidden)


class RolePosterior(TensorDictModuleBase):
    """What an agent's history says about its role: q(rho_i | tau_i, o_i), independent normal distributions.

    Args:
        d_trajectory: width of what is known of the history, at least 1.
        d_agent: width of what an agent sees, at least 1.
        d_role: width of a role, at least 1.
        n_groups: as in :class:`GaussianRole`; so are the next two.
        d_hidden: width of the hidden layer, at least 1.
        var_floor: smallest variance, > 0.
        group: name of the agents' group.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        d_trajectory: int,
        d_agent: int,
        d_role: int = 3,
        *,
        n_groups: int = 1,
        d_hidden: int = 16,
        var_floor: float = 2e-3,
        group: str = "agents",
    ) -> None:
        super().__init__()
        width = d_trajectory + d_agent
        self.distribution = GaussianRole(n_groups, width, d_role, d_hidden, var_floor)
        self.in_keys = [(group, "trajectory"), (group, "agent_input")]
        self.out_keys = [(group, "posterior_mean"), (group, "posterior_std")]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write mean and standard deviation into ``tensordict``."""
        trajectory, seen = (tensordict.get(key) for key in self.in_keys)
        found = self.distribution(torch.cat([trajectory.tanh(), seen], dim=-1))
        for key, value in zip(self.out_keys, found, strict=True):
            tensordict.set(key, value)
        return tensordict


class Dissimilarity(TensorDictModuleBase):
    """How unlike the trajectories of two agents are: d(tau_i, tau_j) > 0 for all ordered pairs.

    Args:
        d_trajectory: width of what is known of a history, at least 1.
        d_hidden: width of the hidden layer, at least 1.
        group: name of the agents' group.

    Raises:
        ValueError: if a size is below its minimum.
    """

    def __init__(self, d_trajectory: int, *, d_hidden: int = 16, group: str = "agents") -> None:
        super().__init__()
        check_sizes(d_trajectory=d_trajectory, d_hidden=d_hidden)
        self.in_keys = [(group, "trajectory")]
        self.out_keys = ["dissimilarity"]
        # The layer over a pair is a sum of what it makes of either agent.
        self.first = nn.Linear(d_trajectory, d_hidden)
        self.second = nn.Linear(d_trajectory, d_hidden, bias=False)
        self.out = nn.Linear(d_hidden, 1)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the dissimilarities ``[*B, n_agents, n_agents]`` into ``tensordict``."""
        value = self.value(tensordict.get(self.in_keys[0]))
        return tensordict.set(self.out_keys[0], value)

    def value(self, trajectory: Tensor) -> Tensor:
        """Dissimilarities ``[*B, n_agents, n_agents]`` from ``[*B, n_agents, d_trajectory]``."""
        bounded = trajectory.tanh()
        pair = self.first(bounded).unsqueeze(-2) + self.second(bounded).unsqueeze(-3)
        raw = self.out(nn.functional.leaky_relu(pair)).squeeze(-1)
        return nn.functional.softplus(raw)
