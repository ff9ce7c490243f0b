"""Adapted environments that can be asked for by name, with their parameters as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torchrl.envs import EnvBase

from marl_td.tasks.base import TaskParams


@dataclass
class MpeParams(TaskParams):
    """Parameters of a multi-particle environment of ``mpe2`` (extra ``mpe``)."""

    scenario: str = "simple_spread_v3"
    """Module name in ``mpe2``."""
    max_steps: int = 25
    """Time limit in steps (``max_cycles`` of ``mpe2``)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the scenario, such as ``{N: 3, local_ratio: 0.5}``."""


@dataclass
class VmasParams(TaskParams):
    """Parameters of a VMAS scenario (extra ``vmas``), with time limits told from terminations."""

    scenario: str = "balance"
    """Name of the VMAS scenario."""
    max_steps: int = 100
    """Time limit in steps."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the scenario, such as ``{n_agents: 4}``."""


ADAPTED: dict[str, type[TaskParams]] = {"mpe": MpeParams, "vmas": VmasParams}
"""Name of an adapted family to its parameter dataclass."""


def adapted_env(
    name: str,
    n_envs: int,
    *,
    seed: int | None = 0,
    continuous: bool | None = True,
    device: torch.device | str = "cpu",
    **params: Any,
) -> EnvBase:
    """Build an adapted environment of the family ``name``; arguments as in :func:`make_env`."""
    from marl_td.tasks import adapters

    settings: Any = ADAPTED[name](**params)
    builders: dict[str, Any] = {"mpe": adapters.from_mpe, "vmas": adapters.from_vmas}
    env: EnvBase = builders[name](
        settings.scenario,
        n_envs=n_envs,
        max_steps=settings.max_steps,
        continuous_actions=continuous is not False,
        seed=seed,
        device=device,
        **settings.options,
    )
    return env
