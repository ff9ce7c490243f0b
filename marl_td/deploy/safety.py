"""The shield of a bundle: what ``signature.json`` says under ``safety``, kept without torch.

::

    {"linear": [{"scope": "own", "weights": {"agents": [[1.0, 0.0], ...]}, "limit": 0.6}, ...],
     "centre": {"agents": [[0.1, 0.0], ...]},          a joint action inside all linear constraints
     "forbidden": {"agents": [3]}, "fallback": {"agents": 0}}

An agent keeps by itself what concerns its own action. A constraint on the joint action needs all actions at
once (:meth:`marl_td.deploy.Bundle.act`, the server's joint request).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marl_td.deploy.format import BundleError
from marl_td.deploy.projection import HalfSpaces, SafeSet
from marl_td.deploy.signature import CONTINUOUS, DISCRETE, AgentSignature, Array

OWN, JOINT = "own", "joint"


@dataclass(frozen=True)
class AgentSafety:
    """What one agent keeps by itself.

    Args:
        safe_set: of its continuous action, or None.
        allowed: bool ``[n]``, its discrete actions that are never forbidden, or None.
        fallback: the discrete action taken instead of one that is not allowed.
    """

    safe_set: SafeSet | None = None
    allowed: Array | None = None
    fallback: int = 0

    def mask(self, mask: Array) -> Array:
        """Available actions ``[B, n]`` less the forbidden ones; the fallback where nothing is left."""
        if self.allowed is None:
            return mask
        left = mask & self.allowed
        safe = np.arange(len(self.allowed)) == self.fallback
        return np.where(left.any(-1, keepdims=True), left, safe)

    def correct(self, action: Array) -> Array:
        """The actions to take, ``[B]`` or ``[B, d]`` like ``action``."""
        if self.allowed is not None:
            action = np.where(self.allowed[action], action, self.fallback).astype(action.dtype)
        return action if self.safe_set is None else self.safe_set.project(action)


@dataclass(frozen=True)
class BundleSafety:
    """What the agents of a bundle keep.

    Args:
        agents: by themselves; empty without a shield.
        joint: the allowed joint actions of the agents in ``order``, where a constraint is on all of them.
        order: names of the agents whose actions make up the joint action, and their widths.
    """

    agents: dict[str, AgentSafety] = field(default_factory=dict)
    joint: SafeSet | None = None
    order: dict[str, int] = field(default_factory=dict)

    def correct(self, actions: Mapping[str, Array]) -> dict[str, Array]:
        """All agents' actions ``[B, ...]`` by name, projected together where a constraint is joint.

        Raises:
            ValueError: if an agent is missing, or the batches differ.
        """
        if self.joint is None:
            return dict(actions)
        missing = [name for name in self.order if name not in actions]
        if missing:
            raise ValueError(
                "the shield of this bundle holds for all agents together: ask for the actions of all of "
                f"them at once; {', '.join(missing)} missing."
            )
        if len({len(actions[name]) for name in self.order}) > 1:
            raise ValueError(
                "the shield of this bundle holds for all agents together: their batches must be equal."
            )
        together = np.concatenate([actions[name] for name in self.order], -1)
        parts = np.split(
            self.joint.project(together), np.cumsum(list(self.order.values()))[:-1], axis=-1
        )
        return {**actions, **dict(zip(self.order, parts, strict=True))}


def read_safety(data: Any, agents: Mapping[str, AgentSignature]) -> BundleSafety:
    """The shield from its JSON form; None is none.

    Raises:
        BundleError: naming what is wrong.
    """
    if data is None:
        return BundleSafety()
    try:
        return _read(data, agents)
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(f"the signature's 'safety' cannot be read: {error!r}.") from error


def _read(data: Any, agents: Mapping[str, AgentSignature]) -> BundleSafety:
    unknown = set(data) - {"linear", "centre", "forbidden", "fallback"}
    if unknown:
        raise BundleError(
            f"the signature's 'safety' has the unknown {sorted(unknown)}: this version of marl_td cannot "
            "keep it. Use the version that wrote the bundle."
        )
    linear = data.get("linear", [])
    rows = [_rows(entry, agents) for entry in linear]
    centre = data.get("centre", {})
    ranked = sorted(agents, key=lambda name: (_group_rank(agents, name), agents[name].index))
    order = {
        name: agents[name].action.shape[0] for name in ranked if agents[name].kind == CONTINUOUS
    }
    joint = any(entry["scope"] == JOINT for entry in linear)
    own = {
        name: AgentSafety(
            None if joint else _own_set(name, agent, rows, linear, centre), *_forbidden(agent, data)
        )
        for name, agent in agents.items()
    }
    return BundleSafety(
        own, _joint_set(agents, order, rows, linear, centre) if joint else None, order
    )


def _group_rank(agents: Mapping[str, AgentSignature], name: str) -> int:
    return list(dict.fromkeys(agent.group for agent in agents.values())).index(agents[name].group)


def _rows(entry: Any, agents: Mapping[str, AgentSignature]) -> dict[str, Array]:
    """The weights of each agent that a constraint names, by name; agents with zeros only are left out."""
    if set(entry) != {"scope", "weights", "limit"} or entry["scope"] not in (OWN, JOINT):
        raise BundleError(
            f"a constraint of the signature needs scope, weights, limit; got {entry!r}."
        )
    out = {}
    for name, agent in agents.items():
        if agent.group not in entry["weights"]:
            continue
        weights = np.asarray(entry["weights"][agent.group][agent.index], dtype=np.float64)
        if agent.kind != CONTINUOUS or weights.shape != agent.action.shape:
            raise BundleError(f"a constraint of the signature does not fit the action of '{name}'.")
        if weights.any():
            out[name] = weights
    if not out or not all(np.isfinite(row).all() for row in out.values()):
        raise BundleError(
            f"a constraint of the signature needs finite weights besides 0; got {entry!r}."
        )
    return out


def _half_space(weights: Array, columns: Array, limit: float) -> HalfSpaces:
    length = float(np.linalg.norm(weights))
    return HalfSpaces(columns[None], weights[None] / length, np.array([float(limit) / length]))


def _bounds(agent: AgentSignature) -> tuple[Array, Array]:
    low, high = agent.action.low, agent.action.high
    if low is None or high is None:
        raise BundleError("linear constraints need actions with finite bounds.")
    return low, high


def _own_set(
    name: str, agent: AgentSignature, rows: Any, linear: Any, centre: Any
) -> SafeSet | None:
    blocks = [
        _half_space(row[name], np.arange(len(row[name])), entry["limit"])
        for row, entry in zip(rows, linear, strict=True)
        if entry["scope"] == OWN and name in row
    ]
    if not blocks:
        return None
    middle = np.asarray(centre[agent.group][agent.index], dtype=np.float64)
    return SafeSet(*_bounds(agent), blocks, middle)


def _joint_set(
    agents: Mapping[str, AgentSignature], order: dict[str, int], rows: Any, linear: Any, centre: Any
) -> SafeSet:
    """All constraints on the joint action; own ones too, which a projection onto the joint ones may break."""
    starts = dict(zip(order, np.cumsum([0, *order.values()])[:-1], strict=True))
    columns = {name: starts[name] + np.arange(width) for name, width in order.items()}
    blocks = []
    for row, entry in zip(rows, linear, strict=True):
        if entry["scope"] == JOINT:
            flat = np.concatenate([columns[name] for name in row])
            blocks.append(_half_space(np.concatenate(list(row.values())), flat, entry["limit"]))
        else:
            spaces = [_half_space(own, columns[name], entry["limit"]) for name, own in row.items()]
            blocks += _stacked(spaces)
    pairs = [_bounds(agents[name]) for name in order]
    low, high = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    middle = [np.asarray(centre[agents[name].group][agents[name].index]) for name in order]
    return SafeSet(low, high, blocks, np.concatenate(middle).astype(np.float64))


def _stacked(spaces: list[HalfSpaces]) -> list[HalfSpaces]:
    """Half-spaces of different agents as one block for each width."""
    out = []
    for width in {space.weights.shape[1] for space in spaces}:
        alike = [space for space in spaces if space.weights.shape[1] == width]
        parts = zip(*((space.columns, space.weights, space.limit) for space in alike), strict=True)
        out.append(HalfSpaces(*(np.concatenate(part) for part in parts)))
    return out


def _forbidden(agent: AgentSignature, data: Any) -> tuple[Array | None, int]:
    """Which of an agent's discrete actions are allowed, and the fallback."""
    never = data.get("forbidden", {}).get(agent.group)
    if never is None:
        return None, 0
    fallback = data.get("fallback", {}).get(agent.group, 0)
    fits = agent.kind == DISCRETE and all(
        type(action) is int and 0 <= action < agent.n_actions for action in [*never, fallback]
    )
    if not fits or fallback in never:
        raise BundleError(
            f"the signature forbids the actions {never!r} of group '{agent.group}' in favour of "
            f"{fallback!r}, which does not fit its {agent.n_actions} actions."
        )
    allowed = np.ones(agent.n_actions, dtype=bool)
    allowed[never] = False
    return allowed, fallback
