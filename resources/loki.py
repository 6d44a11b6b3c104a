"""A component's structured log lines from Loki, for clusters that have one: it keeps what pods that are gone have said.

Belongs here: one range query through Loki's HTTP API. Doesn't belong here: a pod's own log (kube_pods.py).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from typing import Any

from resources.cluster import ClusterError
from resources.kube_timeline import LogLine
from resources.kube_timeline import json_lines as only_json

TIMEOUT_S = 30.0
PAGE = 5000
"""Loki's own limit of one answer, unless its configuration says otherwise."""


def json_lines(loki_url: str, namespace: str, component: str, *, since: datetime) -> list[dict[str, Any]]:
    """The component's lines from `since` on that are JSON objects, oldest first: see `kube_timeline.json_lines`.

    Raises `ClusterError`.
    """
    # Promtail and Alloy both label a stream with its namespace, and with the pod that `component` begins.
    selector = f'{{namespace="{namespace}",pod=~"{component}-.*"}}'
    lines, start_ns = list[LogLine](), int(since.timestamp() * 1e9)
    while True:
        page = _ask(loki_url, selector, start_ns)
        lines += [LogLine(datetime.fromtimestamp(at_ns / 1e9, UTC), text) for at_ns, text in page]
        if len(page) < PAGE:
            return only_json(lines, since=since)
        start_ns = page[-1][0] + 1


def _ask(loki_url: str, selector: str, start_ns: int) -> list[tuple[int, str]]:
    """One page of (nanoseconds, line), oldest first."""
    query = urllib.parse.urlencode(
        {"query": selector, "start": str(start_ns), "direction": "forward", "limit": str(PAGE)}
    )
    try:
        with urllib.request.urlopen(f"{loki_url}/loki/api/v1/query_range?{query}", timeout=TIMEOUT_S) as response:
            streams = json.load(response)["data"]["result"]
            return sorted((int(at), text) for stream in streams for at, text in stream["values"])
    except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError) as error:
        raise ClusterError(
            f"Loki at {loki_url} could not answer {selector}: {error}; set LABS_LOKI_URL to its root, or unset it to "
            "read the pods' own logs"
        ) from None
