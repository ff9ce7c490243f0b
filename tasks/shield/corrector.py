"""A shield made for the agent groups of one environment: masks, replacements, projections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, require
from marl_td.tasks.shield.projection import Block, SafeSet
from marl_td.tasks.shield.settings import Shield

CHANGED, SIZE = "shield_changed", "shield_size"
"""Raw quantities of a step: how many agents were corrected, and the sum of their corrections' sizes."""


class Corrector:
    """A shield made for the groups of one task: what corrects the actions.

    Args:
        shield: what to keep.
        groups: the agent groups.
        device: where actions are.

    Raises:
        ValueError: if the shield does not fit the groups, or cannot be kept by any action.
    """

    def __init__(
        self, shield: Shield, groups: Mapping[str, GroupSpec], device: torch.device | str = "cpu"
    ) -> None:
        self.shield = shield
        self.groups = dict(groups)
        _check_groups(shield, self.groups)
        self.boxes = {
            name: spec.action for name, spec in groups.items() if isinstance(spec.action, Box)
        }
        self.bounds = {
            name: tuple(torch.tensor(bound, device=device) for bound in (box.low, box.high))
            for name, box in self.boxes.items()
        }
        self.safe_set = self._safe_set(device) if shield.linear else None
        self.static = {name: self._static_mask(name, device) for name in shield.forbidden}
        self.reads_observations = shield.allowed is not None or shield.override is not None

    @property
    def masked(self) -> set[str]:
        """The groups whose available actions the shield narrows."""
        choose = {name for name, spec in self.groups.items() if isinstance(spec.action, Discrete)}
        return choose if self.shield.allowed is not None else set(self.static)

    def fallback(self, name: str) -> int:
        """The discrete action of group ``name`` taken instead of one that is not allowed."""
        return self.shield.fallback.get(name, 0)

    def mask(self, seen: Groups, available: Groups, batch: Sequence[int]) -> Groups:
        """The available actions less those that are not allowed; the fallback where nothing is left.

        Args:
            batch: the batch size, such as ``[n_envs]``.
            seen: observations, where the shield reads them.
            available: the task's own masks.
        """
        out = dict(available)
        user = self.shield.allowed(seen) if self.shield.allowed is not None else {}
        for name in self.masked:
            masks = [part[name] for part in (available, user, self.static) if name in part]
            mask = masks[0]
            for other in masks[1:]:
                mask = mask & other
            safe = torch.arange(mask.shape[-1], device=mask.device) == self.fallback(name)
            left = torch.where(mask.any(-1, keepdim=True), mask, safe)
            out[name] = left.expand(*batch, self.groups[name].n_agents, -1)
        return out

    def correct(self, seen: Groups, action: Groups, allowed: Groups) -> tuple[Groups, Groups]:
        """The actions to take, and each agent's correction.

        Args:
            seen: observations, where the shield reads them.
            action: what the agents want, ``{group: [n_envs, n_agents(, d)]}``.
            allowed: masks as :meth:`mask` gives them.

        Returns:
            Actions of the same shapes, and ``{group: [n_envs, n_agents]}``: the Euclidean length of the
            change of a continuous action (after clipping to its bounds, which the task does anyway), 1 for
            a discrete action that was replaced.
        """
        wanted = {name: self._clipped(name, value) for name, value in action.items()}
        taken = dict(wanted)
        if self.shield.override is not None:
            taken.update(self.shield.override(seen, wanted))
        for name in self.masked:
            chosen = allowed[name].gather(-1, taken[name].unsqueeze(-1)).squeeze(-1)
            safe = self.fallback(name)
            instead = torch.where(allowed[name][..., safe], safe, allowed[name].float().argmax(-1))
            taken[name] = torch.where(chosen, taken[name], instead)
        if self.safe_set is not None:
            taken.update(self._projected(taken))
        sizes = {}
        for name, value in taken.items():
            if name in self.boxes:
                sizes[name] = (value - wanted[name]).square().sum(-1).sqrt()
            else:
                sizes[name] = (value != wanted[name]).float()
        return taken, sizes

    # ------------------------------------------------------------------ parts
    def _clipped(self, name: str, value: Tensor) -> Tensor:
        return value.clamp(*self.bounds[name]) if name in self.boxes else value

    def _projected(self, action: Groups) -> Groups:
        """The joint continuous action projected, and taken apart again."""
        if self.safe_set is None:
            return action
        joint = torch.cat([action[name].flatten(-2) for name in self.boxes], -1)
        parts = self.safe_set.project(joint).split(
            [action[name].shape[-2:].numel() for name in self.boxes], -1
        )
        return {
            name: part.reshape(action[name].shape)
            for name, part in zip(self.boxes, parts, strict=True)
        }

    def _safe_set(self, device: torch.device | str) -> SafeSet:
        """All linear constraints on the joint action: groups, agents and entries one after the other."""
        low: list[float] = []
        high: list[float] = []
        columns = {}
        for name, box in self.boxes.items():
            n_agents, width = self.groups[name].n_agents, len(box.low)
            columns[name] = (len(low) + np.arange(n_agents * width)).reshape(n_agents, width)
            low += list(box.low) * n_agents
            high += list(box.high) * n_agents
        blocks = []
        for constraint in self.shield.linear:
            named = [name for name in self.boxes if name in constraint.weights]
            weights = {name: constraint.matrix(name, *columns[name].shape) for name in named}
            if constraint.scope == "joint":
                flat = np.concatenate([columns[name].ravel() for name in named])
                joint = np.concatenate([weights[name].ravel() for name in named])
                blocks.append(Block(flat[None], joint[None], np.array([constraint.limit])))
                continue
            for name in named:
                kept = np.abs(weights[name]).sum(-1) > 0  # agents whose weights are all 0 are free
                limit = np.full(len(columns[name]), float(constraint.limit))
                blocks.append(Block(columns[name][kept], weights[name][kept], limit[kept]))
        return SafeSet(np.array(low), np.array(high), blocks, device)

    def _static_mask(self, name: str, device: torch.device | str) -> Tensor:
        action: Any = self.groups[name].action
        mask = torch.ones(action.n, dtype=torch.bool, device=device)
        mask[list(self.shield.forbidden[name])] = False
        return mask.expand(self.groups[name].n_agents, action.n)


