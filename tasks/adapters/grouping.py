"""Which agent belongs to which group, for environments that only name their agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from marl_td.tasks.base import require

Grouping = Mapping[str, Sequence[str]] | Literal["name", "spaces", "all", "each"]
"""By name prefix, by equal spaces, one group, a group per agent; or a mapping ``{group: [agents]}``."""

MODES = ("name", "spaces", "all", "each")
RESERVED = {"action", "done", "info", "next", "observation", "reward", "state", "terminated"}
MAX_PREFIXES = 3
"""A group by spaces is named after at most so many kinds of agents."""


def group_agents(
    agents: Sequence[str],
    groups: Grouping = "name",
    spaces: Mapping[str, object] | None = None,
) -> dict[str, list[str]]:
    """Groups and their agents, in the agents' order.

    By name, ``"adversary_0"`` and ``"adversary_1"`` form the group ``"adversary"``, as in TorchRL; a
    name without a number is a group of its own. By spaces, a group is named after the prefixes of its
    agents, such as ``"archer_knight"``.

    Args:
        agents: the agents' names.
        groups: how to group them.
        spaces: per agent what must be equal in a group (by ``==``), for ``groups="spaces"``.

    Raises:
        ValueError: if a mapping does not name every agent exactly once, a group's name is taken by
            another key of the environment's data, or ``groups`` is none of the above.
    """
    if groups == "name":
        found: dict[str, list[str]] = {}
        for agent in agents:
            found.setdefault(_prefix(agent), []).append(agent)
    elif groups == "spaces" and spaces is not None:
        found = _by_spaces(agents, spaces)
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
        known = ", ".join(repr(mode) for mode in MODES if spaces is not None or mode != "spaces")
        raise ValueError(f"groups must be {known} or a mapping; got {groups!r}.")
    taken = sorted(RESERVED & found.keys())
    require(not taken, f"a group must not be named {taken}; pass groups={{'name': [agents]}}.")
    return found


def _prefix(agent: str) -> str:
    prefix, _, number = agent.rpartition("_")
    return prefix if prefix and number.isdigit() else agent


def _by_spaces(agents: Sequence[str], spaces: Mapping[str, object]) -> dict[str, list[str]]:
    """Agents of equal spaces together."""
    kinds: list[list[str]] = []
    for agent in agents:
        alike = (kind for kind in kinds if spaces[kind[0]] == spaces[agent])
        kind = next(alike, None)
        if kind is None:
            kinds.append([agent])
        else:
            kind.append(agent)
    found: dict[str, list[str]] = {}
    for kind in kinds:
        prefixes = list(dict.fromkeys(_prefix(agent) for agent in kind))
        name = "_".join(prefixes) if len(prefixes) <= MAX_PREFIXES else "agents"
        free = name
        number = 2
        while free in found:
            free, number = f"{name}_kind_{number}", number + 1
        found[free] = kind
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
