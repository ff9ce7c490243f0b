"""A replay buffer of whole episodes, for recurrent value learning and multi-step returns."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import TensorDictReplayBuffer


class EpisodeReplayBuffer(TensorDictReplayBuffer):
    """Collects ``[n_envs, T]`` batches of consecutive steps, keeps and samples whole episodes.

    An episode may begin in one batch and end in a later one: its beginning is carried. A stored
    item is one episode ``[max_length]`` whose last step is repeated as padding, with ``"step_mask"``
    ``[max_length, 1]`` true on real steps. What was not seen from its first step is dropped.

    Args:
        max_length: length of the longest possible episode in steps: the time limit.
        init_key: bool ``[n_envs, T, 1]``, true on the first step of an episode.
        done_key: bool ``[n_envs, T, 1]``, true on the last step of an episode.
        kwargs: as for TorchRL's ``TensorDictReplayBuffer``; sizes count episodes.

    Raises:
        ValueError: if ``max_length`` is below 1; on :meth:`extend`, if an episode is longer than
            ``max_length`` or the batch is not ``[n_envs, T]`` with the same ``n_envs`` as before.
        RuntimeError: on :meth:`sample`, if no whole episode has been collected yet.
    """

    def __init__(
        self,
        *,
        max_length: int,
        init_key: NestedKey = "is_init",
        done_key: NestedKey = ("next", "done"),
        **kwargs: Any,
    ) -> None:
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1 step; got {max_length}.")
        super().__init__(**kwargs)
        self.max_length = max_length
        self.init_key = init_key
        self.done_key = done_key
        self._open: TensorDictBase | None = None
        self._seen = (0, 0)

    def extend(self, tensordicts: TensorDictBase, *, update_priority: bool | None = None) -> Tensor:
        """Store the episodes that end in this batch; returns their places, ``[n_episodes]``."""
        history = self._with_open(tensordicts)
        n_old = history.shape[1] - tensordicts.shape[1]
        column = torch.arange(history.shape[1], device=history.device)
        done = history.get(self.done_key).reshape(history.shape)
        init = history.get(self.init_key).reshape(history.shape).clone()
        init[:, 1:] |= done[:, :-1]
        # First step of each step's episode; -1 where that was never seen.
        start = torch.where(init, column, -1).cummax(dim=1).values
        n_open = torch.where(done | (start < 0), 0, column - start + 1)[:, -1]
        ended = done & (start >= 0) & (column >= n_old)
        env, last = ended.nonzero(as_tuple=True)
        first = start[env, last]
        self._check_length(torch.cat([n_open + 1, last - first + 1]))
        self._open = history[:, history.shape[1] - int(n_open.max()) :].clone()
        self._seen = (history.shape[0], self._seen[1] + tensordicts.shape[1])
        if len(env) == 0:
            return torch.zeros(0, dtype=torch.long)
        episodes = self._padded(history, env, first, last)
        return super().extend(episodes, update_priority=update_priority)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Whole episodes, ``[batch_size, max_length]``."""
        if len(self) == 0:
            n_envs, n_steps = self._seen
            raise RuntimeError(
                f"no whole episode to learn from yet: {n_envs} environments made {n_steps} steps "
                f"each, and an episode may take {self.max_length}. Collect at least "
                f"{max(n_envs, 1) * self.max_length} frames before the first update (BenchMARL: "
                "experiment.off_policy_collected_frames_per_batch), use fewer environments, or "
                "shorten the task."
            )
        return super().sample(*args, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """The buffer's state, with the episodes that have not ended yet."""
        state: dict[str, Any] = super().state_dict()
        state["_open"] = None if self._open is None else self._open.state_dict()
        state["_seen"] = list(self._seen)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Where the environments were not restored too, their first steps carry ``init_key`` and the
        carried beginnings are dropped.
        """
        super().load_state_dict(state_dict)
        saved = state_dict["_open"]
        self._open = (
            None if saved is None else TensorDict({}, []).load_state_dict(saved, strict=False)
        )
        self._seen = tuple(state_dict["_seen"])

    # ------------------------------------------------------------------ parts
    def _with_open(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch behind the open episodes' columns, ``[n_envs, n_old + T]``."""
        if batch.ndim != 2:
            raise ValueError(
                f"episodes are assembled from batches [n_envs, T]; got {tuple(batch.shape)}."
            )
        if self._open is None:
            return batch
        if batch.shape[0] != self._open.shape[0]:
            raise ValueError(
                f"this buffer carries open episodes of {self._open.shape[0]} environments; got a "
                f"batch of {batch.shape[0]}. Use one buffer per collector."
            )
        return torch.cat([self._open, batch], dim=1)

    def _check_length(self, length: Tensor) -> None:
        longest = int(length.max())
        if longest > self.max_length:
            raise ValueError(
                f"an episode takes {longest} steps or more, above the limit max_length="
                f"{self.max_length}. Set it to the environment's real time limit, and make sure "
                "that the environment says 'done' when it ends."
            )

    def _padded(
        self, history: TensorDictBase, env: Tensor, first: Tensor, last: Tensor
    ) -> TensorDictBase:
        """Episodes ``[n_episodes, max_length]`` from ``first`` to ``last`` step of ``env``."""
        offset = torch.arange(self.max_length, device=history.device)
        step = first.unsqueeze(1) + offset
        real = step <= last.unsqueeze(1)
        episodes = history[env.unsqueeze(1), torch.minimum(step, last.unsqueeze(1))]
        return episodes.set("step_mask", real.unsqueeze(-1))
