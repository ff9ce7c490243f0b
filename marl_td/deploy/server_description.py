"""The OpenAPI description of a bundle's server, from its signature, and a page that shows it."""

from __future__ import annotations

import html
import json
from typing import Any
from urllib.parse import quote

import marl_td
from marl_td.deploy.runtime import Bundle
from marl_td.deploy.server_settings import ServerSettings
from marl_td.deploy.signature import DISCRETE, AgentSignature, Array, Entry

ERROR = {"$ref": "#/components/schemas/Error"}
ERRORS = {
    "400": "The body is not JSON, or holds a number that is not finite.",
    "401": "The token is missing or wrong.",
    "404": "There is no such agent or session.",
    "408": "The body did not come in time.",
    "413": "The body or the batch is too large.",
    "415": "The body is not declared as JSON.",
    "421": "The server is reached as localhost only.",
    "422": "An input is missing, unknown, or has a wrong type, shape or value.",
    "429": "Too many requests, or too many sessions.",
}


def description(bundle: Bundle, settings: ServerSettings) -> dict[str, Any]:
    """OpenAPI 3.1: what every agent takes and gives."""
    schemas = _Schemas()
    paths = _fixed_paths()
    given, found = {}, {}
    for name, policy in bundle.agents.items():
        agent, most = policy.signature, settings.max_batch
        given[name] = schemas.ref("Inputs", {"oneOf": [_given(agent, None), _given(agent, most)]})
        found[name] = schemas.ref("Actions", _found(agent))
        bodies = [_given(agent, None, session=True), _given(agent, most, session=True)]
        body = schemas.ref("Request", {"oneOf": bodies})
        act = _operation(f"The action of agent {name}", body=body, found=found[name])
        paths[f"/agents/{quote(name, safe='')}/act"] = {"post": act}
    schemas.named |= {
        "Joint": _joint(given),
        "JointActions": _joint_found(found),
        "Error": _error(),
    }
    secure: dict[str, Any] = {}
    if settings.token is not None:
        schemes = {"token": {"type": "http", "scheme": "bearer"}}
        secure = {"security": [{"token": []}]}
        components: dict[str, Any] = {"schemas": schemas.named, "securitySchemes": schemes}
    else:
        components = {"schemas": schemas.named}
    title = f"Policy of {bundle.signature.get('algorithm')} on {bundle.signature.get('task')}"
    info = {"title": title, "version": marl_td.__version__, "description": _about(settings)}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components, **secure}


def _about(settings: ServerSettings) -> str:
    rate = f", {settings.rate:g} requests per second and client" if settings.rate else ""
    return (
        "Decentralised policies of several agents. Every agent acts on its own observation; a batch has one "
        f"more dimension in front. Limits: {settings.max_body} bytes and {settings.max_batch} observations a "
        f"request{rate}, {settings.max_sessions} sessions."
    )


def _fixed_paths() -> dict[str, Any]:
    session = {"name": "session", "in": "path", "required": True, "schema": {"type": "string"}}
    opened = {"type": "object", "properties": {"session": {"type": "string"}}}
    anything = {"type": "object"}
    return {
        "/health": {"get": _operation("Whether the server acts", found=anything)},
        "/metrics": {"get": _operation("Counters, as Prometheus reads them", kind="text/plain")},
        "/signature": {"get": _operation("What every agent reads and writes", found=anything)},
        "/openapi.json": {"get": _operation("This description", found=anything)},
        "/docs": {"get": _operation("This description as a page", kind="text/html")},
        "/act": {
            "post": _operation(
                "The actions of several agents at once",
                body=_ref("Joint"),
                found=_ref("JointActions"),
            )
        },
        "/sessions": {
            "post": _operation("Open a session: the server keeps states", found=opened, code="201")
        },
        "/sessions/{session}": {
            "delete": {**_operation("End a session", code="204"), "parameters": [session]}
        },
    }


def _operation(
    summary: str,
    *,
    body: Any = None,
    found: Any = None,
    code: str = "200",
    kind: str = "application/json",
) -> dict[str, Any]:
    schema = found if found is not None else {"type": "string"}
    answer: dict[str, Any] = {"description": "Done."}
    if code != "204":
        answer["content"] = {kind: {"schema": schema}}
    failed = {
        status: {"description": text, "content": {"application/json": {"schema": ERROR}}}
        for status, text in ERRORS.items()
    }
    out: dict[str, Any] = {"summary": summary, "responses": {code: answer, **failed}}
    if body is not None:
        content = {"application/json": {"schema": body}}
        out["requestBody"] = {"required": True, "content": content}
    return out


