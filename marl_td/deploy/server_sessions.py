"""Sessions: the server keeps the memory of recurrent policies between requests. Standard library only."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from marl_td.deploy.server_settings import Refused


class Sessions:
    """A bounded number of sessions, each of which ends some time after its last use.

    Args:
        most: how many at a time.
        timeout: seconds after the last use.
        clock: tells the time in seconds.
    """

    def __init__(
        self, most: int, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self.timeout = timeout
        self.clock = clock
        self._known: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()

    def __len__(self) -> int:
        self._drop_expired()
        return len(self._known)

    def open(self) -> str:
        """A new session's name, which nobody can guess.

        Raises:
            Refused: if there are too many.
        """
        if len(self) >= self.most:
            raise Refused(
                429,
                f"there are {self.most} sessions already; end one (DELETE /sessions/NAME), or wait for one "
                f"to end {self.timeout:g} s after its last request.",
                {"Retry-After": str(max(1, round(self.timeout)))},
            )
        name = secrets.token_urlsafe(18)
        self._known[name] = (self.clock(), {})
        return name

    def states(self, name: str) -> dict[str, Any]:
        """The state of each agent in a session, to be read and changed; the session counts as used now.

        Raises:
            Refused: if there is no such session.
        """
        self._drop_expired()
        if name not in self._known:
            raise Refused(
                404, f"there is no such session, or it ended {self.timeout:g} s after its last use."
            )
        states = self._known.pop(name)[1]
        self._known[name] = (self.clock(), states)  # the last used one comes last
        return states

    def close(self, name: str) -> None:
        """End a session.

        Raises:
            Refused: if there is no such session.
        """
        self.states(name)
        del self._known[name]

    def _drop_expired(self) -> None:
        oldest = self.clock() - self.timeout
        while self._known and next(iter(self._known.values()))[0] < oldest:
            self._known.popitem(last=False)
