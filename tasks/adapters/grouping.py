"""Which agent belongs to which group, for environments that only name their agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from marl_td.tasks.base import require

Grouping = Mapping[str, Sequence[str]] | Literal["all", "each"] | None
"""``None``: by name prefix; ``"all"``: one group; ``"each"``: a group per agent; or a mapping."""

RESERVED = {"action", "done", "info", "next", "observation", "reward", "state", "terminated"}


def group_agents(agents: Sequence[str], groups: Grouping = None) -> dict[str, list[str]]:
    """Groups and their agents, in the agents' order.

    By default ``"adversary_0"`` and ``"adversary_1"`` form the group ``"adversary"``, as in TorchRL;
    a name without a number is a group of its own.

    Raises:
        ValueError: if a mapping does not name every agent exactly once, or a group's name is taken by
            another key of the environment's data.
    """
    if groups is None:
        found: dict[str, list[str]] = {}
        for agent in agents:
            prefix, _, number = agent.rpartition("_")
            found.setdefault(prefix if prefix and number.isdigit() else agent, []).append(agent)
    elif groups == "all":
        found = {"agents": list(agents)}
    elif groups == "each":
        found = {agent: [agent] for agent in agents}
    elif isinstance(groups, Mapping):
        found = {group: list(members) for group, members in groups.items()}
        named = [agent for members in found.values() for agent in members]
        require(
            sorted(named) == sorted(agents) and all(found.values()),
            f"groups must name every agent exactly once; the environment has {sorted(agents)}, "
            f"groups name {sorted(named)}.",
        )
    else:
        raise ValueError(f"groups must be None, 'all', 'each' or a mapping; got {groups!r}.")
    taken = sorted(RESERVED & found.keys())
    require(not taken, f"a group must not be named {taken}; pass groups={{'name': [agents]}}.")
    return found


def require_same(what: str, group: str, agents: Sequence[str], spaces: Sequence[object]) -> None:
    """Check that the agents of a group have the same space, which one network must fit.

    Raises:
        ValueError: if they differ; the message names agents, spaces and remedy.
    """
    different = [i for i, space in enumerate(spaces) if space != spaces[0]]
    if different:
        i = different[0]
        raise ValueError(
            f"agents '{agents[0]}' and '{agents[i]}' are both in group '{group}' but their {what} "
            f"spaces differ: {spaces[0]} and {spaces[i]}. Put them in separate groups "
            f'(groups="each" or a mapping), or pad their spaces to the same shape.'
        )
