"""Gaussian roles of agents: how identifiable and how specialised they are (ROMA)."""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_exact_shape, check_same_shape, check_shape
from marl_td.losses.functional.distributions import gaussian_log_prob

SMALLEST_RANGE = 1e-2
"""Ranges below this are not stretched to [0, 1]: what is nearly equal stays nearly equal."""


def mean_over_alive(value: Tensor, alive: Tensor | None = None) -> Tensor:
    """Mean ``[*B]`` of ``value`` ``[*B, n_agents]`` over the agents that live; 0 where none does.

    Args:
        value: ``[*B, n_agents]``.
        alive: ``[*B, n_agents]`` bool; None if all are alive.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes differ.
    """
    if alive is None:
        return value.mean(-1)
    check_exact_shape("alive", alive, value.shape, "[*B, n_agents]")
    total = torch.where(alive, value, torch.zeros_like(value)).sum(-1)
    return total / alive.sum(-1).clamp(min=1)


def pairwise_log_likelihood(role: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """How likely each agent's role is given each agent's trajectory, in nats.

        l_ij = log q(rho_i | tau_j, o_j)

    Args:
        role: ``[*B, n_agents, d_role]``, rho.
        mean: ``[*B, n_agents, d_role]``, of q given the trajectory of each agent.
        std: ``[*B, n_agents, d_role]``, likewise, > 0.

    Returns:
        ``[*B, n_agents, n_agents]``: role's agent i, then trajectory's agent j.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(role=role, mean=mean, std=std)
    return gaussian_log_prob(role.unsqueeze(-2), mean.unsqueeze(-3), std.unsqueeze(-3))


def scale_pairs(value: Tensor, alive: Tensor | None = None) -> Tensor:
    """Numbers of pairs moved to [0, 1] by the smallest and the largest of each batch element.

        (x_ij - min x) / max(max x - min x, 0.01)

    Every agent's pair with itself counts for both. The gradient goes through smallest and largest too.

    Args:
        value: ``[*B, n_agents, n_agents]``, any unit.
        alive: ``[*B, n_agents]`` bool; pairs with a dead agent are left out and become 0. None if all
            are alive.

    Returns:
        ``[*B, n_agents, n_agents]``.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> scale_pairs(torch.tensor([[4.0, 1.0], [2.0, 5.0]]))
        tensor([[0.7500, 0.0000],
                [0.2500, 1.0000]])
    """
    pair = _pairs(value, alive)
    zero = torch.zeros_like(value)
    low = torch.where(pair, value, float("inf")).amin((-2, -1), keepdim=True)
    high = torch.where(pair, value, float("-inf")).amax((-2, -1), keepdim=True)
    some = pair.any(-1, keepdim=True).any(-2, keepdim=True)
    low, high = torch.where(some, low, 0.0), torch.where(some, high, 0.0)
    scaled = (torch.where(pair, value, low) - low) / (high - low).clamp(min=SMALLEST_RANGE)
    return torch.where(pair, scaled, zero)


def specialisation_error(
    log_likelihood: Tensor,
    dissimilarity: Tensor,
    bound: float,
    alive: Tensor | None = None,
) -> Tensor:
    """What is missing for every pair of agents to have either like roles or unlike trajectories.

        L_D = (||D||_F - sum over i != j of min(l_ij + d_ij, U)) / number of pairs i != j

    (Wang et al. 2020, https://arxiv.org/abs/2003.08039, the loss of specialised roles, divided by the
    number of ordered pairs so that its size does not depend on the team's.) l_ij is the log-likelihood of
    agent i's role given agent j's trajectory, d_ij the dissimilarity of their trajectories, and D the
    matrix of the d_ij with zeros on its diagonal: few pairs shall be dissimilar, all others alike.

    Args:
        log_likelihood: ``[*B, n_agents, n_agents]``, l, in nats, or scaled by :func:`scale_pairs`.
        dissimilarity: ``[*B, n_agents, n_agents]``, d >= 0, in the same unit; the diagonal is not read.
        bound: U, in the same unit: a pair that reaches it wants no more.
        alive: ``[*B, n_agents]`` bool; pairs with a dead agent are left out. None if all are alive.

    Returns:
        ``[*B]``, at least -U; 0 where there is no pair (a single agent).

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> likely = torch.tensor([[9.0, -2.0], [0.5, 9.0]])
        >>> unlike = torch.tensor([[9.0, 3.0], [0.0, 9.0]])
        >>> specialisation_error(likely, unlike, 1.0)  # (3 - min(1, 1) - 0.5) / 2
        tensor(0.7500)
    """
    check_same_shape(log_likelihood=log_likelihood, dissimilarity=dissimilarity)
    n_agents = log_likelihood.shape[-1]
    pair = _pairs(log_likelihood, alive)
    pair = pair & ~torch.eye(n_agents, dtype=torch.bool, device=pair.device)
    zero = torch.zeros_like(dissimilarity)
    # The gradient of this norm is 0, not 0 / 0, where all of it is 0.
    norm: Tensor = torch.linalg.vector_norm(torch.where(pair, dissimilarity, zero), dim=(-2, -1))
    reached = torch.where(pair, (log_likelihood + dissimilarity).clamp(max=bound), zero)
    return (norm - reached.sum((-2, -1))) / pair.sum((-2, -1)).clamp(min=1)


def _pairs(value: Tensor, alive: Tensor | None) -> Tensor:
    """Which entries of ``[*B, n_agents, n_agents]`` are pairs of living agents, bool of that shape."""
    n_agents = value.shape[-1]
    check_shape("value", value, (n_agents, n_agents), "[*B, n_agents, n_agents]")
    if alive is None:
        return torch.ones_like(value, dtype=torch.bool)
    check_exact_shape("alive", alive, value.shape[:-1], "[*B, n_agents]")
    return alive.unsqueeze(-1) & alive.unsqueeze(-2)
