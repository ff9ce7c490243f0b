"""Any PettingZoo ``ParallelEnv`` as a TorchRL environment, in one call.

What TorchRL 0.11's own ``PettingZooWrapper`` does otherwise, and why this is not built on it: it is a
single environment and seeds all workers alike; a truncation clears its alive mask (which
:mod:`marl_td.signals` puts right, other code does not); an agent that left the game is reported as terminated
*and* truncated, and one death ends the episode of all unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pettingzoo.utils import aec_to_parallel
from pettingzoo.utils.env import AECEnv, ParallelEnv

from marl_td.tasks.adapters.copies import build_copies
from marl_td.tasks.adapters.grouping import Grouping
from marl_td.tasks.adapters.parallel_copy import ParallelCopy
from marl_td.tasks.adapters.python_env import PythonEnv


def from_pettingzoo(
    env_or_factory: Any,
    *,
    groups: Grouping = "name",
    n_envs: int = 1,
    seed: int | None = 0,
    max_steps: int | None = None,
    mortal: bool = True,
    state: bool | None = None,
    info_keys: Sequence[str] = (),
    flatten: bool = False,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
) -> PythonEnv:
    """A TorchRL environment over ``n_envs`` copies of a PettingZoo ``ParallelEnv``.

    Observations that are not a Box are flattened; discrete actions are integers (``Categorical``,
    never one-hot), multi-discrete ones integers over all combinations. An action mask is found in a
    Dict observation or in the info, as PettingZoo allows both. The episode ends when no agent is left:
    it is truncated if the last ones were cut off by a time limit, terminated otherwise. An ``AECEnv``
    that says that it is parallelizable is converted.

    Args:
        env_or_factory: an environment, or (needed for ``n_envs > 1``) a function that builds one.
        groups: ``"name"`` groups agents by name prefix (``"adversary_0"`` into ``"adversary"``),
            ``"spaces"`` those with equal spaces, ``"all"`` makes one group ``"agents"``, ``"each"`` a
            group per agent; or ``{group: [agents]}``.
        n_envs: number of copies, stepped one after the other in this process.
        seed: seed from which every copy gets its own; None leaves each to seed itself.
        max_steps: time limit in steps beside the environment's own; reaching it truncates.
        mortal: whether an agent may end before the others; gives ``(group, "mask")``, true = alive, and
            each agent's own ``("next", group, "terminated" | "truncated" | "done")``. Where the whole episode
            is truncated the mask stays true.
        state: whether to give the global ``"state"`` (flattened); None gives it where there is one.
        info_keys: numbers in the agents' infos to give as ``("info", name)``, averaged over the
            agents that report them.
        flatten: make a vector of each observation; false keeps the shape of a Box.
        image_size: pictures (boxes of bytes from 0 to 255) are averaged down to so many pixels in
            height and in width, and their values lie in [0, 1]; None takes them as they are.
        device: where the tensors go; the environments stay on the CPU.

    Raises:
        TypeError: if this is no ``ParallelEnv``.
        ValueError: if agents of a group differ in their spaces, a space is not supported, an observation
            does not fit its space, a mask allows nothing, an agent is missing in what is reported, or a
            number is not finite; each names the agent.
    """
    parallel = isinstance(env_or_factory, AECEnv | ParallelEnv) or not callable(env_or_factory)
    source = as_parallel(env_or_factory) if parallel else lambda: as_parallel(env_or_factory())
    envs = build_copies(source, n_envs, lambda env: isinstance(env, ParallelEnv))
    options: dict[str, Any] = {"groups": groups, "mortal": mortal, "state": state}
    options |= {"flatten": flatten, "image_size": image_size, "info_keys": tuple(info_keys)}
    copies = [ParallelCopy(env, **options) for env in envs]
    return PythonEnv(copies, seed=seed, max_steps=max_steps, device=device)


def as_parallel(env: Any) -> Any:
    """A turn-based ``AECEnv`` as a ``ParallelEnv``; anything else as it is.

    Raises:
        ValueError: if the agents' turns cannot be made one step.
    """
    if not isinstance(env, AECEnv):
        return env
    if not getattr(env, "metadata", {}).get("is_parallelizable", False):
        raise ValueError(
            f"{env} is a turn-based AECEnv whose agents cannot all act at once (its metadata does not "
            "say is_parallelizable). Build it with `parallel_env` where its module has one; games in "
            "which one agent moves at a time are not offered here."
        )
    return aec_to_parallel(env)
