"""Scores of a policy over many episodes, vectorised, with random numbers of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import set_exploration_type

from marl_td.collect.episodes import Episodes, batched_task, exploration, run_episodes
from marl_td.collect.rng import isolated_rng
from marl_td.tasks.base import Task
from marl_td.tasks.vector_env import VectorEnv
from marl_td.training.periodic_evaluation import join

MAX_COPIES = 256
"""Largest number of copies that run side by side when a task is given instead of an environment."""

PolicyFunction = Callable[[TensorDictBase], TensorDictBase]


def evaluate_policy(
    task_or_env: Task[Any, Any] | EnvBase,
    policy: PolicyFunction | None,
    n_episodes: int,
    seed: int,
    *,
    deterministic: bool = True,
    max_steps: int | None = None,
) -> Tensor:
    """Score of every episode, ``[n_episodes]`` float64, in the task's unit.

    The same seed gives every policy the same reset and step noise in our tasks, so that differences
    between policies are sharper than their intervals. No random stream outside is disturbed.

    Args:
        task_or_env: one of our tasks, or any TorchRL environment (its score is the return).
        policy: writes the actions; None is the random policy.
        n_episodes: number of episodes, at least 1.
        seed: of the environment and of the policy's own randomness.
        deterministic: take the policy's most likely actions instead of drawing them.
        max_steps: ends episodes of an environment without time limit.

    Raises:
        ValueError: if ``n_episodes`` is below 1.
    """
    episodes = evaluate_episodes(
        task_or_env, policy, n_episodes, seed, deterministic=deterministic, max_steps=max_steps
    )
    env_task = task_or_env if isinstance(task_or_env, Task) else batched_task(task_or_env)
    if env_task is None:
        return episodes.totals["return"]
    return env_task.score(episodes.totals)


def evaluate_episodes(
    task_or_env: Task[Any, Any] | EnvBase,
    policy: PolicyFunction | None,
    n_episodes: int,
    seed: int,
    *,
    deterministic: bool = True,
    max_steps: int | None = None,
) -> Episodes:
    """The sums of every episode; see :func:`evaluate_policy`."""
    if n_episodes < 1:
        raise ValueError(f"the number of episodes must be at least 1; got {n_episodes}.")
    with isolated_rng(seed), set_exploration_type(exploration(deterministic)):
        env = _environment(task_or_env, n_episodes)
        env.set_seed(seed)
        n_copies = max(1, env.batch_size.numel())
        rounds = -(-n_episodes // n_copies)
        parts = [run_episodes(env, policy, max_steps) for _ in range(rounds)]
    whole = join(parts)
    return Episodes(
        {key: value[:n_episodes] for key, value in whole.totals.items()},
        {key: value[:n_episodes] for key, value in whole.group_return.items()},
    )


def _environment(task_or_env: Task[Any, Any] | EnvBase, n_episodes: int) -> EnvBase:
    if isinstance(task_or_env, EnvBase):
        return task_or_env
    return VectorEnv(task_or_env, min(n_episodes, MAX_COPIES))
