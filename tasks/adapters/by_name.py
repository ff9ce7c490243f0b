"""Adapted environments that can be asked for by name, with their parameters as dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torchrl.envs import EnvBase

from marl_td.tasks.base import Discrete, TaskParams, require
from marl_td.tasks.shield import shielded_env


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


@dataclass
class PettingZooParams(TaskParams):
    """Parameters of a PettingZoo environment of your own, named by its import path."""

    env: str = ""
    """Import path ``package.module:function`` of what builds the environment."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of that function, such as ``{n_robots: 4}``."""
    groups: Any = "spaces"
    """Who shares networks: agents of equal ``spaces``, or of one ``name`` (``cat_0``, ``cat_1``), ``each``
    by itself, ``all``, or ``{group: [agents]}``."""
    flatten: bool = True
    """Every observation as a vector; false keeps the shape of a Box, for ``model=layers/cnn``."""
    image_size: int | None = 16
    """Pictures are averaged down to so many pixels in height and in width; ``null`` leaves them."""
    state: bool = True
    """Give central critics and mixers the environment's global state, where it has one."""
    max_steps: int = 1000
    """Time limit in steps beside the environment's own; reaching it truncates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.image_size
        require(size is None or size >= 1, f"image_size must be at least 1 pixel; got {size}.")


ADAPTED: dict[str, type[TaskParams]] = {
    "mpe": MpeParams,
    "vmas": VmasParams,
    "pettingzoo": PettingZooParams,
}
"""Name of an adapted family to its parameter dataclass."""

BOTH = frozenset({"continuous", "discrete"})


def adapted_env(
    name: str,
    n_envs: int,
    *,
    seed: int | None = 0,
    continuous: bool | None = True,
    device: torch.device | str = "cpu",
    **params: Any,
) -> EnvBase:
    """Build an adapted environment of the family ``name``; arguments as in :func:`make_env`.

    An environment of ``pettingzoo`` has the actions that it has, whatever ``continuous`` says.
    """
    from marl_td.tasks import adapters

    settings: Any = ADAPTED[name](**params)
    if isinstance(settings, PettingZooParams):
        return shielded_env(_own_env(settings, n_envs, seed, device), settings.safety)
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
    return shielded_env(env, settings.safety)


def _own_env(
    params: PettingZooParams, n_envs: int, seed: int | None, device: torch.device | str
) -> EnvBase:
    from marl_td.tasks import adapters
    from marl_td.tasks.adapters.by_path import env_factory

    return adapters.from_pettingzoo(
        env_factory(params.env, params.options),
        groups=params.groups,
        n_envs=n_envs,
        seed=seed,
        max_steps=params.max_steps,
        state=None if params.state else False,
        flatten=params.flatten,
        image_size=params.image_size,
        device=device,
    )


def action_kinds(name: str, params: Mapping[str, Any]) -> frozenset[str]:
    """The kinds of action, ``"continuous"`` or ``"discrete"`` or both, of an adapted environment.

    One of ``pettingzoo`` is built to find out; where nothing is said of it, it may have either kind.
    """
    if name != "pettingzoo" or not params:
        return BOTH
    env = _own_env(PettingZooParams(**params), 1, 0, "cpu")
    layout = env.layout
    env.close()
    return frozenset(
        "discrete" if isinstance(spec.action, Discrete) else "continuous"
        for spec in layout.groups.values()
    )
