"""Requests to an ASGI application in this process; what it raises, the test raises."""

import asyncio
import atexit
import json as jsonlib
from dataclasses import dataclass
from functools import cache


@cache
def loop():
    """One event loop for all clients, closed at the end of the process."""
    made = asyncio.new_event_loop()
    atexit.register(made.close)
    return made


@dataclass
class Answer:
    """What came back."""

    status_code: int
    headers: dict
    content: bytes

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return jsonlib.loads(self.content)


class AsgiClient:
    """A client at 127.0.0.1 of an application that believes to be `localhost`.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app):
        self.app = app

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, **what):
        return self.request("POST", path, **what)

    def delete(self, path):
        return self.request("DELETE", path)

    def request(self, method, path, *, json=None, content=b"", headers=None):
        """``content`` may be several pieces of a body whose length is not said; None never comes."""
        sent = {"host": "localhost", **(headers or {})}
        if json is not None:
            content = jsonlib.dumps(json).encode()
            sent.setdefault("content-type", "application/json")
        pieces = [content] if isinstance(content, bytes) else list(content)
        if isinstance(content, bytes):
            sent["content-length"] = str(len(content))
        return loop().run_until_complete(self._request(method, path, sent, pieces))

    async def _request(self, method, path, headers, pieces):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 50_000),
            "server": ("localhost", 8000),
        }
        waiting = list(pieces)
        status, found, body = 0, {}, b""

        async def receive():
            if waiting and waiting[0] is not None:
                piece = waiting.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(waiting)}
            await asyncio.Event().wait()

        async def send(message):
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
                found.update({k.decode().lower(): v.decode() for k, v in message["headers"]})
            else:
                body += message.get("body", b"")

        await self.app(scope, receive, send)
        return Answer(status, found, body)
