"""Counters of a server in Prometheus's text format. Standard library only."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of the latency histogram, seconds."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServerMetrics:
    """Requests by route and status, their latency, and the observations acted on.

    Routes are those of the server, not the paths that clients make up, so their number is bounded.

    Args:
        sessions: gives the number of sessions now.
        corrected: gives the number of actions that the shield has changed so far.
        version: of marl_td.
    """

    def __init__(
        self, sessions: Callable[[], int], corrected: Callable[[], int], version: str
    ) -> None:
        self.sessions = sessions
        self.corrected = corrected
        self.version = version
        self.requests: Counter[tuple[str, int]] = Counter()
        self.buckets: dict[str, list[int]] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.in_flight = 0
        self.observations = 0

    def count(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.requests[route, status] += 1
        histogram = self.buckets.setdefault(route, [0] * (len(BUCKETS) + 1))
        histogram[bisect_left(BUCKETS, seconds)] += 1
        self.seconds[route] += seconds

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        lines = [
            *_head("marl_td_info", "gauge", "Version of marl_td."),
            f'marl_td_info{{version="{self.version}"}} 1',
            *_head("marl_td_requests_total", "counter", "Requests by route and status."),
        ]
        for (route, status), n in sorted(self.requests.items()):
            lines.append(f'marl_td_requests_total{{route="{route}",status="{status}"}} {n}')
        lines += _head("marl_td_request_seconds", "histogram", "Time to answer, by route.")
        for route, histogram in sorted(self.buckets.items()):
            lines += self._histogram(route, histogram)
        for name, kind, meaning, value in (
            ("observations_total", "counter", "Observations acted on.", self.observations),
            ("corrected_total", "counter", "Actions that the shield changed.", self.corrected()),
            ("sessions", "gauge", "Sessions now.", self.sessions()),
            ("requests_in_flight", "gauge", "Requests being answered now.", self.in_flight),
        ):
            lines += [*_head(f"marl_td_{name}", kind, meaning), f"marl_td_{name} {value}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, route: str, histogram: list[int]) -> list[str]:
        name, total, lines = "marl_td_request_seconds", 0, []
        for bound, n in zip((*BUCKETS, "+Inf"), histogram, strict=True):
            total += n
            lines.append(f'{name}_bucket{{route="{route}",le="{bound}"}} {total}')
        lines.append(f'{name}_sum{{route="{route}"}} {self.seconds[route]:.6f}')
        lines.append(f'{name}_count{{route="{route}"}} {total}')
        return lines


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