class _Schemas:
    """Schemas by name; agents that are alike share one."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self._known: dict[str, str] = {}

    def ref(self, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
        """A reference to ``schema``."""
        text = kind + json.dumps(schema)
        if text not in self._known:
            self._known[text] = f"{kind}{len(self._known)}"
            self.named[self._known[text]] = schema
        return _ref(self._known[text])


def _given(agent: AgentSignature, batch: int | None, session: bool = False) -> dict[str, Any]:
    """What is given for one agent: everything single, or everything in a batch."""
    entries = {entry.name: _array(entry, batch) for entry in agent.observation}
    observation = _object(entries) if len(entries) > 1 else next(iter(entries.values()))
    properties: dict[str, Any] = {"observation": observation}
    if agent.mask is not None:
        properties["mask"] = _array(agent.mask, batch, contains={"const": True})
    required = list(properties)
    if agent.state:
        state = _object({entry.name: _array(entry, batch) for entry in agent.state})
        properties["state"] = {"oneOf": [{"type": "null"}, state]}
    if session:
        properties["session"] = {"type": "string", "description": "in place of a state"}
    return {**_object(properties), "required": required}


def _found(agent: AgentSignature) -> dict[str, Any]:
    """What an agent does: one action, or one for each of a batch."""
    if agent.kind == DISCRETE:
        single = {"type": "integer", "minimum": 0, "maximum": agent.n_actions - 1}
    else:
        single = _array(agent.action, None)
    properties: dict[str, Any] = {"action": {"oneOf": [single, {"type": "array", "items": single}]}}
    if agent.state:
        properties["state"] = {"type": "object"}
    return {"type": "object", "properties": properties, "required": ["action"]}


def _joint(given: dict[str, Any]) -> dict[str, Any]:
    agents = {"type": "object", "properties": given, "additionalProperties": False}
    body = {"agents": {**agents, "minProperties": 1}, "session": {"type": "string"}}
    return {**_object(body), "required": ["agents"]}


def _joint_found(found: dict[str, Any]) -> dict[str, Any]:
    return _object({"agents": {"type": "object", "properties": found}})


def _array(entry: Entry, batch: int | None, **innermost: Any) -> dict[str, Any]:
    """Nested lists of an entry's shape, in a batch with one more dimension in front.

    All batches of an agent's request have the same length, which a schema cannot say; ``x-batch`` marks
    them. ``innermost`` is said of the innermost lists besides.
    """
    boolean = entry.dtype == "bool"
    whole = entry.dtype.startswith(("int", "uint"))
    out: dict[str, Any] = {"type": "boolean" if boolean else "integer" if whole else "number"}
    if not boolean:
        for key, bound, pick in (("minimum", entry.low, min), ("maximum", entry.high, max)):
            tightest = _one_bound(bound, pick)
            if tightest is not None:
                out[key] = tightest
    for size in reversed(entry.shape):
        out = {"type": "array", "items": out, "minItems": size, "maxItems": size, **innermost}
        innermost = {}
    if batch is not None:
        out = {"type": "array", "items": out, "minItems": 1, "maxItems": batch, "x-batch": True}
    return out


def _one_bound(bound: Array | None, pick: Any) -> float | None:
    """The loosest bound of an entry's numbers, if all have one; the server checks each number's own."""
    if bound is None:
        return None
    loosest = float(pick(bound.reshape(-1).tolist()))
    return loosest if abs(loosest) < float("inf") else None


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _error() -> dict[str, Any]:
    return _object({"error": {"type": "string", "description": "what was wrong, and what to do"}})


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def page(described: dict[str, Any]) -> str:
    """The description as a page that loads nothing from elsewhere."""
    parts = [f"<h1>{html.escape(described['info']['title'])}</h1>"]
    parts.append(f"<p>{html.escape(described['info']['description'])}</p>")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            shown = {
                key: operation[key] for key in ("requestBody", "parameters") if key in operation
            }
            answer = next(iter(operation["responses"].items()))
            shown["answer"] = {answer[0]: answer[1]}
            text = html.escape(json.dumps(shown, indent=2))
            parts.append(
                f"<details><summary><code>{method.upper()} {html.escape(path)}</code> "
                f"{html.escape(operation['summary'])}</summary><pre>{text}</pre></details>"
            )
    for name, schema in described["components"]["schemas"].items():
        text = html.escape(json.dumps(schema, indent=2))
        shown_name = html.escape(name)
        parts.append(f"<details><summary>{shown_name}</summary><pre>{text}</pre></details>")
    style = "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    head = f"<meta charset='utf-8'><title>marl-td serve</title><style>{style}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>"
