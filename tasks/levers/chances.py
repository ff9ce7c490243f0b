"""What can be expected of agents that pull levers without hearing of each other, in closed form."""

from __future__ import annotations

from math import comb


def random_share(n_levers: int, n_agents: int) -> float:
    """Expected share of the levers that are pulled if everybody pulls one at random: ``1 - (1 - 1/m)^n``."""
    return 1.0 - (1.0 - 1.0 / n_levers) ** n_agents


def silent_share(n_levers: int, n_agents: int, pool: int) -> float:
    """The largest expected share of the levers pulled by agents that know nothing but their own number.

        1/m sum_l (1 - C(N - N_l, n) / C(N, n)),      N_l = N/m, rounded up or down so that they add up to N

    Whatever the agents do by chance, the expectation is linear in what each of the N does, so that some
    fixed assignment of numbers to levers is as good. If N_l of them are assigned to lever l, it stays
    unpulled if all n drawn are among the other N - N_l. That is convex in N_l: equal numbers are best.

    This holds for agents that all follow one rule. Agents who know their place among those drawn (a
    network for each place) simply pull the lever of their place.

    Args:
        n_levers: m.
        n_agents: drawn agents that pull, n.
        pool: agents to draw from, N.
    """
    sizes = [pool // n_levers + (lever < pool % n_levers) for lever in range(n_levers)]
    missed = sum(comb(pool - size, n_agents) for size in sizes)
    return 1.0 - missed / (n_levers * comb(pool, n_agents))
