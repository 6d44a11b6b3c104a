"""Waits for an alert to be pending, firing and notified: the timestamps of a `fire_alert` step.

Belongs here: asking Prometheus for its alerts, reading the receiver's file, and the pure rules from both to a timeline.
Doesn't belong here: causing the alert (assets/steps.py), the programs (prometheus_server.py, alertmanager_server.py).

`pending_at` is Prometheus's own activeAt, the evaluation at which the condition first held. `firing_at` is the first
evaluation at which its ALERTS series says firing, and `notified_at` is when the receiver got the first notification, so
none of them depends on how often we look. An alert that was active before `since` is not what the step has caused.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from resources.cluster import ClusterError

POLL_S = 0.1
TIMEOUT_S = 10.0
_STATES = ("__name__", "alertstate")
"""Labels of an ALERTS series that its alert doesn't have."""


class AlertTimeline(NamedTuple):
    """When an alert's stages were reached; None for one that it did not reach in time."""

    pending_at: datetime | None
    firing_at: datetime | None
    notified_at: datetime | None


class Active(NamedTuple):
    """One alert of a rule, told from the rule's others by its labels."""

    labels: Mapping[str, str]
    at: datetime


def await_alert(
    prometheus_url: str, notifications_log: Path, alert: str, *, since: datetime, within_wall_s: float
) -> AlertTimeline:
    """Wait until an alert of the rule `alert` that became active after `since` was notified, or time is over.

    With several such alerts, the one that came furthest counts, and of these the earliest. Raises `ClusterError` at
    once when Prometheus does not answer or has no such rule.
    """
    names = rule_names(_get(prometheus_url, "/api/v1/rules", type="alert"))
    if alert not in names:
        raise ClusterError(f"Prometheus has no alert {alert!r}; its rules have: {', '.join(sorted(names)) or 'none'}")
    began = time.monotonic()
    active: list[Active] = []
    while True:
        out_of_time = time.monotonic() - began >= within_wall_s
        # An alert that resolves is gone from the answer, so what was seen is kept.
        active += [
            new for new in active_since(_get(prometheus_url, "/api/v1/alerts"), alert, since) if new not in active
        ]
        notifications = _lines(notifications_log)
        notified = [when_notified(one, notifications, since) for one in active]
        if out_of_time or any(notified):
            break
        time.sleep(POLL_S)  # neither Prometheus nor a file that another process writes tells of an event
    window_s = math.ceil((datetime.now(UTC) - since).total_seconds()) + 1
    history = _get(prometheus_url, "/api/v1/query", query=f'ALERTS{{alertname="{alert}"}}[{window_s}s]')
    return furthest([AlertTimeline(a.at, when_firing(a, history), n) for a, n in zip(active, notified, strict=True)])


def rule_names(rules: Mapping[str, Any]) -> set[str]:
    """The names in an answer of /api/v1/rules."""
    return {rule["name"] for group in rules["groups"] for rule in group["rules"]}


def active_since(alerts: Mapping[str, Any], alert: str, since: datetime) -> list[Active]:
    """The alerts of one rule in an answer of /api/v1/alerts that became active after `since`."""
    found = [
        Active(one["labels"], datetime.fromisoformat(one["activeAt"]))
        for one in alerts["alerts"]
        if one["labels"]["alertname"] == alert
    ]
    return [one for one in found if one.at >= since]


def when_firing(active: Active, history: Mapping[str, Any]) -> datetime | None:
    """The first evaluation at which ALERTS, as raw samples, says that this alert fires."""
    at_s = [
        float(sample[0])
        for series in history["result"]
        if series["metric"].get("alertstate") == "firing"
        and {name: value for name, value in series["metric"].items() if name not in _STATES} == dict(active.labels)
        for sample in series["values"]
    ]
    # A sample's time is the evaluation's to the millisecond, activeAt to the nanosecond.
    fired = [datetime.fromtimestamp(at, UTC) for at in at_s if at > active.at.timestamp() - 0.001]
    return max(min(fired), active.at) if fired else None


def when_notified(active: Active, notifications: Sequence[Mapping[str, Any]], since: datetime) -> datetime | None:
    """When the receiver was first told that this alert fires; lines as standins/webhook.py writes them."""
    at_s = [
        line["at"]
        for line in notifications
        # A Prometheus may add external labels to what it sends.
        if line["status"] == "firing" and active.labels.items() <= line["labels"].items()
    ]
    told = [datetime.fromtimestamp(at, UTC) for at in at_s if at >= since.timestamp()]
    return min(told, default=None)


def furthest(timelines: Sequence[AlertTimeline]) -> AlertTimeline:
    """The timeline that reached most stages, and of these the earliest."""

    def rank(timeline: AlertTimeline) -> tuple[int, datetime]:
        reached = [at for at in timeline if at is not None]
        return -len(reached), max(reached)

    return min(timelines, key=rank, default=AlertTimeline(None, None, None))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # The last piece is empty, or a line that is being written.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _get(url: str, path: str, **parameters: str) -> dict[str, Any]:
    asked = f"{url}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as response:
            return json.load(response)["data"]
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")[:300]
        raise ClusterError(f"Prometheus answered {error.code} to {asked}: {detail}") from None
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        raise ClusterError(f"Prometheus could not be asked at {asked}: {error}") from None
