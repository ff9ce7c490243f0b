"""A replay buffer of windows of episodes, for recurrent value learning and multi-step returns."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import TensorDictReplayBuffer

POSITION = "episode_step"
"""Entry of the carried steps: which step of its episode it is; -1 where the first one was never seen."""


class WindowReplayBuffer(TensorDictReplayBuffer):
    """Collects ``[n_envs, T]`` batches of consecutive steps, keeps and samples windows of episodes.

    Windows are cut across batches: what is still needed of an open episode is carried. The k-th window of an
    episode learns from the steps ``k * stride`` to ``k * stride + length - 1``, and is stored as soon as the
    last one is there or the episode ends. A stored item ``[burn_in + length]`` holds one window:

    * behind an episode's end its last step is repeated, and ``"step_mask"`` is false;
    * the ``burn_in`` steps before the window come first, for networks with memory (Kapturowski et al. 2019,
      https://openreview.net/forum?id=r1lyTjAqYX); before an episode's beginning its first step is repeated,
      ``"step_mask"`` false, and the ``init_key`` clears the memory on the real one.

    ``"step_mask"`` is ``[burn_in + length, 1]``. So an item never holds steps of two episodes, and with the
    network's hidden state among its entries nothing else is needed to run the network over it. Steps of an
    episode that was not seen from its first one are dropped.

    Args:
        length: steps of a window that are learnt from, at least 1.
        burn_in: steps before them.
        stride: steps between the beginnings of two windows, in [1, ``length``].
        init_key: bool ``[n_envs, T, 1]``, true on the first step of an episode.
        done_key: bool ``[n_envs, T, 1]``, true on the last step of an episode.
        kwargs: as for TorchRL's ``TensorDictReplayBuffer``; sizes count items.

    Raises:
        ValueError: if a length is out of range; on :meth:`extend`, if the batch is not ``[n_envs, T]`` with
            the same ``n_envs`` as before.
        RuntimeError: on :meth:`sample`, if nothing is stored yet.
    """

    def __init__(
        self,
        *,
        length: int,
        burn_in: int = 0,
        stride: int,
        init_key: NestedKey = "is_init",
        done_key: NestedKey = ("next", "done"),
        **kwargs: Any,
    ) -> None:
        if length < 1 or burn_in < 0 or not 1 <= stride <= length:
            raise ValueError(
                "length must be at least 1 step, burn_in at least 0 and stride in [1, length]; got "
                f"length={length}, burn_in={burn_in} and stride={stride}."
            )
        super().__init__(**kwargs)
        self.length = length
        self.burn_in = burn_in
        self.stride = stride
        self.init_key = init_key
        self.done_key = done_key
        self._open: TensorDictBase | None = None
        self._seen = (0, 0)

    def extend(self, tensordicts: TensorDictBase, *, update_priority: bool | None = None) -> Tensor:
        """Store the windows that this batch completes, at most as many of the last as there are places.

        Returns:
            Their places, ``[n_windows]``.
        """
        history = self._with_open(tensordicts)
        n_columns, n_new = history.shape[1], tensordicts.shape[1]
        position = history.get(POSITION).squeeze(-1)
        done = history.get(self.done_key).reshape(history.shape)
        self._check(position, done)
        begin = self._begin(position)
        full = position == begin + self.length - 1
        new = torch.arange(n_columns, device=history.device) >= n_columns - n_new
        env, last = ((full | done) & (position >= 0) & new).nonzero(as_tuple=True)
        # Two items for one place would be written by several threads in any order.
        env, last = env[-self.storage.max_size :], last[-self.storage.max_size :]
        n_kept = self._n_open(position[:, -1], done[:, -1])
        items = self._cut(history, env, last, begin[env, last])
        self._open = history[:, n_columns - int(n_kept.max()) :].clone()
        self._seen = (history.shape[0], self._seen[1] + n_new)
        if len(env) == 0:
            return torch.zeros(0, dtype=torch.long)
        return super().extend(items, update_priority=update_priority)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Windows with what comes before them, ``[batch_size, burn_in + length]``."""
        self.check_filled()
        return super().sample(*args, **kwargs)

    def check_filled(self) -> None:
        """Refuse to be sampled as long as there is nothing.

        Raises:
            RuntimeError: then; it says what to do.
        """
        if len(self) == 0:
            raise RuntimeError(self._nothing_yet(*self._seen))

    def state_dict(self) -> dict[str, Any]:
        """The buffer's state, with what is carried of the episodes that have not ended yet."""
        state: dict[str, Any] = super().state_dict()
        state["_open"] = None if self._open is None else self._open.state_dict()
        state["_seen"] = list(self._seen)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Where the environments were not restored too, their first steps carry ``init_key`` and what was
        carried of their episodes is dropped.
        """
        super().load_state_dict(state_dict)
        saved = state_dict["_open"]
        self._open = (
            None if saved is None else TensorDict({}, []).load_state_dict(saved, strict=False)
        )
        self._seen = tuple(state_dict["_seen"])

    # ------------------------------------------------------------------ parts
    def _with_open(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch behind what is carried, ``[n_envs, n_old + T]``, each step with its position."""
        if batch.ndim != 2:
            raise ValueError(
                f"sequences are cut from batches [n_envs, T]; got {tuple(batch.shape)}."
            )
        carried = self._open
        if carried is None:
            first = torch.full((batch.shape[0],), -1, device=batch.device)
        elif batch.shape[0] != carried.shape[0]:
            raise ValueError(
                f"this buffer carries open episodes of {carried.shape[0]} environments; got a "
                f"batch of {batch.shape[0]}. Use one buffer per collector."
            )
        else:
            before, ended = carried.get(POSITION)[:, -1, 0], carried.get(self.done_key)[:, -1, 0]
            first = torch.where(ended, 0, torch.where(before < 0, -1, before + 1))
        batch = batch.copy().set(POSITION, self._positions(batch, first).unsqueeze(-1))
        return batch if carried is None else torch.cat([carried, batch], dim=1)

    def _positions(self, batch: TensorDictBase, first: Tensor) -> Tensor:
        """Which step of its episode each one is, ``[n_envs, T]``; ``first`` is that of the first column."""
        column = torch.arange(batch.shape[1], device=batch.device)
        init = batch.get(self.init_key).reshape(batch.shape).clone()
        init[:, 1:] |= batch.get(self.done_key).reshape(batch.shape)[:, :-1]
        start = torch.where(init, column, -1).cummax(dim=1).values
        going_on = torch.where(first < 0, -1, first + column.unsqueeze(1)).T
        return torch.where(start >= 0, column - start, going_on)

    def _begin(self, position: Tensor) -> Tensor:
        """Where the window begins that ends with the step at ``position``, if its episode ends there."""
        late = (position + 1 - self.length).clamp(min=0)
        return (late + self.stride - 1).div(self.stride, rounding_mode="floor") * self.stride

    def _n_open(self, position: Tensor, done: Tensor) -> Tensor:
        """How many of the last steps the next windows need, ``[n_envs]``; one to go on from in any case."""
        needed = position + 1 - (self._begin(position + 1) - self.burn_in).clamp(min=0)
        return torch.where(done, 1, needed.clamp(min=1))

    def _cut(
        self, history: TensorDictBase, env: Tensor, last: Tensor, begin: Tensor
    ) -> TensorDictBase:
        """Items ``[n_windows, burn_in + length]`` whose windows begin at ``begin`` in their episodes."""
        start = (last - history.get(POSITION)[env, last, 0]).unsqueeze(1)  # may be gone already
        last = last.unsqueeze(1)
        offset = torch.arange(-self.burn_in, self.length, device=history.device)
        step = start + begin.unsqueeze(1) + offset
        real = (step >= start) & (step <= last)
        step = step.clamp(min=start, max=last)
        items = history.exclude(POSITION)[env.unsqueeze(1), step]
        items.set(self.init_key, (step == start).unsqueeze(-1))
        return items.set("step_mask", real.unsqueeze(-1))

    def _check(self, position: Tensor, done: Tensor) -> None:
        """Nothing to object to: an episode may be as long as it likes."""

    def _nothing_yet(self, n_envs: int, n_steps: int) -> str:
        """Why there is nothing to sample, and what to do."""
        return (
            f"no window to learn from yet: {n_envs} environments made {n_steps} steps each, and a window "
            f"takes {self.length}. Collect at least {max(n_envs, 1) * self.length} frames before the first "
            "update (BenchMARL: experiment.off_policy_collected_frames_per_batch), or use fewer environments "
            "or shorter windows."
        )
