"""Replay buffers in checkpoints: rows are written once, and successive checkpoints share their files.

A buffer may be far larger than everything else. A checkpoint adds one file with the rows that came since
the last one, and links the files that are still needed: what is written grows with the frames, not with the
number of checkpoints, and every checkpoint's folder is whole by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from marl_td.collect.nested import entries_of, from_snapshot, nest, shapes_of, snapshot_of
from marl_td.collect.window_replay import WindowReplayBuffer

FILE_BYTES = 64 * 1024 * 1024
"""Size of a file, about: one is in memory twice while it is written."""
SMALL_FILES = 32
"""Files that a checkpoint has beside full ones; one more, and the whole buffer is written anew."""


class Rows(NamedTuple):
    """A file with the rows that were written as number ``start`` to ``stop - 1`` since the run began."""

    file: str
    start: int
    stop: int


class ReplayFiles:
    """The rows of one buffer in files.

    Args:
        buffer: TorchRL's, with a storage of one dimension and a writer that goes round.
        name: of the files.
    """

    def __init__(self, buffer: Any, name: str) -> None:
        self.buffer = buffer
        self.name = name
        self.rows: list[Rows] = []

    def plan(self, may_share: bool) -> tuple[list[Rows], list[Rows]]:
        """The files of the last checkpoint that are still needed, and the new ones.

        Args:
            may_share: whether the last checkpoint's files are there.
        """
        written = int(self.buffer.writer._write_count)
        oldest = written - self._stored()
        n_rows = self._rows_per_file()
        kept = [rows for rows in self.rows if rows.stop > oldest] if may_share else []
        most = SMALL_FILES + -(-self._stored() // n_rows)
        if len(kept) >= most or (kept and kept[0].start > oldest):
            kept = []
        first = kept[-1].stop if kept else oldest
        new = []
        for start in range(first, written, n_rows):
            stop = min(start + n_rows, written)
            new.append(Rows(f"replay_{self.name}_{start}_{stop}.safetensors", start, stop))
        return kept, new

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """What a file holds: every entry's rows, by its number in :meth:`snapshot`."""
        place = torch.arange(rows.start, rows.stop) % self.capacity
        stored = self._storage()
        found = entries_of(stored[place.to(stored.device)] if stored.device else stored[place])
        return {str(i): value for i, value in enumerate(found.values())}

    def snapshot(self, rows: list[Rows]) -> dict[str, Any]:
        """All but the rows: what the files' entries are, the writer, the sampler, open episodes."""
        buffer = self.buffer
        state: dict[str, Any] = {
            "rows": [list(item) for item in rows],
            "write_count": int(buffer.writer._write_count),
            "cursor": int(buffer.writer._cursor),
            "length": self._stored(),
            "capacity": self.capacity,
            "sampler": dict(buffer.sampler.state_dict() or {}),
        }
        if rows:
            stored = self._storage()
            # One row says what the entries are, and in which order of memory they are kept.
            state["like"] = snapshot_of(stored[:1])
        if isinstance(buffer, WindowReplayBuffer):
            state["open"] = None if buffer._open is None else snapshot_of(buffer._open)
            state["seen"] = list(buffer._seen)
        return state

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether what :meth:`snapshot` gave is of a buffer of this size."""
        return bool(state["capacity"] == self.capacity)

    def restore(self, state: dict[str, Any], read: Callable[[str], dict[str, Tensor]]) -> None:
        """Fill the buffer as it was.

        Args:
            state: what :meth:`snapshot` gave.
            read: gives the tensors of a file.

        Raises:
            ValueError: if it was a buffer of another size.
        """
        buffer = self.buffer
        if not self.fits(state):
            raise ValueError(
                f"the saved replay buffer '{self.name}' holds {state['capacity']} items, this run's "
                f"{self.capacity}; keep the memory size (experiment.off_policy_memory_size)."
            )
        self.rows = [Rows(*item) for item in state["rows"]]
        if self.rows:
            like = from_snapshot(state["like"], "cpu")
            buffer.storage._init(like[0])
            for rows in self.rows:
                self._write(rows, like, read(rows.file))
        buffer.storage._len = state["length"]
        buffer.writer._cursor = state["cursor"]
        buffer.writer._write_count = state["write_count"]
        if state["sampler"]:
            buffer.sampler.load_state_dict(state["sampler"])
        if isinstance(buffer, WindowReplayBuffer):
            held = state["open"]
            device = buffer.storage.device
            buffer._open = None if held is None else from_snapshot(held, device)
            buffer._seen = tuple(state["seen"])

    def _write(self, rows: Rows, like: TensorDict, tensors: dict[str, Tensor]) -> None:
        """Put the rows of a file into the storage; newer files overwrite what is no longer there."""
        entries = {key: tensors[str(i)] for i, key in enumerate(entries_of(like))}
        shape = (rows.stop - rows.start, *like.batch_size[1:])
        data = nest(entries, shapes_of(like), shape, "cpu")
        storage = self.buffer.storage
        place = torch.arange(rows.start, rows.stop) % self.capacity
        storage.set(place, data.to(storage.device))

    def _rows_per_file(self) -> int:
        if not self._stored():
            return 1
        values = entries_of(self._storage()).values()
        size = sum(value[0].numel() * value.element_size() for value in values)
        return max(1, FILE_BYTES // max(1, size))

    def _storage(self) -> Any:
        return self.buffer.storage._storage

    def _stored(self) -> int:
        return len(self.buffer.storage)

    @property
    def capacity(self) -> int:
        """Items that the buffer has places for."""
        return int(self.buffer.storage.max_size)
