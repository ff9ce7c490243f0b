"""One agent's actor: a module from its own inputs, by name, to its action and next state."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from marl_td.deploy.parts import NotExportable
from marl_td.deploy.signature import CATEGORICAL, SAMPLED
from marl_td.deploy.steps import Key, OwnPolicy

JOINT_HISTORY: Key = ("joint_history",)
"""Entry that all agents share: what everybody did lately, as far as it was seen."""


class Actor(nn.Module):
    """The steps of one agent, over a batch of its inputs.

    Args:
        policy: the steps.
        group: the agent's group; entries of it get the dimension of agents that the steps expect.
        mode: ``"deterministic"``, or ``"sampled"``: what actions are drawn from is written too.

    Raises:
        NotExportable: if an entry is read that an agent does not have by itself, or if actions are to be
            drawn and the policy has nothing to draw from.
    """

    def __init__(self, policy: OwnPolicy, group: str, mode: str) -> None:
        super().__init__()
        if mode == SAMPLED and not policy.distribution:
            raise NotExportable(
                f"the policy of group '{group}' has no distribution to draw actions from (it is greedy or "
                "deterministic); export it without --sample."
            )
        self.group = group
        self.own_steps = nn.ModuleList(step.module for step in policy.steps)
        self.step_keys = [(step.in_keys, step.out_keys) for step in policy.steps]
        self.inputs = {entry_name(key): key for key in policy.in_keys}
        for key in policy.in_keys:
            self._check_own(key)
        outputs: dict[str, Key] = {"action": (group, "action")}
        if any((group, "scores") in keys for _, keys in self.step_keys):
            outputs["scores"] = (group, "scores")
        if mode == SAMPLED and policy.distribution != CATEGORICAL:
            outputs |= {name: (group, f"drawn_{name}") for name in ("loc", "scale")}
        outputs |= {f"next_{entry_name(key)}": ("next", *key) for key in policy.states}
        if (group, "sub_policy") in policy.in_keys:
            outputs["next_sub_policy"] = (group, "sub_policy")  # the same all episode
        self.outputs = outputs
        names = [*map(entry_name, policy.in_keys), *outputs]
        for name in names:
            if names.count(name) > 1:
                raise NotExportable(
                    f"two entries of group '{group}' would be called '{name}'; rename one in the environment."
                )

    def _check_own(self, key: Key) -> None:
        if key[0] == self.group or key == JOINT_HISTORY:
            return
        raise NotExportable(
            f"the policy of group '{self.group}' reads {'.'.join(key)}, which an agent does not have by "
            "itself when it acts."
        )

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs ``[B, ...]`` by name from inputs ``[B, ...]`` by name."""
        entries = {
            key: inputs[name].unsqueeze(1) if key[0] == self.group else inputs[name]
            for name, key in self.inputs.items()
        }
        for module, (in_keys, out_keys) in zip(self.own_steps, self.step_keys, strict=True):
            found = module(*(entries[key] for key in in_keys))
            values = (found,) if isinstance(found, Tensor) else found
            entries.update(zip(out_keys, values, strict=True))
        return {name: entries[key].squeeze(1).clone() for name, key in self.outputs.items()}


def entry_name(key: Key) -> str:
    """Name of an entry of a group, or of the root: ``("agents", "info", "x")`` is ``"info_x"``."""
    return "_".join(key[1:] if len(key) > 1 else key).lstrip("_")


def same_network(actors: Iterable[nn.Module]) -> bool:
    """Whether all actors give the same outputs because their parameters and constants are the same."""
    states = [dict([*actor.named_parameters(), *actor.named_buffers()]) for actor in actors]
    first = states[0]
    return all(
        state.keys() == first.keys()
        and all(torch.equal(value, first[name]) for name, value in state.items())
        for state in states[1:]
    )
