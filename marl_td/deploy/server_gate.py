"""What every request passes before it is looked at: host, rate, token, size and time of its body."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from marl_td.deploy.server_metrics import ServerMetrics
from marl_td.deploy.server_settings import Refused, ServerSettings, is_loopback

Asgi = Callable[..., Any]
OPEN = ("/health",)
"""Paths that need no token: a load balancer has none."""
CLOSE = {"connection": "close"}
"""Header of an answer after which the rest of a body is not read."""
MOST_CLIENTS = 10_000
"""Addresses whose rate is remembered; the one unseen for longest is forgotten first."""


class Rates:
    """A token bucket for each client address.

    Args:
        rate: tokens per second; 0 for no limit.
        burst: size of a bucket.
        clock: tells the time in seconds.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = burst
        self.clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token; the seconds to wait if there is none, else 0."""
        if self.rate == 0:
            return 0.0
        now = self.clock()
        tokens, then = self._buckets.pop(client, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        taken = tokens >= 1.0
        self._buckets[client] = (tokens - 1.0 if taken else tokens, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1.0 - tokens) / self.rate


class Gate:
    """ASGI middleware around the whole server.

    Args:
        app: what is behind.
        settings: the limits.
        metrics: where every answer is counted.
        routes: by the name of what answers them.
    """

    def __init__(
        self,
        app: Asgi,
        settings: ServerSettings,
        metrics: ServerMetrics,
        routes: Mapping[str, str],
    ) -> None:
        self.app = app
        self.routes = routes
        self.settings = settings
        self.metrics = metrics
        self.rates = Rates(settings.rate, settings.burst)

    async def __call__(self, scope: Any, receive: Asgi, send: Asgi) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.in_flight += 1
        try:
            self._check(scope)
            await self.app(scope, self._limited(receive), watched)
        except Refused as refusal:
            await answer(refusal, watched)
        finally:
            self.metrics.in_flight -= 1
            endpoint = getattr(scope.get("endpoint"), "__name__", "")
            route = self.routes.get(endpoint, "none")
            self.metrics.count(route, status, time.perf_counter() - begin)

    def _check(self, scope: Any) -> None:
        """Raise :class:`Refused` for a request that may not pass."""
        headers = dict(scope["headers"])
        if self.settings.local_only:
            _check_host(headers.get(b"host", b"").decode("latin-1"))
        client = scope["client"][0] if scope.get("client") else ""
        wait = self.rates.take(client)
        if wait > 0:
            raise Refused(
                429,
                f"more than {self.settings.rate:g} requests per second; wait {wait:.3f} s.",
                {"Retry-After": str(max(1, round(wait)))},
            )
        if self.settings.token is not None and scope["path"] not in OPEN:
            self._check_token(headers.get(b"authorization", b""))
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and len(length) < 20 and int(length) <= self.settings.max_body:
            return
        raise self._too_large()

    def _check_token(self, given: bytes) -> None:
        expected = f"Bearer {self.settings.token}".encode()
        if not hmac.compare_digest(given, expected):
            raise Refused(
                401,
                "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN'.",
                {"WWW-Authenticate": "Bearer"},
            )

    def _limited(self, receive: Asgi) -> Asgi:
        """``receive`` that stops at the largest size, whatever the header says, and does not wait forever."""
        left = self.settings.max_body
        deadline = time.monotonic() + self.settings.read_timeout
        whole = False

        async def limited() -> Any:
            nonlocal left, whole
            if whole:  # waits for the client to go away, however long the answer takes
                return await receive()
            try:
                wait = max(0.0, deadline - time.monotonic())
                message = await asyncio.wait_for(receive(), wait)
            except asyncio.TimeoutError:
                seconds = self.settings.read_timeout
                text = f"the body did not come within {seconds:g} s."
                raise Refused(408, text, CLOSE) from None
            left -= len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if left < 0:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> Refused:
        most = self.settings.max_body
        text = f"the body is larger than {most} bytes; send fewer observations."
        return Refused(413, text, CLOSE)


def _check_host(host: str) -> None:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if not is_loopback(name.strip("[]")):
        raise Refused(
            421,
            f"this server is reached as localhost only, not as '{name[:100]}'; to serve others, start it "
            "with --host and a token.",
        )


async def answer(refusal: Refused, send: Asgi) -> None:
    """Answer a request with an error."""
    body = json.dumps({"error": refusal.message}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **CLOSE,  # the body has not been read
        **refusal.headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
