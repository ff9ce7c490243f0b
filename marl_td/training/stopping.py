"""How a run ends early: asked to by a signal, or because it cannot go on."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

CAUGHT = ("SIGTERM", "SIGINT")


class RunStopped(RuntimeError):
    """A run cannot go on; the message says why, what is saved and how to go on."""


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM); a checkpoint was saved. Exit code 143, as shells say it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class StopSignals:
    """Turns SIGTERM and Ctrl-C into a wish that training fulfils when the iteration is done.

    A checkpoint is only exact between two iterations. A second Ctrl-C interrupts at once. In a thread that is
    not the main one signals are left alone.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for name in CAUGHT:
                number = signal.Signals[name]
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        print(
            f"{self.received.name}: saving a checkpoint after this iteration ...", file=sys.stderr
        )

    def raise_if_received(self) -> None:
        """End the run if a signal came.

        Raises:
            Terminated: for SIGTERM.
            KeyboardInterrupt: for Ctrl-C.
        """
        if self.received == signal.SIGTERM:
            raise Terminated
        if self.received is not None:
            raise KeyboardInterrupt
