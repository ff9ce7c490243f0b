"""``run.log``: what happened to a run beside training, a line each."""

from __future__ import annotations

import logging
from pathlib import Path

HISTORY_FILE = "run.log"
_log = logging.getLogger("marl_td")


class History:
    """Says things on the log ``marl_td`` (stderr, unless configured) and appends them to a file.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HISTORY_FILE

    def say(self, frames: int, text: str) -> None:
        """Add a line; a full disk does not stop it from being said."""
        _log.warning("%s", text)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{frames} frames: {text}\n")
        except OSError:
            return
