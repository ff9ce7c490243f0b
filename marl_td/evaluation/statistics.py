"""Means with intervals, and scores on a common scale."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    value: float
    low: float
    high: float


def mean_interval(scores: Tensor, level: float = 0.95) -> Interval:
    """Mean of independent scores with Student's t interval.

        mean +- t(level, n - 1) * s / sqrt(n),   s^2 = sum (x - mean)^2 / (n - 1)

    Args:
        scores: one per episode, ``[n_episodes]``, at least two.
        level: probability that the interval covers the true mean, in (0, 1).

    Raises:
        ValueError: if there are fewer than two scores, or ``level`` is out of range.
    """
    n = scores.numel()
    if n < 2:
        raise ValueError(f"an interval needs at least 2 episodes; got {n}.")
    scores = scores.double()
    return interval_of(scores.mean().item(), scores.std().item(), n, level)


def interval_of(mean: float, std: float, n: int, level: float = 0.95) -> Interval:
    """Student's t interval of a mean from the sample's standard deviation and size."""
    from scipy.stats import t

    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1); got {level}.")
    half = float(t.ppf(0.5 + level / 2.0, n - 1)) * std / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def share_interval(n_successes: int, n: int, level: float = 0.95) -> Interval:
    """Share of successes with the exact interval of Clopper and Pearson (1934), never too short.

    Args:
        n_successes: how many of the independent runs succeeded, in [0, ``n``].
        n: number of runs, at least 1.
        level: probability, at least, that the interval covers the true share, in (0, 1).

    Raises:
        ValueError: if a number is out of its range.
    """
    from scipy.stats import beta

    if not (n >= 1 and 0 <= n_successes <= n):
        raise ValueError(f"a share needs 0 <= successes <= runs; got {n_successes} of {n}.")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1); got {level}.")
    tail = 0.5 * (1.0 - level)
    low = float(beta.ppf(tail, n_successes, n - n_successes + 1)) if n_successes else 0.0
    high = float(beta.ppf(1.0 - tail, n_successes + 1, n - n_successes)) if n_successes < n else 1.0
    return Interval(n_successes / n, low, high)


def normalised_score(score: float, random: float, best: float) -> float | None:
    """``(J - J_random) / (J_best - J_random)``: 0 for the random policy, 1 for the best value known.

    The same for costs and gains. None where random is already best and the scale has no length.
    """
    if best == random:
        return None
    return (score - random) / (best - random)
