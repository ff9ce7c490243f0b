"""What `marl-td serve` holds: requests per second and latency, and how it answers bad requests.

    python benchmarks/serve_table.py [--bundle DIR] [--seconds 5]

Starts the server as its own process on this machine, loads it from this one over keep-alive connections
(each sends its next request when the last one is answered), then sends bad requests of every kind. Without
``--bundle`` it exports an untrained policy of `retail` with networks of 64 x 64. Writes
`results/serve_table.csv` (the load), `results/serve_refusals.csv` and `results/serve_table.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, markdown, write_csv

LOADS = (
    (1, 1, "own"),
    (8, 1, "own"),
    (64, 1, "own"),
    (8, 1, "joint"),
    (8, 32, "own"),
    (8, 1024, "own"),
)
"""Connections, observations of an agent in a request, and whether one or all agents are asked."""
PER_KIND = 200
TOKEN = "a-token-for-the-table"


def make_bundle(folder: Path) -> Path:
    """An untrained policy; how long a network takes does not depend on its weights."""
    from marl_td.deploy.export import export_policy
    from marl_td.deploy.source import policy_source
    from marl_td.training.compose import compose
    from marl_td.training.trained import build_run

    settings = compose(
        ["algorithm=marl_td/iddpg", "task=marl_td/retail", "model.num_cells=[64,64]"]
    )
    run = build_run(settings, 1, "cpu")
    export_policy(policy_source(run.policy, run.env, run.settings), folder)
    return folder


@contextmanager
def running(bundle: Path) -> Iterator[int]:
    """The server's port."""
    command = [sys.executable, "-m", "marl_td", "serve", str(bundle), "--port", "0"]
    options = ["--rate", "0", "--max-body", "2000000"]
    environment = {**os.environ, "MARL_TD_TOKEN": TOKEN}
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        line = process.stderr.readline() if process.stderr else ""
        found = re.search(r":(\d+)/docs", line)
        if not found:
            raise RuntimeError(f"the server did not start: {line}")
        time.sleep(0.5)
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def request(path: str, body: bytes, token: str = TOKEN, kind: str = "application/json") -> bytes:
    """A POST request as bytes."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
        f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return int(head.split(b" ", 2)[1]), body


async def one_client(port: int, sent: bytes, until: float) -> tuple[list[float], Counter[int]]:
    """Latencies in seconds and statuses of a client that asks until a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies, statuses = [], Counter[int]()
    while time.perf_counter() < until:
        begin = time.perf_counter()
        writer.write(sent)
        status, _ = await answer(reader)
        latencies.append(time.perf_counter() - begin)
        statuses[status] += 1
    writer.close()
    return latencies, statuses


async def load(port: int, n_clients: int, sent: bytes, seconds: float) -> tuple[Any, Any]:
    """Latencies and statuses of all clients."""
    until = time.perf_counter() + seconds
    found = await asyncio.gather(*(one_client(port, sent, until) for _ in range(n_clients)))
    return [t for part, _ in found for t in part], sum((s for _, s in found), Counter[int]())


def body_of(signature: dict[str, Any], rows: int, asked: str) -> tuple[str, bytes]:
    """Path and body of a good request."""
    inputs = {}
    for name, agent in signature["agents"].items():
        shape = agent["observation"][0]["shape"]
        one = [round(random.random(), 3) for _ in range(shape[0])]
        inputs[name] = {"observation": one if rows == 1 else [one] * rows}
    if asked == "joint":
        return "/act", json.dumps({"agents": inputs}).encode()
    name = next(iter(inputs))
    return f"/agents/{name}/act", json.dumps(inputs[name]).encode()


