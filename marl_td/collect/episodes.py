"""Whole episodes of a policy in any TorchRL environment, all copies at once.

Sums are kept on the environment's device and stop at each copy's first ``done``: there is no loop over
environments, and nothing is stored per step unless a caller asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from marl_td.tasks.vector_env import batched_task

MAX_STEPS = 10_000
"""Limit for environments that do not say when an episode must end."""
CHECK_EVERY = 16
"""Steps between two looks at whether all copies are done (each look waits for the device)."""

OnStep = Callable[[TensorDictBase, Tensor], None]
"""Called after each step with its data ``[*B]`` and the copies still in their first episode ``[*B]``."""


class Episodes(NamedTuple):
    """Sums over each copy's first episode, all ``[n_episodes]`` float64.

    ``totals`` holds ``"return"`` (reward averaged over all agents, summed over steps), ``"steps"`` and
    the environment's raw quantities (``("info", name)``); ``group_return`` the return of each group.
    """

    totals: dict[str, Tensor]
    group_return: dict[str, Tensor]


def exploration(deterministic: bool) -> ExplorationType:
    """TorchRL's mode in which a policy takes its best actions, or draws them."""
    return ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM


@torch.no_grad()
def run_episodes(
    env: EnvBase,
    policy: Callable[[TensorDictBase], TensorDictBase] | None,
    max_steps: int | None = None,
    on_step: OnStep | None = None,
) -> Episodes:
    """Run one episode in every copy of ``env``.

    Args:
        env: any TorchRL environment, ``batch_size`` ``[]`` or ``[n_envs]``.
        policy: writes the actions; None acts at random (among available actions).
        max_steps: stop after so many steps even if copies are not done; None takes the task's time
            limit, or :data:`MAX_STEPS`.
        on_step: sees every step.

    Returns:
        Sums over the episodes; ``[1]`` if ``env`` has no batch dimension.
    """
    task = batched_task(env)
    if max_steps is None:
        max_steps = MAX_STEPS if task is None else task.params.max_steps
    act = env.rand_action if policy is None else policy
    data = env.reset()
    active = torch.ones(env.batch_size, dtype=torch.bool, device=data.device)
    sums: dict[NestedKey, Tensor] = {}
    for step in range(max_steps):
        stepped, data = env.step_and_maybe_reset(act(data))
        if on_step is not None:
            on_step(stepped, active)
        after = stepped["next"]
        for key, value in quantities(env, after).items():
            value = torch.where(active, value.double(), 0.0)
            sums[key] = sums[key] + value if key in sums else value
        active = active & ~ended(env, after)
        if step % CHECK_EVERY == CHECK_EVERY - 1 and not bool(active.any()):
            break
    return as_episodes(sums)


def quantities(env: EnvBase, after: TensorDictBase) -> dict[NestedKey, Tensor]:
    """What is summed, each ``[*B]``: of one step, or of several (``after`` ``[n_envs, T]``)."""
    n_dims = after.ndim
    found: dict[NestedKey, Tensor] = {}
    n_rewards = 0
    total = torch.zeros((), dtype=torch.float64)
    for key in env.reward_keys:
        reward = after.get(key).flatten(n_dims)  # [*B, n_agents] or [*B, 1]
        n_rewards += reward.shape[-1]
        total = total + reward.double().sum(-1)
        group = key[0] if isinstance(key, tuple) else "agents"
        found["group_return", group] = reward.double().mean(-1)
    found["return"] = total / n_rewards
    found["steps"] = torch.ones(after.shape, dtype=torch.float64, device=total.device)
    info = after.get("info", None)
    if info is not None:
        for name, value in info.items():
            if value.shape == (*after.shape, 1):
                found["info", name] = value.squeeze(-1)
    return found


def ended(env: EnvBase, after: TensorDictBase) -> Tensor:
    """Copies ``[*B]`` whose episode is over: the root ``done``, or all agents of all groups."""
    done = after.get("done", None)
    if done is not None:
        return done.reshape(after.shape)
    keys = [key for key in env.done_keys if key[-1] == "done"]
    flat = torch.cat([after.get(key).flatten(after.ndim) for key in keys], dim=-1)
    return flat.all(-1)


def as_episodes(sums: dict[NestedKey, Tensor]) -> Episodes:
    """The sums of every copy by name."""
    totals: dict[str, Tensor] = {}
    group_return: dict[str, Tensor] = {}
    for key, value in sums.items():
        kind, name = key if isinstance(key, tuple) else ("", key)
        (group_return if kind == "group_return" else totals)[name] = value.reshape(-1)
    return Episodes(totals, group_return)
