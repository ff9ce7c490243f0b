"""A replay buffer of whole episodes, for recurrent value learning and multi-step returns."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from marl_td.collect.window_replay import WindowReplayBuffer


class EpisodeReplayBuffer(WindowReplayBuffer):
    """Collects ``[n_envs, T]`` batches of consecutive steps, keeps and samples whole episodes.

    A stored item is one window as long as the longest episode: ``[max_length]``, its last step repeated as
    padding, with ``"step_mask"`` ``[max_length, 1]`` true on real steps. What was not seen from its first
    step is dropped.

    Args:
        max_length: length of the longest possible episode in steps: the time limit.
        kwargs: as for :class:`WindowReplayBuffer`; sizes count episodes.

    Raises:
        ValueError: if ``max_length`` is below 1; on :meth:`extend`, if an episode is longer than
            ``max_length`` or the batch is not ``[n_envs, T]`` with the same ``n_envs`` as before.
        RuntimeError: on :meth:`sample`, if no whole episode has been collected yet.
    """

    def __init__(self, *, max_length: int, **kwargs: Any) -> None:
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1 step; got {max_length}.")
        super().__init__(length=max_length, stride=max_length, **kwargs)

    def _check(self, position: Tensor, done: Tensor) -> None:
        """Refuse an episode above the limit, whether it ended or goes on."""
        open_end = ~done[:, -1] & (position[:, -1] >= 0)
        longest = int(max((position + 1).max(), (position[:, -1] + 1 + open_end).max()))
        if longest > self.length:
            raise ValueError(
                f"an episode takes {longest} steps or more, above the limit max_length="
                f"{self.length}. Set it to the environment's real time limit, and make sure "
                "that the environment says 'done' when it ends."
            )

    def _nothing_yet(self, n_envs: int, n_steps: int) -> str:
        """Why there is nothing to sample, and what to do."""
        return (
            f"no whole episode to learn from yet: {n_envs} environments made {n_steps} steps "
            f"each, and an episode may take {self.length}. Collect at least "
            f"{max(n_envs, 1) * self.length} frames before the first update (BenchMARL: "
            "experiment.off_policy_collected_frames_per_batch), use fewer environments, or "
            "shorten the task."
        )
