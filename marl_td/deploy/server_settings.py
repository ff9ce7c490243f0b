"""What a server allows, and how it says no. Standard library only."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MIN_TOKEN = 16
"""Characters of the shortest token."""


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status, 4xx.
        message: what was wrong and what to do, one sentence.
        headers: of the answer besides.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True)
class ServerSettings:
    """Limits of a server; every one is also an option of ``marl-td serve``.

    Raises:
        ValueError: for a limit out of range, or a token that is too short.
    """

    token: str | None = None
    """What clients must send as ``Authorization: Bearer TOKEN``; None for no token."""
    local_only: bool = True
    """Whether the server is reached as localhost only; other ``Host`` headers are refused then, since a web
    page may make a browser send requests under a name of its own (DNS rebinding)."""
    max_body: int = 2**20
    """Largest body of a request in bytes."""
    max_batch: int = 4096
    """Most observations in one request, of all agents together."""
    rate: float = 2000.0
    """Requests per second and client address in the long run; 0 for no limit."""
    burst: int = 4000
    """Requests that a client may make at once before the rate counts."""
    max_sessions: int = 1000
    """Most sessions at a time."""
    session_timeout: float = 600.0
    """Seconds after its last request at which a session ends."""
    read_timeout: float = 10.0
    """Seconds that a client may take to send its body."""

    def __post_init__(self) -> None:
        for name in ("max_body", "max_batch", "burst", "max_sessions"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("session_timeout", "read_timeout"):
            _require(getattr(self, name) > 0, f"{name} must be above 0 seconds")
        _require(self.rate >= 0, "the rate must be at least 0 (no limit)")
        _require(
            self.token is None or (len(self.token) >= MIN_TOKEN and self.token.isascii()),
            f"the token must have at least {MIN_TOKEN} characters, ASCII only; make one with "
            '`python -c "import secrets; print(secrets.token_urlsafe())"`',
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def settings_for(host: str, token: str | None, **limits: float) -> ServerSettings:
    """The settings of a server that listens on ``host``.

    Raises:
        ValueError: without a token, if other machines can reach it.
    """
    if not is_loopback(host) and token is None:
        raise ValueError(
            f"other machines can reach '{host}', so a token is needed: give --token, or set MARL_TD_TOKEN. "
            "Without one, listen on 127.0.0.1."
        )
    local_only = is_loopback(host) and token is None
    return ServerSettings(token=token, local_only=local_only, **limits)  # type: ignore[arg-type]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{message}.")
