"""The checkpoints of a run: which there are, which is the newest intact one, which are kept.

Old ones go only after the new one is safe on the disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from marl_td.training.checkpoint_folder import Checkpoint, Damaged, NewCheckpoint, Summary
from marl_td.training.files import TEMPORARY, flush_folder, sweep

ASIDE = ".old-"
_NAME = "checkpoint_"


class Checkpoints:
    """The checkpoints of a run, with what is kept of them.

    Args:
        folder: made on the first save.
        keep: number of newest ones that are kept, those found on the disk included; None keeps all.
        keep_best: number of best ones by score that are kept beside them.

    Raises:
        ValueError: if ``keep`` is below 1 or ``keep_best`` below 0.
    """

    def __init__(self, folder: Path, keep: int | None, keep_best: int = 0) -> None:
        if keep is not None and keep < 1:
            raise ValueError(
                f"experiment.keep_checkpoints_num must be at least 1, or null to keep all; got {keep}."
            )
        if keep_best < 0:
            raise ValueError(
                f"experiment.keep_best_checkpoints must be at least 0; got {keep_best}."
            )
        self.folder = folder
        self.keep = keep
        self.keep_best = keep_best

    def files(self) -> list[Path]:
        """The checkpoints' folders, oldest first."""
        found = [path for path in self.folder.glob(f"{_NAME}*") if path.is_dir()]
        return sorted((path for path in found if _frames(path) >= 0), key=_frames)

    def sweep(self) -> None:
        """Clear away what a killed run left half done."""
        if not self.folder.exists():
            return
        for aside in self.folder.glob(f"{ASIDE}*"):
            place = self.folder / aside.name.removeprefix(ASIDE)
            if place.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(place)
        sweep(self.folder)

    def begin(self) -> NewCheckpoint:
        """A new checkpoint to write into."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return NewCheckpoint(self.folder / f"{TEMPORARY}{os.getpid()}-checkpoint")

    def abandon(self, new: NewCheckpoint) -> None:
        """Remove what was written of it."""
        shutil.rmtree(new.folder, ignore_errors=True)

    def publish(self, new: NewCheckpoint, summary: Summary) -> Path:
        """Give a new checkpoint its name, and only then remove what is one too many.

        Checkpoints of more frames are of a future that a run went back from; they go, too.
        """
        new.finish(summary)
        path = self.folder / f"{_NAME}{summary.frames}"
        aside = self.folder / f"{ASIDE}{path.name}"
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        new.folder.rename(path)
        flush_folder(self.folder)
        shutil.rmtree(aside, ignore_errors=True)
        self._remove_surplus(path)
        return path

    def newest_intact(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint whose files are all what was written, and what is wrong with newer ones."""
        complaints = []
        for path in reversed(self.files()):
            try:
                checkpoint = Checkpoint(path)
                checkpoint.check()
            except Damaged as reason:
                complaints.append(str(reason))
            else:
                return checkpoint, complaints
        return None, complaints

    def nothing_to_resume(self, complaints: list[str]) -> str:
        """What to say if there is no intact checkpoint."""
        run = self.folder.parent
        if complaints:
            return f"no checkpoint of '{run}' is intact: " + " ".join(complaints)
        old = sorted(self.folder.glob(f"{_NAME}*.pt"))
        if old:
            return (
                f"'{old[-1]}' was written by an earlier version of marl_td, without optimisers and random "
                f"streams; a run cannot go on from it. Its policy can be used: `marl-td evaluate {run}`."
            )
        return (
            f"'{run}' has no checkpoint to go on from: it ended before the first one "
            "(experiment.checkpoint_minutes, experiment.checkpoint_interval). Train it again."
        )

    def scores(self) -> dict[Path, float]:
        """The scores of the checkpoints that have one."""
        found = {}
        for path in self.files():
            try:
                score = Checkpoint(path).summary.score
            except Damaged:
                continue
            if score is not None:
                found[path] = score
        return found

    def _remove_surplus(self, newest: Path) -> None:
        _remove(path for path in self.files() if _frames(path) > _frames(newest))
        if self.keep is None:
            return
        others = [path for path in self.files() if path != newest]
        kept: set[Path] = {newest, *others[max(0, len(others) + 1 - self.keep) :]}
        if self.keep_best:
            scores = self.scores()
            kept.update(sorted(scores, key=lambda path: scores[path])[-self.keep_best :])
        _remove(path for path in others if path not in kept)


def _remove(folders: Iterable[Path]) -> None:
    """Remove folders, each under another name first: what is half removed is not taken for a checkpoint."""
    for folder in folders:
        doomed = folder.with_name(f"{TEMPORARY}{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _frames(path: Path) -> int:
    number = path.name.removeprefix(_NAME)
    return int(number) if number.isdecimal() else -1
