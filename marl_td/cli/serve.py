"""``marl-td serve``: a bundle as a small HTTP service."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from marl_td.cli.output import note

TOKEN_VARIABLE = "MARL_TD_TOKEN"
EPILOG = """examples:
  marl-td serve bundle
  curl -s localhost:8000/agents/NAME/act -H 'Content-Type: application/json' -d '{"observation": [...]}'

http://localhost:8000/docs shows every agent's inputs. Stop it with Ctrl-C or SIGTERM."""


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve an exported bundle over HTTP",
        description="Serve the policies of a bundle over HTTP: one agent's action, or those of several at\n"
        "once, single or in batches, with or without sessions for recurrent policies.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="what `marl-td export` wrote")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=8000, help="port (default: 8000; 0 for a free one)")
    add(
        "--token",
        default=None,
        help="what clients must send as 'Authorization: Bearer TOKEN'; needed when other machines can "
        f"reach the host; better given in the environment variable {TOKEN_VARIABLE}, which other users of "
        "the machine cannot see",
    )
    add("--max-body", type=int, metavar="BYTES", help="largest request (default: 1 MiB)")
    add("--max-batch", type=int, metavar="N", help="observations in one request (default: 4096)")
    add("--rate", type=float, metavar="R", help="requests/s of a client (default: 2000; 0: any)")
    add("--burst", type=int, metavar="N", help="requests of a client at once (default: 4000)")
    add("--max-sessions", type=int, metavar="N", help="sessions at a time (default: 1000)")
    add("--session-timeout", type=float, metavar="S", help="seconds without use (default: 600)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the bundle, check it against its stored outputs, and serve it."""
    from marl_td.deploy.runtime import load_bundle
    from marl_td.deploy.server import serve
    from marl_td.deploy.server_settings import settings_for

    names = ("max_body", "max_batch", "rate", "burst", "max_sessions", "session_timeout")
    limits = {
        name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None
    }
    token = arguments.token or os.environ.get(TOKEN_VARIABLE) or None
    settings = settings_for(arguments.host, token, **limits)
    if not 0 <= arguments.port <= 65535:
        raise ValueError(f"--port must be a number from 0 to 65535; got {arguments.port}.")
    bundle = load_bundle(arguments.bundle, verify=True)
    serve(bundle, arguments.host, arguments.port, settings, started=note)
    return 0
