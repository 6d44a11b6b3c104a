"""How late the load generator sees what the server sent, by the server's own stamps. Wall seconds throughout.

TTFT lag is |client TTFT - server TTFT| of one request: what the tool adds to the number that it reports. A tool
whose lag isn't small against what it measures is measuring itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.demo import Demo
from benchmarks.figures import Figure, quantile

NAME = "client lag"
USERS = 32
AT_MOST_MS = 5.0
_SUPPORTED = 368
"""Requests that a distribution-free 95 % interval of a p99 needs."""


def figures(demo: Demo) -> list[Figure]:
    """From the demo's stage of 32 users; from its largest, and held against no bound, when it has none."""
    largest = demo.query("SELECT max(users) AS users FROM load_stages WHERE users <= 32")[0]["users"]
    requests = demo.query(
        f"SELECT abs(ttft_lag_wall_s) AS ttft_lag_s, receive_lag_p99_wall_s FROM requests WHERE users = {largest} "
        "AND ttft_lag_wall_s IS NOT NULL"
    )
    events = [row["receive_lag_p99_wall_s"] for row in requests if row["receive_lag_p99_wall_s"] is not None]
    stage = demo.query(f"SELECT client_cpu_share, requests_ok FROM load_stages WHERE users = {largest}")[0]
    lags = [row["ttft_lag_s"] for row in requests]
    return [
        *lag_figures(NAME, lags, users=largest),
        Figure(
            NAME,
            "receive lag of an event, p99 within a request, median over requests",
            quantile(events, 0.5) * 1000 if events else None,
            "ms",
        ),
        Figure(NAME, "the same, p99 over requests", quantile(events, 0.99) * 1000 if events else None, "ms"),
        Figure(NAME, "client CPU, share of one core", stage["client_cpu_share"], "cores"),
    ]


def lag_figures(benchmark: str, lags_s: Sequence[float], *, users: int) -> list[Figure]:
    """p50, p99 and maximum of `lags_s`; the bound counts at 32 users only."""
    if not lags_s:
        return [Figure(benchmark, "TTFT lag, p99", None, "ms", AT_MOST_MS, "no request was stamped by the server")]
    note = f"{len(lags_s)} requests at {users} users"
    if len(lags_s) < _SUPPORTED:
        note += f", too few for a 95 % interval of a p99 ({_SUPPORTED})"
    bound = AT_MOST_MS if users == USERS else None
    return [
        Figure(benchmark, "TTFT lag, p50", quantile(lags_s, 0.5) * 1000, "ms"),
        Figure(benchmark, "TTFT lag, p99", quantile(lags_s, 0.99) * 1000, "ms", bound, note),
        Figure(benchmark, "TTFT lag, maximum", max(lags_s) * 1000, "ms"),
    ]
