"""Whole episodes of a policy in a batched task, many steps as one compiled graph."""

from __future__ import annotations

import torch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from marl_td.collect.chunk import Act
from marl_td.collect.collector import CompiledCollector
from marl_td.collect.episodes import Episodes, as_episodes, ended, quantities

LONGEST_CHUNK = 256
"""Steps of one call: beyond that a call's cost is spread thin, and what the steps keep grows."""


class CompiledEpisodes:
    """What :func:`~marl_td.collect.episodes.run_episodes` returns, by the compiled rollout.

    The same distribution of episodes, not the same ones: a chunk's random numbers are drawn together.

    Args:
        env: a batched task's environment, as :class:`~marl_td.collect.collector.CompiledCollector` takes it.
        policy: writes the actions.
        max_steps: the longest an episode can take, at least 1.
        exploration: how the policy acts.
        backend: of ``torch.compile``.

    Raises:
        NotCompilable: for an environment or transform that cannot be compiled.
    """

    def __init__(
        self,
        env: EnvBase,
        policy: Act,
        max_steps: int,
        exploration: ExplorationType,
        backend: str = "inductor",
    ) -> None:
        self.n_chunks = -(-max_steps // LONGEST_CHUNK)
        n_steps = -(-max_steps // self.n_chunks)
        n_frames = n_steps * env.batch_size.numel()
        self.collector = CompiledCollector(
            env,
            policy,
            frames_per_batch=n_frames,
            n_starts=1,  # what comes after the first episode does not count
            backend=backend,
            what="evaluation",
        )
        self.collector.exploration = exploration
        self.max_steps = max_steps

    @property
    def compile_seconds(self) -> float:
        """What compiling took so far."""
        return self.collector.compile_seconds

    @torch.no_grad()
    def run(self) -> Episodes:
        """One fresh episode in every copy, from the environment's own random stream."""
        self.collector.reset()
        env = self.collector.env
        sums: dict[NestedKey, Tensor] = {}
        active: Tensor | None = None
        left = self.max_steps
        for _ in range(self.n_chunks):
            after = self.collector.rollout()["next"][:, :left]
            left -= after.shape[1]
            done = ended(env, after)
            first = done.cumsum(1) - done.long() == 0
            if active is not None:
                first &= active.unsqueeze(1)
            for key, value in quantities(env, after).items():
                total = torch.where(first, value.double(), 0.0).sum(1)
                sums[key] = sums[key] + total if key in sums else total
            active = first[:, -1] & ~done[:, -1]
            if not bool(active.any()):
                break
        return as_episodes(sums)
