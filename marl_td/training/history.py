"""``run.log``: what happened to a run beside training, a line each."""

from __future__ import annotations

import logging

from marl_td.training.checkpoints import Checkpoints

HISTORY_FILE = "run.log"
_log = logging.getLogger("marl_td")


class History:
    """Says things on the log ``marl_td`` (stderr, unless configured) and appends them to a file.

    Args:
        checkpoints: the run's.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.folder = checkpoints.folder.parent
        self.checkpoints = checkpoints

    def say(self, frames: int, text: str) -> None:
        """Add a line; a full disk does not stop it from being said."""
        _log.warning("%s", text)
        try:
            with (self.folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
                file.write(f"{frames} frames: {text}\n")
        except OSError:
            return

    def kept(self) -> str:
        """What the run could go on from."""
        saved = self.checkpoints.files()
        return f"the last checkpoint is {saved[-1]}" if saved else "no checkpoint was saved"

    def remedy(self) -> str:
        """What the run could go on from, and how."""
        how = f"; go on from it with `marl-td resume {self.folder}`"
        return self.kept() + how * bool(self.checkpoints.files())

    def cannot_write(self, what: str, error: OSError) -> str:
        """What to say if something could not be written."""
        return (
            f"{what} could not be written to '{self.folder}' ({error.strerror or error}); {self.kept()}. "
            f"Make room, then go on with `marl-td resume {self.folder}`."
        )
