"""The shield of a policy's environment in the form that a bundle keeps."""

from __future__ import annotations

from typing import Any

from marl_td.deploy.parts import NotExportable
from marl_td.deploy.source import PolicySource
from marl_td.tasks.shield import Corrector, Shield
from marl_td.tasks.shield.transform import groups_of


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
    corrector = Corrector(shield, groups_of(source.env))
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