def summary(sizes: Groups) -> dict[str, Tensor]:
    """The raw quantities ``[*B]`` of a step from each agent's correction ``{group: [*B, n_agents]}``."""
    each = torch.cat(list(sizes.values()), -1)
    return {CHANGED: (each > 0).float().sum(-1), SIZE: each.sum(-1)}


def _check_groups(shield: Shield, groups: Mapping[str, GroupSpec]) -> None:
    """Check that what a shield says of groups fits them."""
    kinds: dict[type, list[str]] = {Box: [], Discrete: []}
    for name, spec in groups.items():
        kinds[type(spec.action)].append(name)
    for constraint in shield.linear:
        _check_names("linear", constraint.weights, kinds[Box], "continuous")
    for part in ("forbidden", "fallback"):
        _check_names(part, getattr(shield, part), kinds[Discrete], "discrete")
    require(
        shield.allowed is None or len(kinds[Discrete]) > 0,
        "safety.allowed narrows discrete actions, and no group has any; use linear constraints or override.",
    )
    for name, actions in shield.forbidden.items():
        n = _n_actions(groups[name])
        fits = isinstance(actions, Iterable) and all(_is_action(action, n) for action in actions)
        require(
            fits,
            f"safety.forbidden of group '{name}' must be a list of whole numbers from 0 to {n - 1}; got "
            f"{actions!r}.",
        )
    for name in {*shield.forbidden, *shield.fallback}:
        n, action = _n_actions(groups[name]), shield.fallback.get(name, 0)
        require(
            _is_action(action, n) and action not in shield.forbidden.get(name, ()),
            f"safety.fallback of group '{name}' must be an action from 0 to {n - 1} that is not forbidden; "
            f"got {action!r}.",
        )


def _check_names(part: str, given: Iterable[str], known: list[str], kind: str) -> None:
    for name in given:
        has = f"groups with {kind} actions: {', '.join(known)}" if known else "there are none"
        require(
            name in known,
            f"safety.{part} names '{name}', which is no group with {kind} actions ({has}).",
        )


def _n_actions(spec: GroupSpec) -> int:
    return spec.action.n if isinstance(spec.action, Discrete) else 0


def _is_action(action: Any, n: int) -> bool:
    return isinstance(action, int) and not isinstance(action, bool) and 0 <= action < n
