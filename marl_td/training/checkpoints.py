"""The checkpoints of a run: written whole, rotated after the new one is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from marl_td.training.files import save_atomic, sweep


class Checkpoints:
    """``checkpoint_<frames>.pt`` files in a folder.

    Args:
        folder: created on the first save.
        keep: number of newest files kept, older ones found on the disk included; None keeps all.

    Raises:
        ValueError: if ``keep`` is below 1.
    """

    def __init__(self, folder: Path, keep: int | None) -> None:
        if keep is not None and keep < 1:
            raise ValueError(
                f"experiment.keep_checkpoints_num must be at least 1, or null to keep all; got {keep}."
            )
        self.folder = folder
        self.keep = keep
        if folder.exists():
            sweep(folder)

    def files(self) -> list[Path]:
        """The files on the disk, oldest first."""
        return sorted(self.folder.glob("checkpoint_*.pt"), key=lambda path: _frames(path))

    def save(self, state: Any, frames: int) -> Path:
        """Write ``state``, and only then remove what is one too many."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"checkpoint_{frames}.pt"
        save_atomic(path, state)
        if self.keep is not None:
            others = [file for file in self.files() if file != path]
            for old in others[: max(0, len(others) + 1 - self.keep)]:
                old.unlink(missing_ok=True)
        return path


def load_checkpoint(path: Path, map_location: Any = None) -> dict[str, Any]:
    """The state in a checkpoint file; only tensors, numbers and containers are accepted."""
    state: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    return state


def _frames(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint_"))
