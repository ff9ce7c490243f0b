"""Prioritised experience replay: a sampler for TorchRL's replay buffers, made of tensor operations only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchrl.data.replay_buffers import PrioritizedSampler, Storage

from marl_td.collect.sum_tree import SumTree

SAVED = (
    "_max_capacity",
    "_alpha",
    "_beta",
    "_eps",
    "beta_end",
    "n_anneal",
    "_n_drawn",
    "_is_empty",
)
"""Numbers that a saved sampler needs to go on, beside its priorities."""
SAMPLER_FILE = "sampler.pt"
NOT_A_PRIORITY = (
    "Priorities are absolute TD errors, finite and at least 0; one that is not finite says that learning "
    "diverged: lower the learning rate."
)


class ProportionalSampler(PrioritizedSampler):
    """Draws an item in proportion to a power of its priority, and says how much to weigh it.

        P(i) = p_i^alpha / sum_j p_j^alpha,    p_i = |td_error_i| + eps
        w_i  = (N P(i))^-beta / max_j w_j

    (Schaul et al. 2016, https://arxiv.org/abs/1511.05952, eq. 1 and section 3.4.) It stands in for TorchRL's
    ``PrioritizedSampler``, whose compiled tree does not load beside torch 2.13, in any of TorchRL's replay
    buffers, on the CPU and on a GPU, and never waits for the GPU between two writes to the buffer.

    * The largest weight is that of the batch. (TorchRL looks for it in the whole buffer, where one item
      without an error makes all weights tiny.)
    * A new item, also one that overwrites an old one, gets the largest priority that was ever given (1 before
      the first), so that it is soon replayed.
    * ``beta`` moves linearly with the number of batches drawn. A value set by hand (``sampler.beta = 0.7``,
      or by TorchRL's schedulers) stays.
    * ``state_dict`` holds everything: a loaded sampler goes on as the saved one would have.

    Args:
        max_capacity: size of the storage.
        alpha: how much priorities matter, >= 0; 0 draws uniformly.
        beta: how much of the bias the weights undo, in [0, 1], at the start.
        eps: added to every priority, in units of the TD error, > 0.
        beta_end: ``beta`` after ``n_anneal`` batches, in [0, 1].
        n_anneal: batches drawn until then; 0 keeps ``beta`` as it is.
        stratified: draw one item from each of ``batch_size`` equal parts of the total priority (the paper's
            appendix B.2.1), which makes batches more alike; if false, items are drawn independently.
        device: of the priorities; give the storage's.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self,
        max_capacity: int,
        alpha: float,
        beta: float,
        eps: float = 1e-6,
        *,
        beta_end: float = 1.0,
        n_anneal: int = 0,
        stratified: bool = True,
        device: Any = "cpu",
    ) -> None:
        # TorchRL's own constructor only makes its compiled trees and warns that they are missing.
        _check_arguments(alpha, beta, eps, beta_end, n_anneal)
        self._max_capacity = max_capacity
        self._alpha = alpha
        self._beta = beta
        self._eps = eps
        self.beta_end = beta_end
        self.n_anneal = n_anneal
        self.stratified = stratified
        self.device = torch.device(device)
        self.reduction = "max"  # of what a buffer is given per item; our losses give one number
        self._max_priority_within_buffer = False
        self._init()

    def _init(self) -> None:
        # One number more than there are items: priorities of what was not stored are written there.
        self._tree = SumTree(self._max_capacity + 1, self.device)
        self._highest: Tensor | None = None
        self._bad = torch.zeros((), dtype=torch.bool, device=self.device)
        self._n_drawn = 0
        self._is_empty = True

    # ------------------------------------------------------------------ reading
    @property
    def beta(self) -> float:
        """The exponent of the next batch's weights."""
        if self.n_anneal == 0:
            return self._beta
        done = min(1.0, self._n_drawn / self.n_anneal)
        return self._beta + done * (self.beta_end - self._beta)

    @beta.setter
    def beta(self, value: float) -> None:
        self._beta, self.n_anneal = value, 0

    @property
    def default_priority(self) -> float:
        """The priority of a new item."""
        return 1.0 if self._highest is None else float(self._highest)

    def priorities(self) -> Tensor:
        """``p_i^alpha`` of every place of the storage, ``[max_capacity]``; 0 where nothing is."""
        return self._tree.numbers[: self._max_capacity]

    @torch.no_grad()
    def sample(self, storage: Storage, batch_size: int) -> tuple[Any, dict[str, Tensor]]:
        """Indices ``[batch_size]`` and their ``"priority_weight"`` ``[batch_size]``, at most 1.

        Raises:
            RuntimeError: if nothing is stored, or it was put into the storage past the buffer.
        """
        if len(storage) == 0:
            raise RuntimeError("the replay buffer is empty: extend it before sampling.")
        if self._is_empty:
            raise RuntimeError(
                f"the storage holds {len(storage)} items whose priorities the sampler was never "
                "told; fill it through the replay buffer's `extend`, or call `mark_update`."
            )
        device = self.device if self._rng is None else self._rng.device
        fraction = torch.rand(batch_size, dtype=torch.float64, device=device, generator=self._rng)
        fraction = fraction.to(self.device)
        if self.stratified:
            part = torch.arange(batch_size, dtype=torch.float64, device=self.device)
            fraction = (part + fraction) / batch_size
        index, mass = self._tree.find(fraction)
        weight = (mass / mass.min()).pow(-self.beta).float()
        self._n_drawn += 1
        where = torch.unravel_index(index, storage.shape) if storage.ndim > 1 else index
        return where, {"priority_weight": weight}

    # ------------------------------------------------------------------ writing
    def add(self, index: Any) -> None:
        """Called by the buffer after it has stored an item."""
        self._raise_if_bad()

    def extend(self, index: Any) -> None:
        """Called by the buffer after it has stored items."""
        self._raise_if_bad()

    @torch.no_grad()
    def mark_update(self, index: int | Tensor, *, storage: Storage | None = None) -> None:
        """Give items the priority of new ones."""
        index = self._flat(index, storage)
        highest = index.new_ones((), dtype=torch.float64)
        self._write(index, (highest if self._highest is None else self._highest).expand_as(index))

    @torch.no_grad()
    def update_priority(
        self, index: int | Tensor, priority: float | Tensor, *, storage: Storage | None = None
    ) -> None:
        """Give the items at ``index`` ``[k]`` new priorities ``[k]``, or one for all, without ``eps``.

        An index below 0 is ignored (TorchRL's writers mark so what they did not store). Where one comes
        twice the largest priority counts.

        Raises:
            ValueError: if a priority is NaN, infinite or below 0. On a GPU that would have to wait for its
                answer; there the item gets the priority of a new one, and the next write to the buffer
                or :meth:`state_dict` raises.
            IndexError: if an index lies beyond ``max_capacity`` (on the CPU).
            RuntimeError: if there are as many priorities as neither 1 nor the indices.
        """
        index = self._flat(index, storage)
        priority = torch.as_tensor(priority, dtype=torch.float64, device=self.device)
        if priority.numel() not in (1, index.numel()):
            raise RuntimeError(
                f"there must be one priority, or one per item: got {tuple(priority.shape)} for "
                f"{index.numel()} items."
            )
        priority = self._checked(index, priority.reshape(-1).expand_as(index))
        highest = torch.where(index < 0, 0.0, priority).max()
        self._highest = highest if self._highest is None else torch.maximum(self._highest, highest)
        self._write(index, priority)

    def _write(self, index: Tensor, priority: Tensor) -> None:
        self._is_empty = False
        stored = index >= 0
        mass = torch.where(stored, (priority + self._eps) ** self._alpha, 0.0)
        self._tree.set(torch.where(stored, index, self._max_capacity), mass)

    def _flat(self, index: Any, storage: Storage | None) -> Tensor:
        """Places ``[k]`` in the storage as one row."""
        if isinstance(index, tuple):
            index = torch.stack(index, -1)
        index = torch.as_tensor(index, dtype=torch.long, device=self.device)
        if index.ndim < 2:
            return index.reshape(-1)
        if storage is None:
            raise RuntimeError(
                f"indices {tuple(index.shape)} of a storage of several dimensions: give `storage`."
            )
        flat = index[..., 0]
        for dim, size in enumerate(storage.shape[1:], start=1):
            flat = flat * size + index[..., dim]
        return flat.reshape(-1)

    def _checked(self, index: Tensor, priority: Tensor) -> Tensor:
        bad = ~((priority >= 0.0) & (priority < torch.inf))
        if self.device.type != "cpu":
            self._bad |= bad.any()
            return torch.where(bad, 1.0 if self._highest is None else self._highest, priority)
        if bool((bad | (index >= self._max_capacity)).any()):
            self._refuse(index, priority, bad)
        return priority

    def _refuse(self, index: Tensor, priority: Tensor, bad: Tensor) -> None:
        if not bool(bad.any()):
            raise IndexError(
                f"item {int(index.max())} is beyond the sampler's capacity of {self._max_capacity}; "
                "give it the size of the storage."
            )
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"the priority of item {int(index[first])} is {float(priority[first])}. {NOT_A_PRIORITY}"
        )

    def _raise_if_bad(self) -> None:
        if self.device.type != "cpu" and bool(self._bad):
            raise ValueError(
                "a priority was NaN, infinite or below 0 since the last write to the buffer. "
                + NOT_A_PRIORITY
            )

    # ------------------------------------------------------------------ saving
    def state_dict(self) -> dict[str, Any]:
        """Priorities, sums and counters: numbers and one tensor."""
        self._raise_if_bad()
        highest = None if self._highest is None else float(self._highest)
        numbers = {name: getattr(self, name) for name in SAVED}
        return {**numbers, "_highest": highest, "_tree": self._tree.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as the sampler that was saved.

        Raises:
            ValueError: if it was of another capacity.
        """
        if state_dict["_max_capacity"] != self._max_capacity:
            raise ValueError(
                f"the saved sampler holds {state_dict['_max_capacity']} items, this one "
                f"{self._max_capacity}; make it with the same `max_capacity`."
            )
        for name in SAVED:
            setattr(self, name, state_dict[name])
        self._tree.load(state_dict["_tree"])
        saved = state_dict["_highest"]
        self._highest = None if saved is None else self._bad.new_tensor(saved, dtype=torch.float64)

    def dumps(self, path: Any) -> None:
        """Save into the folder ``path``."""
        Path(path).mkdir(exist_ok=True)
        torch.save(self.state_dict(), Path(path) / SAMPLER_FILE)

    def loads(self, path: Any) -> None:
        """Load what :meth:`dumps` saved; raises as :meth:`load_state_dict`."""
        file = Path(path) / SAMPLER_FILE
        self.load_state_dict(torch.load(file, map_location=self.device, weights_only=True))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(alpha={self._alpha}, beta={self.beta}, eps={self._eps}, "
            f"stratified={self.stratified})"
        )


def _check_arguments(alpha: float, beta: float, eps: float, beta_end: float, n_anneal: int) -> None:
    if not alpha >= 0.0:
        raise ValueError(f"alpha must be at least 0; got {alpha}.")
    for name, value in {"beta": beta, "beta_end": beta_end}.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1]; got {value}.")
    if not eps > 0.0:
        raise ValueError(
            f"eps must be above 0, or items without an error are never seen again; got {eps}."
        )
    if n_anneal < 0:
        raise ValueError(f"n_anneal must be at least 0 batches; got {n_anneal}.")
