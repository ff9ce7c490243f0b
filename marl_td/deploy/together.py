"""Several agents act at once, and keep together what a shield asks of their joint action. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marl_td.deploy.safety import BundleSafety
from marl_td.deploy.signature import Array
from marl_td.deploy.validate import InputError


def act_together(
    agents: Mapping[str, Any],
    safety: BundleSafety,
    obs: Mapping[str, Any],
    states: Mapping[str, Any],
    masks: Mapping[str, Any],
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The actions of the agents in ``obs`` and their next states, by name (see :meth:`Bundle.act`).

    Raises:
        InputError: for an input that an agent does not take, and an unknown or missing agent.
    """
    wanted: dict[str, Array] = {}
    after: dict[str, Any] = {}
    for name, observation in obs.items():
        if name not in agents:
            raise InputError(f"the bundle has no agent '{name}'; it has {', '.join(agents)}.")
        proposed = agents[name].propose(observation, states.get(name), masks.get(name))
        wanted[name], after[name] = proposed
    if safety.joint is None:
        return wanted, after
    single = {name: a.shape == agents[name].signature.action.shape for name, a in wanted.items()}
    rows = {name: a[None] if single[name] else a for name, a in wanted.items()}
    try:
        taken = safety.correct(rows)
    except ValueError as error:
        raise InputError(str(error)) from error
    for name, value in taken.items():
        agents[name].count_changes(rows[name], value)
    return {name: a[0] if single[name] else a for name, a in taken.items()}, after
