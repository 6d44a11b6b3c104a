"""The local stand-in for podinfo: python -m lab_pipelines.standins.http_server --announce F --log F [--port N]

It answers podinfo's /, /status/{code}, /delay/{seconds}, /healthz, /readyz and /metrics, and counts requests as
podinfo 6.14.1 does (stefanprodan/podinfo, pkg/api/http/metrics.go and server.go):

- `http_requests_total{status}` and `http_request_duration_seconds{method,path,status}` with client_golang's default
  buckets, where `path` is the route's name (`status`, `delay`), so that codes and delays don't make series;
- scrapes and probes are requests too, with `path` metrics, healthz and readyz; an unknown path is answered by 404 and
  counted nowhere, because the router runs its middleware on routes alone.

podinfo's /status takes any number; here it must be a final status, 200 to 599. Go's own process metrics are left out.
Delays and durations are stack seconds: `--time-scale` of them pass in one wall second.

The log (lab_pipelines/loopback.py) has one line for each counted request: `event` request, `method`, `path` as it was
asked for, `status`, `duration_s`. podinfo writes its own at level debug, without the last two.

Doesn't belong here: an engine (lab_pipelines/engine/).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from lab_pipelines import loopback
from lab_pipelines.loopback import JSON, METRICS, Exchange, JsonLog, Receive, Scope, Send

# client_golang's DefBuckets, with its own way to write them: prometheus_client would make "1.0" of "1".
BUCKETS_S = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10")
_BOUNDS_S = [float(bound) for bound in BUCKETS_S]
_PLAIN = {"/": "root", "/healthz": "healthz", "/readyz": "readyz", "/metrics": "metrics"}
_STATUS = re.compile(r"/status/([0-9]+)")
_DELAY = re.compile(r"/delay/([0-9]+)")


class RequestMetrics(Collector):
    """podinfo's two families. A series appears with its first request, as in client_golang's vectors."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str, str], list[int]] = {}
        self._sums: dict[tuple[str, str, str], float] = {}

    def done(self, *, method: str, path: str, status: int, duration_s: float) -> None:
        """Count one request. `path` is the route's name."""
        key = (method, path, str(status))
        counts = self._buckets.setdefault(key, [0] * (len(_BOUNDS_S) + 1))
        counts[bisect_left(_BOUNDS_S, duration_s)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + duration_s

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        durations = HistogramMetricFamily(
            "http_request_duration_seconds",
            "Time to answer HTTP requests, stack seconds.",
            labels=["method", "path", "status"],
        )
        by_status: dict[str, int] = {}
        for key, counts in self._buckets.items():
            cumulative = [sum(counts[: end + 1]) for end in range(len(counts))]
            durations.add_metric(key, list(zip([*BUCKETS_S, "+Inf"], cumulative, strict=True)), self._sums[key])
            by_status[key[2]] = by_status.get(key[2], 0) + cumulative[-1]
        requests = CounterMetricFamily("http_requests", "HTTP requests.", labels=["status"])
        for status, total in by_status.items():
            requests.add_metric([status], total)
        yield durations
        yield requests


class Answer(NamedTuple):
    """What a request gets. `route` is the route's name, None for what is no route."""

    route: str | None
    status: int
    body: bytes = b""
    content_type: tuple[bytes, bytes] | None = None


class HttpServerApi:
    """podinfo's endpoints over one set of metrics."""

    def __init__(self, log: JsonLog, *, time_scale: float) -> None:
        self._log = log
        self._scale = time_scale
        self._metrics = RequestMetrics()
        self._registry = CollectorRegistry()
        self._registry.register(self._metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        method, path, exchange = scope["method"], scope["path"], Exchange(send)
        answer = await self._answer(method, path)
        if answer.route is not None:
            # Before the answer is out, as Go's server does with a short one: whoever has it finds it counted.
            duration_s = (time.monotonic() - started) * self._scale
            self._metrics.done(method=method, path=answer.route, status=answer.status, duration_s=duration_s)
            self._log.write(
                "error" if answer.status >= 500 else "info",
                "request",
                method=method,
                path=path,
                status=answer.status,
                duration_s=round(duration_s, 6),
            )
        if answer.status in (204, 205, 304):  # can't have a body
            await exchange.start(answer.status, [])
            await exchange.write(b"", more=False)
        else:
            await exchange.reply(answer.status, answer.body, *([answer.content_type] if answer.content_type else []))

    async def _answer(self, method: str, path: str) -> Answer:
        if method != "GET":
            # The router refuses a method before any middleware has run.
            return Answer(None, 405)
        if status := _STATUS.fullmatch(path):
            return _status(int(status[1]))
        if delay := _DELAY.fullmatch(path):
            seconds = int(delay[1])
            until = time.monotonic() + seconds / self._scale
            # The loop's timers count whole milliseconds, and one may end a request early.
            while (left_s := until - time.monotonic()) > 0:
                await asyncio.sleep(left_s)
            return Answer("delay", 200, _body(delay=seconds), JSON)
        if path not in _PLAIN:
            return Answer(None, 404, b"404 page not found\n")
        if path == "/metrics":
            return Answer(_PLAIN[path], 200, generate_latest(self._registry), METRICS)
        said = _body(message="stand-in for podinfo", time_scale=self._scale) if path == "/" else _body(status="OK")
        return Answer(_PLAIN[path], 200, said, JSON)


def _status(code: int) -> Answer:
    if not 200 <= code <= 599:
        message = f"{code} is not a status that ends a request; ask for one from 200 to 599"
        return Answer("status", 400, _body(code=400, message=message), JSON)
    return Answer("status", code, _body(status=code), JSON)


def _body(**fields: float | str) -> bytes:
    return json.dumps(fields, indent=2).encode()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to end. The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lab_pipelines.standins.http_server",
        description="An HTTP service with podinfo's paths and metrics, on loopback.",
    )
    parser.add_argument("--time-scale", type=loopback.positive, default=1.0, help="stack seconds per wall second")
    parser.add_argument(
        "--announce", type=loopback.in_a_folder, required=True, help="JSON file to write when it answers"
    )
    parser.add_argument("--log", type=loopback.in_a_folder, required=True, help="file to append JSON lines to")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    options = parser.parse_args(argv)
    try:
        listener = loopback.listen(options.port, "--port")
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    app = HttpServerApi(JsonLog(options.log), time_scale=options.time_scale)
    url = loopback.url_of(listener)
    loopback.announce(options.announce, {"base_url": url, "metrics_url": f"{url}/metrics"})
    loopback.run(app, listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
