"""The actors of all agents of a policy, with their signatures; agents with the same network share one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from marl_td.deploy.actor import JOINT_HISTORY, Actor, entry_name, same_network
from marl_td.deploy.samples import MASK, EntrySpec
from marl_td.deploy.signature import (
    CONTINUOUS,
    DETERMINISTIC,
    DISCRETE,
    SAMPLED,
    AgentSignature,
    Array,
    Entry,
)
from marl_td.deploy.source import PolicySource
from marl_td.deploy.steps import OwnPolicy, own_policy
from marl_td.deploy.task_text import table_rows

REMEMBERED: dict[str, dict[str, Any]] = {
    "last_action": {
        "init": -1,
        "next": "action",
        "note": "the agent's own last action; -1 before the first",
    },
    "sub_policy": {
        "init": 0,
        "next": "next_sub_policy",
        "note": "which member of its ensemble the agent plays; in evaluation each episode draws one",
    },
}
"""Entries that are an agent's memory, though no network keeps them."""
NO_NORMALISATION = "none: the actor takes observations as the task gives them"


@dataclass(frozen=True)
class AgentExport:
    """One agent and its actor.

    Args:
        name: of the agent.
        actor: its actor; the same object for agents with the same network.
        signature: what it reads and writes.
    """

    name: str
    actor: Actor
    signature: AgentSignature


def agent_exports(source: PolicySource, mode: str = DETERMINISTIC) -> list[AgentExport]:
    """Every agent with its actor, in the order of groups.

    Raises:
        NotExportable: if a group's policy cannot act decentralised.
    """
    out: list[AgentExport] = []
    taken: set[str] = set()
    for group, agents in source.group_map.items():
        policy = source.policies[group]
        own = [own_policy(policy, group, index) for index in range(len(agents))]
        actors = [Actor(steps, group, mode) for steps in own]
        shared = same_network(actors)
        files = [_file_name(name, taken) for name in ([group] if shared else agents)]
        for index, name in enumerate(agents):
            which = 0 if shared else index
            actor, file = actors[which], files[which]
            signature = _signature(source, group, index, own[index], actor, file, mode)
            out.append(AgentExport(name, actor, signature))
    return out


def _file_name(name: str, taken: set[str]) -> str:
    """``name`` in letters that every file system takes, not ``taken`` yet."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:100] or "actor"
    file, number = plain, 2
    while file in taken:
        file, number = f"{plain}_{number}", number + 1
    taken.add(file)
    return file


def _signature(
    source: PolicySource,
    group: str,
    index: int,
    policy: OwnPolicy,
    actor: Actor,
    file: str,
    mode: str,
) -> AgentSignature:
    observation: list[Entry] = []
    state: list[Entry] = []
    mask = None
    for name, key in actor.inputs.items():
        if key in policy.states:
            shape = policy.states[key]
            state.append(Entry(name, "float32", shape, init=0.0, next=f"next_{name}"))
            continue
        entry = _entry(name, source.specs[key], index if key[0] == group else None)
        if key == (group, MASK):
            mask = entry
        elif key[-1] in REMEMBERED:
            state.append(replace(entry, low=None, high=None, **REMEMBERED[key[-1]]))
        elif key == (group, "observation"):
            rows = table_rows(source.texts["observation"])
            observation.append(replace(entry, components=rows))
        else:
            observation.append(entry)
    spec = source.specs[group, "action"]
    return AgentSignature(
        group=group,
        index=index,
        actor=file,
        observation=tuple(observation),
        mask=mask,
        state=tuple(state),
        action=replace(_entry("action", spec, index), components=source.actions.get(group, ())),
        kind=DISCRETE if spec.n else CONTINUOUS,
        n_actions=spec.n,
        mode=mode,
        distribution=policy.distribution if mode == SAMPLED else "",
        normalisation=NO_NORMALISATION,
        communication=_communication(source.group_map, actor),
        outputs=tuple(actor.outputs),
    )


def _entry(name: str, spec: EntrySpec, agent: int | None) -> Entry:
    """An entry of one agent; of everybody if ``agent`` is None."""
    shape, bounds = spec.shape, [spec.low, spec.high]
    if agent is not None:
        shape = shape[1:]
        bounds = [None if bound is None else bound[agent] for bound in bounds]
    low, high = (None if bound is None else _finite(bound) for bound in bounds)
    return Entry(name, str(spec.dtype).removeprefix("torch."), shape, low, high)


def _finite(bound: Tensor) -> Array | None:
    """Bounds of which those beyond 1e15 (such as the largest floats) count as none; None if none is left."""
    out = bound.double().numpy()
    out = np.where(np.abs(out) < 1e15, out, np.copysign(np.inf, out))
    return out if np.isfinite(out).any() else None


def _communication(group_map: dict[str, list[str]], actor: Actor) -> str:
    """What must be brought from other agents before a step."""
    if JOINT_HISTORY not in actor.inputs.values():
        return ""
    name = entry_name(JOINT_HISTORY)
    everybody = ", ".join(agent for agents in group_map.values() for agent in agents)
    return (
        f"Before each step the agent must know what the others did lately, as far as it saw it: '{name}' "
        f"holds the actions of all agents in the last steps, the latest last, in the order {everybody}; "
        "'past_seen' says which of them this agent saw (never its own, nothing before the episode's start: "
        "such entries are zero and false); 'past_observation' holds its own observations in these steps."
    )
