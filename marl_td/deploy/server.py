"""A small HTTP service around a bundle; ``marl-td serve`` starts it. No torch is imported.

::

    POST /agents/NAME/act   one agent's action: {"observation": [...], "mask": [...], "state" or "session"}
    POST /act               several agents at once: {"agents": {NAME: {...}}, "session"}
    POST /sessions          the server keeps the states of recurrent policies from now on
    DELETE /sessions/NAME
    GET /health /metrics /signature /openapi.json /docs
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from typing import Any

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import HTMLResponse, JSONResponse
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
except ImportError as _error:
    raise ImportError(
        "the server needs FastAPI and uvicorn: pip install 'marl-td[serve]'."
    ) from _error

import marl_td
from marl_td.deploy.runtime import Bundle
from marl_td.deploy.server_description import description, page
from marl_td.deploy.server_gate import Gate
from marl_td.deploy.server_metrics import CONTENT_TYPE, ServerMetrics
from marl_td.deploy.server_requests import (
    FIELDS,
    act,
    agent_inputs,
    as_json,
    check_fields,
    parse_body,
    rows_of,
)
from marl_td.deploy.server_sessions import Sessions
from marl_td.deploy.server_settings import Refused, ServerSettings

INLINE_ROWS = 64
"""Up to so many observations are acted on at once in the event loop: a thread would take longer to start."""
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class PolicyServer:
    """The service as an ASGI application: ``uvicorn.run(PolicyServer(bundle, settings).app)``.

    Args:
        bundle: whose agents act.
        settings: the limits.
    """

    def __init__(self, bundle: Bundle, settings: ServerSettings | None = None) -> None:
        self.bundle = bundle
        self.settings = settings or ServerSettings()
        self.sessions = Sessions(self.settings.max_sessions, self.settings.session_timeout)
        self.metrics = ServerMetrics(
            lambda: len(self.sessions), lambda: bundle.corrected, marl_td.__version__
        )
        self.described = description(bundle, self.settings)
        self.started = time.monotonic()
        api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        routes = self._add_routes(api)
        api.add_exception_handler(Refused, _refusal)
        api.add_exception_handler(HTTPException, _http_error)
        self.app = Gate(api, self.settings, self.metrics, routes)

    def _add_routes(self, api: FastAPI) -> dict[str, str]:
        """The pages by the name of what answers them."""
        routes = {}
        for path, method, handler in (
            ("/agents/{agent:path}/act", "POST", self._act_one),
            ("/act", "POST", self._act_jointly),
            ("/sessions", "POST", self._open_session),
            ("/sessions/{session}", "DELETE", self._close_session),
            ("/health", "GET", self._health),
            ("/metrics", "GET", self._metrics),
            ("/signature", "GET", self._signature),
            ("/openapi.json", "GET", self._openapi),
            ("/docs", "GET", self._docs),
        ):
            api.add_route(path, handler, methods=[method])
            routes[handler.__name__] = path.replace(":path", "")
        return routes

    # ---------------------------------------------------------------- actions
    async def _act_one(self, request: Request) -> Response:
        name = request.path_params["agent"]
        if name not in self.bundle.agents:
            raise Refused(404, f"there is no agent '{name[:100]}'; GET /signature names them.")
        found = await self._body(request)
        check_fields(found, (*FIELDS, "session"), "observation", "the request")
        session = found.pop("session", None)
        actions = await self._act({name: agent_inputs(name, found)}, session)
        return _json(actions[name])

    async def _act_jointly(self, request: Request) -> Response:
        found = await self._body(request)
        check_fields(found, ("agents", "session"), "agents", "the request")
        given, session = found["agents"], found.get("session")
        if not isinstance(given, dict) or not given:
            raise Refused(422, 'agents must be an object such as {"NAME": {"observation": [...]}}.')
        for name in given:
            if name not in self.bundle.agents:
                raise Refused(422, f"there is no agent '{name[:100]}'; GET /signature names them.")
        inputs = {name: agent_inputs(name, entry) for name, entry in given.items()}
        return _json({"agents": await self._act(inputs, session)})

    async def _body(self, request: Request) -> dict[str, Any]:
        try:
            body = await request.body()
        except ClientDisconnect:
            raise Refused(400, "the client went away before its body was whole.") from None
        return parse_body(body, request.headers.get("content-type", ""))

    async def _act(self, inputs: dict[str, Any], session: Any) -> dict[str, Any]:
        """What is answered for each agent."""
        states = None
        if session is not None:
            if not isinstance(session, str):
                raise Refused(422, "the session must be the text that POST /sessions gave.")
            if any("state" in given for given in inputs.values()):
                raise Refused(422, "give a state or a session, not both.")
            states = self.sessions.states(session)
        rows = sum(rows_of(self.bundle, name, given) for name, given in inputs.items())
        if rows > self.settings.max_batch:
            most = self.settings.max_batch
            raise Refused(413, f"{rows} observations in one request; at most {most} are taken.")
        if rows <= INLINE_ROWS:
            actions, after = act(self.bundle, inputs, states)
        else:
            actions, after = await run_in_threadpool(act, self.bundle, inputs, states)
        self.metrics.observations += rows
        if states is not None:
            states.update(after)
            return {name: {"action": action} for name, action in actions.items()}
        return {
            name: {"action": action}
            if after[name] is None
            else {"action": action, "state": after[name]}
            for name, action in actions.items()
        }

    # --------------------------------------------------------------- sessions
    async def _open_session(self, request: Request) -> Response:
        name = self.sessions.open()
        return _json({"session": name, "ends_after_seconds": self.settings.session_timeout}, 201)

    async def _close_session(self, request: Request) -> Response:
        self.sessions.close(request.path_params["session"])
        return Response(status_code=204)

    # ------------------------------------------------------------------ about
    async def _health(self, request: Request) -> Response:
        return _json({"status": "ok", "seconds": round(time.monotonic() - self.started, 3)})

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _signature(self, request: Request) -> Response:
        return _json(self.bundle.signature)

    async def _openapi(self, request: Request) -> Response:
        return _json(self.described)

    async def _docs(self, request: Request) -> Response:
        return HTMLResponse(page(self.described), headers={"content-security-policy": PAGE_POLICY})


def _json(content: Any, status: int = 200) -> Response:
    return Response(as_json(content), status, media_type="application/json")


async def _refusal(request: Request, error: Exception) -> Response:
    refused: Any = error
    return JSONResponse({"error": refused.message}, refused.status, refused.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the form of our own errors."""
    found: Any = error
    hint = "GET /docs shows what there is."
    text = {404: f"there is no such page; {hint}", 405: f"this page has no such method; {hint}"}
    message = text.get(found.status_code, str(found.detail))
    return JSONResponse({"error": message}, found.status_code, found.headers)


def serve(
    bundle: Bundle,
    host: str,
    port: int,
    settings: ServerSettings,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until interrupted or terminated; requests that are being answered end first.

    Args:
        bundle: whose agents act.
        host: address to listen on.
        port: port; 0 for a free one.
        settings: the limits.
        started: told the address when the port is open.

    Raises:
        ValueError: if the address cannot be had.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends answers at once (TCP_NODELAY) only on sockets that say they are TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ValueError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --port."
        ) from error
    config = uvicorn.Config(
        PolicyServer(bundle, settings).app,
        log_level="error",  # whoever sends garbage must not fill the log
        access_log=False,
        proxy_headers=False,  # anybody may write X-Forwarded-For, and rates are by address
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=10,
        limit_concurrency=1000,
    )
    shown = f"[{host}]" if family == socket.AF_INET6 else host
    started(
        f"serving {len(bundle.agents)} agents on http://{shown}:{listening.getsockname()[1]}/docs"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn's own handlers end the service; afterwards it raises the signal for those before it.
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
