"""Long evaluations of several policies, on all cores of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from marl_td.evaluation.scores import MAX_COPIES, evaluate_policy
from marl_td.tasks.base import Task
from marl_td.training.cores import usable_cores

STEPS_TO_PAY = 8_000
"""Steps of all policies together from which on other processes help: one takes some seconds to start."""

Evaluate = Callable[[str | None], Callable[[], Tensor]]
"""From a policy's name (None: the random one) to a function that waits for the scores of its episodes."""


def n_workers(task: Task[Any, Any], n_policies: int, n_episodes: int) -> int:
    """How many processes evaluate ``n_policies``: one per core, or 1 where that would not pay."""
    steps = n_policies * task.params.max_steps * -(-n_episodes // MAX_COPIES)
    if steps < STEPS_TO_PAY or task.device.type != "cpu":
        return 1
    return min(usable_cores(), n_policies)


def fewer_episodes(task: Task[Any, Any], n_episodes: int) -> dict[str, int]:
    """The policies that play fewer than ``n_episodes``, because the task says that they are slow."""
    return {name: n for name, n in task.slow_baselines.items() if n < n_episodes}


@contextmanager
def evaluations(
    task: Task[Any, Any], n_processes: int, n_episodes: int, seed: int, **options: Any
) -> Iterator[Evaluate]:
    """Evaluate the task's own policies by name, ``n_processes`` at a time.

    The scores do not depend on ``n_processes``. With 1 nothing is started.

    Args:
        task: on the CPU, if there is more than one process.
        n_processes: at least 1.
        n_episodes: episodes per policy; slow ones (``task.slow_baselines``) play fewer.
        seed: the same for every policy.
        options: of :func:`~marl_td.evaluation.scores.evaluate_policy`.
    """
    fewer = fewer_episodes(task, n_episodes)
    if n_processes == 1:
        policies = task.baselines()

        def here(name: str | None) -> Callable[[], Tensor]:
            policy = None if name is None else policies[name]
            n = fewer.get(name or "", n_episodes)
            return lambda: evaluate_policy(task, policy, n, seed, **options)

        yield here
        return
    parts = (type(task), task.params, task.continuous)
    pool = ProcessPoolExecutor(
        n_processes, get_context("spawn"), torch.set_num_threads, initargs=(1,)
    )

    def elsewhere(name: str | None) -> Callable[[], Tensor]:
        n = fewer.get(name or "", n_episodes)
        scores: Future[Tensor] = pool.submit(_scores, parts, name, n, seed, options)
        return scores.result

    try:
        yield elsewhere
    finally:
        pool.shutdown(cancel_futures=True)


def _scores(
    parts: tuple[Any, Any, bool], name: str | None, n_episodes: int, seed: int, options: Any
) -> Tensor:
    """In a process of its own: the scores of one policy."""
    make_task, params, continuous = parts
    task = make_task(params, continuous=continuous)
    policy = None if name is None else task.baselines()[name]
    return evaluate_policy(task, policy, n_episodes, seed, **options)