def load_rows(port: int, signature: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """A row for each load."""
    rows = []
    n_agents = len(signature["agents"])
    for n_clients, n_rows, asked in LOADS:
        sent = request(*body_of(signature, n_rows, asked))
        asyncio.run(load(port, n_clients, sent, 0.5))
        latencies, statuses = asyncio.run(load(port, n_clients, sent, seconds))
        cuts = statistics.quantiles(latencies, n=100)
        per_second = len(latencies) / seconds
        observations = n_rows * (n_agents if asked == "joint" else 1)
        rows.append(
            {
                "connections": n_clients,
                "asked": f"{n_agents} agents" if asked == "joint" else "one agent",
                "observations": observations,
                "requests/s": round(per_second),
                "observations/s": round(per_second * observations),
                "p50 ms": round(cuts[49] * 1e3, 2),
                "p99 ms": round(cuts[98] * 1e3, 2),
                "not 200": sum(n for status, n in statuses.items() if status != 200),
            }
        )
        print(rows[-1], flush=True)
    return rows


def bad_requests(signature: dict[str, Any]) -> dict[str, Any]:
    """By kind, a function that makes a bad request."""
    path, good = body_of(signature, 1, "own")
    observation = json.loads(good)["observation"]

    def body(**fields: Any) -> bytes:
        return json.dumps(fields).encode()

    def wrong(value: Any) -> bytes:
        at = random.randrange(len(observation))
        return body(observation=[*observation[:at], value, *observation[at + 1 :]])

    def raw(text: str) -> bytes:
        return wrong("HERE").replace(b'"HERE"', text.encode())

    return {
        "cut off": lambda: request(path, good[: random.randrange(1, len(good))]),
        "random bytes": lambda: request(path, random.randbytes(random.randrange(1, 500))),
        "NaN, Infinity": lambda: request(
            path, raw(random.choice(["NaN", "Infinity", "-Infinity"]))
        ),
        "number that overflows": lambda: request(path, raw(random.choice(["1e400", "-1e39"]))),
        "text, null, list for a number": lambda: request(
            path, wrong(random.choice(["x", None, [1.0], {}]))
        ),
        "wrong length": lambda: request(
            path, body(observation=[1.0] * random.choice([0, 1, 6, 99]))
        ),
        "uneven batch": lambda: request(path, body(observation=[observation, observation[1:]])),
        "unknown field": lambda: request(path, body(observation=observation, extra=1)),
        "no observation": lambda: request(path, body(mask=None)),
        "state for no memory": lambda: request(path, body(observation=observation, state={"h": 1})),
        "nested 100,000 deep": lambda: request(path, b"[" * 100_000),
        "number of 5,000 digits": lambda: request(path, raw("9" * 5000)),
        "same name twice": lambda: request(path, b'{"observation": [1], "observation": [2]}'),
        "batch above the limit": lambda: request(path, body(observation=[observation] * 5000)),
        "body above the limit": lambda: request(path, b" " * 2_000_001),
        "unknown agent": lambda: request("/agents/nobody/act", good),
        "unknown session": lambda: request(path, body(observation=observation, session="none")),
        "wrong token": lambda: request(path, good, token="wrong"),
        "not declared as JSON": lambda: request(path, good, kind="text/plain"),
    }


async def refusals(port: int, signature: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each kind of bad request: how often tried, and the statuses of the answers."""
    rows = []
    for kind, make in bad_requests(signature).items():
        statuses: Counter[Any] = Counter()
        for _ in range(PER_KIND):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(make())
            try:
                statuses[(await answer(reader))[0]] += 1
            except (asyncio.IncompleteReadError, ConnectionError):
                statuses["closed"] += 1  # too large: the answer is lost when the rest is not read
            writer.close()
        answered = ", ".join(f"{n} x {status}" for status, n in statuses.most_common())
        rows.append({"kind": kind, "tried": PER_KIND, "answered": answered})
        print(rows[-1], flush=True)
    path, good = body_of(signature, 1, "own")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path, good))
    status, _ = await answer(reader)
    writer.close()
    rows.append({"kind": "afterwards, a good request", "tried": 1, "answered": f"1 x {status}"})
    return rows


def main() -> None:
    """Write the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bundle", type=Path, help="an exported bundle (default: untrained, retail)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: 5)")
    arguments = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or make_bundle(Path(folder) / "bundle")
        signature = json.loads((bundle / "signature.json").read_text())
        with running(bundle) as port:
            held = load_rows(port, signature, arguments.seconds)
            refused = asyncio.run(refusals(port, signature))
    write_csv("serve_table", held)
    write_csv("serve_refusals", refused)
    text = f"{markdown(held)}\n\n{markdown(refused)}\n"
    (RESULTS / "serve_table.md").write_text(text)


if __name__ == "__main__":
    main()
