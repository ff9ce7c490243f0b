"""A random order of agents that is a function of a seed and a round, and of nothing else."""

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2^64 divided by the golden ratio, as a signed number
MIX_1 = -4658895280553007687
MIX_2 = -7723592293110705685


def agent_order(seed: Tensor, round_: Tensor, n_agents: int) -> Tensor:
    """A random permutation of the agents for every round.

    Each agent gets a number by SplitMix64 (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195) from
    the seed, the round and its index; the order is that of the numbers. No random stream is drawn from: the
    same round has the same order in a graph, on another device, and in a run that was resumed.

    Args:
        seed: int64 ``[]``.
        round_: int64 ``[]``, at least 0.
        n_agents: how many agents.

    Returns:
        int64 ``[n_agents]``, each agent once.

    Example:
        >>> import torch
        >>> agent_order(torch.tensor(0), torch.tensor(0), 4).sort().values
        tensor([0, 1, 2, 3])
    """
    index = torch.arange(n_agents, device=round_.device)
    # The seed is mixed by itself first: neighbouring seeds would else be neighbouring rounds.
    return _mixed(_mixed(seed * GOLDEN) + (round_ * n_agents + index + 1) * GOLDEN).argsort()


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's output function."""
    x = (x ^ _shifted(x, 30)) * MIX_1
    x = (x ^ _shifted(x, 27)) * MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
