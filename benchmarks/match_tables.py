"""Tables of cross-play: how strong the teams of an algorithm are, and who does what against whom.

Learned players are called by algorithm and seed, as ``mappo 0``.
"""

from __future__ import annotations

import statistics
from typing import Any

from registry_runs import over_seeds

from marl_td.evaluation.baselines import RANDOM
from marl_td.evaluation.cross_play import Match, strength
from marl_td.evaluation.statistics import Interval

RULE = "by rule"


def matches_of(rows: list[dict[str, Any]], groups: list[str]) -> list[Match]:
    """Matches again, from their rows."""
    found = []
    for row in rows:
        means = {}
        for group, place in zip(groups, ("first", "second"), strict=True):
            value, half = float(row[f"{place} return"]), float(row[f"{place} +-"])
            means[group] = Interval(value, value - half, value + half)
        found.append(Match(row["first"], row["second"], means))
    return found


def algorithm_of(player: str) -> str:
    """``mappo`` of ``mappo 0``; random and the rule have no seed."""
    name, _, seed = player.rpartition(" ")
    return name if seed.isdigit() else player


def by_algorithm(strengths: dict[str, float]) -> dict[str, list[float]]:
    """The values of all seeds, the best mean first."""
    found: dict[str, list[float]] = {}
    for player, value in strengths.items():
        found.setdefault(algorithm_of(player), []).append(value)
    return dict(sorted(found.items(), key=lambda item: -statistics.mean(item[1])))


def strength_table(matches: list[Match], group: str) -> list[dict[str, Any]]:
    """Return of each algorithm's teams as ``group``: over all other runs' opponents, and over two more."""

    def learned(own: str, other: str) -> bool:
        return own != other and algorithm_of(other) != other

    found = by_algorithm(strength(matches, group, learned))
    beside = {
        f"against {opponent}": by_algorithm(
            strength(matches, group, lambda _, o, k=opponent: o == k)
        )
        for opponent in (RANDOM, RULE)
    }
    return [
        {"team of": name, f"return of {group}": over_seeds(values)}
        | {column: over_seeds(kind.get(name, [])) for column, kind in beside.items()}
        for name, values in found.items()
    ]


def matrix(matches: list[Match], group: str) -> list[dict[str, Any]]:
    """Mean return of ``group``: its algorithm by row, the opponents' by column, not against its own run."""
    cells: dict[tuple[str, str], list[float]] = {}
    first = next(iter(matches[0].group_return)) == group
    for match in matches:
        pair = (match.first, match.second) if first else (match.second, match.first)
        if pair[0] != pair[1] or algorithm_of(pair[0]) == pair[0]:
            own, other = map(algorithm_of, pair)
            cells.setdefault((own, other), []).append(match.group_return[group].value)
    names = list(dict.fromkeys(own for own, _ in cells))
    return [
        {f"{group} of": own}
        | {
            other: f"{statistics.mean(cells[own, other]):.1f}" if (own, other) in cells else "-"
            for other in names
        }
        for own in names
    ]
