"""The multi-particle environments of ``mpe2`` (extra ``mpe``) by name.

``mpe2`` steps its agents in turn and wraps that to look parallel, which computes every observation
twice and takes about as long again as the physics. :class:`DirectMpe` drives the same simulator one
cycle at a time, with the same results.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import numpy as np
import torch
from pettingzoo.utils.env import ParallelEnv

from marl_td.tasks.adapters.copies import Array
from marl_td.tasks.adapters.extras import import_extra
from marl_td.tasks.adapters.grouping import Grouping
from marl_td.tasks.adapters.mpe_state import mpe_restore, mpe_snapshot
from marl_td.tasks.adapters.pettingzoo import from_pettingzoo
from marl_td.tasks.adapters.python_env import PythonEnv
from marl_td.tasks.base import require
from marl_td.tasks.registry import suggest


def from_mpe(
    name: str,
    *,
    n_envs: int = 1,
    seed: int | None = 0,
    max_steps: int = 25,
    continuous_actions: bool = False,
    groups: Grouping = "name",
    device: torch.device | str = "cpu",
    **options: Any,
) -> PythonEnv:
    """A TorchRL environment over ``n_envs`` copies of an ``mpe2`` environment.

    Args:
        name: module in ``mpe2``, such as ``"simple_spread_v3"``.
        n_envs: number of copies.
        seed: seed from which every copy gets its own.
        max_steps: time limit in steps (``max_cycles`` of ``mpe2``); reaching it truncates.
        continuous_actions: forces as numbers in ``[0, 1]``, or one of five moves.
        groups: see :func:`from_pettingzoo`; by default by name, so ``simple_tag_v3`` has the groups
            ``"adversary"`` and ``"agent"``.
        device: where the tensors go; the environments stay on the CPU.
        options: further arguments of the environment, such as ``N=3, local_ratio=0.5``.

    Raises:
        ImportError: if ``mpe2`` is not installed.
        ValueError: for an unknown name; the message names the closest ones.
    """
    require(max_steps >= 1, f"max_steps must be at least 1; got {max_steps}.")
    require("max_cycles" not in options, "the time limit is called max_steps here, not max_cycles.")
    module = _module(name)
    options = {"max_cycles": max_steps, "continuous_actions": continuous_actions, **options}
    return from_pettingzoo(
        lambda: DirectMpe(module.raw_env(**options)),
        groups=groups,
        n_envs=n_envs,
        seed=seed,
        mortal=False,
        device=device,
    )


class DirectMpe(ParallelEnv):
    """``mpe2``'s simulator as a ``ParallelEnv`` without the detour over turns.

    Args:
        raw: an environment made by ``mpe2.<module>.raw_env``.
    """

    metadata: dict[str, Any] = {"name": "mpe2", "is_parallelizable": True}  # noqa: RUF012

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.render_mode = raw.render_mode
        self.possible_agents = list(raw.possible_agents)
        self.state_space = raw.state_space
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        """The agent's observation space."""
        return self.raw.observation_space(agent)

    def action_space(self, agent: str) -> Any:
        """The agent's action space."""
        return self.raw.action_space(agent)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start an episode."""
        self.raw.reset(seed=seed, options=options)
        self.agents = self.possible_agents[:]
        return self._observations(), dict(self.raw.infos)

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Advance by one cycle: all agents act, the world moves once."""
        raw = self.raw
        for i, agent in enumerate(self.agents):
            action = actions[agent]
            raw.current_actions[i] = np.clip(action, 0, 1) if raw.continuous_actions else action
        raw._execute_world_step()
        raw.steps += 1
        cut = raw.steps >= raw.max_cycles
        ended = not cut and raw.scenario.is_terminal(raw.world)
        out = (
            self._observations(),
            dict(raw.rewards),
            dict.fromkeys(self.agents, ended),
            dict.fromkeys(self.agents, cut),
            dict(raw.infos),
        )
        if cut or ended:
            self.agents = []
        return out

    def state(self) -> Array:
        """All agents' observations in one vector."""
        return np.concatenate(list(self._seen.values()))

    def render(self) -> Any:
        """The simulator's picture."""
        return self.raw.render()

    def close(self) -> None:
        """Close the simulator's window."""
        self.raw.close()

    def state_dict(self) -> dict[str, Any]:
        """Where the simulator and its random stream are; raises ``TypeError`` for an unknown scenario's."""
        return {"raw": mpe_snapshot(self.raw), "agents": list(self.agents)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        mpe_restore(self.raw, state["raw"])
        self.agents = list(state["agents"])
        self._observations()

    def _observations(self) -> dict[str, Array]:
        self._seen = {agent: self.raw.observe(agent) for agent in self.possible_agents}
        return self._seen


def alias_mpe() -> bool:
    """Make ``pettingzoo.mpe`` importable from ``mpe2`` where PettingZoo (1.26 or later) lacks it.

    TorchRL's ``PettingZooEnv("simple_spread_v3")`` and BenchMARL's PettingZoo tasks load the
    environments under that name. Call it before the first such call.

    Returns:
        True if names were added, False if PettingZoo still has its own.

    Raises:
        ImportError: if ``mpe2`` is not installed either.
    """
    _hide_greeting()
    try:
        with warnings.catch_warnings():  # PettingZoo 1.25 says at each that it will move
            warnings.simplefilter("ignore", DeprecationWarning)
            importlib.import_module("pettingzoo.mpe.all_modules")
    except ImportError:
        mpe2 = import_extra("mpe2", extra="mpe")
        modules = import_extra("mpe2.all_modules", extra="mpe")
    else:
        return False
    sys.modules["pettingzoo.mpe"] = mpe2
    sys.modules["pettingzoo.mpe.all_modules"] = modules
    for name in _names():
        sys.modules[f"pettingzoo.mpe.{name}"] = import_extra(f"mpe2.{name}", extra="mpe")
    return True


def _names() -> list[str]:
    """Names of all ``mpe2`` environments."""
    modules = import_extra("mpe2.all_modules", extra="mpe")
    return [name.removeprefix("mpe/") for name in modules.mpe_environments]


def _module(name: str) -> Any:
    _hide_greeting()
    names = _names()
    if name not in names:
        raise ValueError(f"unknown mpe2 environment '{name}'. {suggest(name, names)}")
    return sys.modules[f"mpe2.{name}"]


def _hide_greeting() -> None:
    """Keep pygame from printing a greeting, which would spoil a command's JSON output."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
