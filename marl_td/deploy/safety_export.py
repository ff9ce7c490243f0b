"""The shield of a policy's environment in the form that a bundle keeps."""

from __future__ import annotations

from typing import Any

from marl_td.deploy.parts import NotExportable
from marl_td.deploy.source import PolicySource
from marl_td.tasks.base import Box, Discrete, GroupSpec
from marl_td.tasks.shield import Corrector, Shield


def safety_entry(source: PolicySource) -> dict[str, Any] | None:
    """What ``signature.json`` says under ``safety`` (:mod:`marl_td.deploy.safety`); None without a shield.

    Raises:
        NotExportable: if the shield calls functions of the user's, which no file can hold.
    """
    given = source.settings.task_config.config.get("safety")
    if given is None:
        return None
    shield = Shield.of(given)
    if shield.allowed is not None or shield.override is not None:
        raise NotExportable(
            "the shield of this run calls Python functions (safety.allowed, safety.override), which a bundle "
            "cannot hold; export it with linear constraints and forbidden actions only, and keep the rest "
            "where the bundle is used."
        )
    corrector = Corrector(shield, _groups(source))
    shapes = {
        name: (corrector.groups[name].n_agents, len(box.low))
        for name, box in corrector.boxes.items()
    }
    out: dict[str, Any] = {
        "linear": [
            {
                "scope": constraint.scope,
                "weights": {
                    name: constraint.matrix(name, *shape).tolist()
                    for name, shape in shapes.items()
                    if name in constraint.weights
                },
                "limit": float(constraint.limit),
            }
            for constraint in shield.linear
        ],
        "forbidden": {name: list(actions) for name, actions in shield.forbidden.items()},
        "fallback": {name: corrector.fallback(name) for name in shield.forbidden},
    }
    if corrector.safe_set is not None:
        widths = [n_agents * width for n_agents, width in shapes.values()]
        parts = zip(shapes.items(), corrector.safe_set.centre.split(widths), strict=True)
        out["centre"] = {name: part.reshape(shape).tolist() for (name, shape), part in parts}
    return out


def _groups(source: PolicySource) -> dict[str, GroupSpec]:
    """The agent groups, as far as a shield must know them."""
    out = {}
    for name, agents in source.group_map.items():
        spec = source.specs[name, "action"]
        action: Box | Discrete
        if spec.n:
            action = Discrete(spec.n)
        elif spec.low is None or spec.high is None:
            raise NotExportable(
                f"the actions of group '{name}' have no bounds, which its shield needs."
            )
        else:
            action = Box(tuple(spec.low[0].tolist()), tuple(spec.high[0].tolist()))
        out[name] = GroupSpec(len(agents), 1, action)
    return out
