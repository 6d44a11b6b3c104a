"""Prometheus of a local stack, and where the stack asks for monitoring, its rules, Alertmanager and pod metrics.

Belongs here: what of kube-prometheus-stack runs on this machine. Doesn't belong here: each program's own configuration
(prometheus_server.py, alertmanager_server.py, alert_rules.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.spec import Component
from resources import prometheus_server
from resources.cluster import Endpoint
from resources.local_components import Place
from resources.prometheus_server import ScrapeTarget


@dataclass(frozen=True)
class Monitoring:
    """What watches a stack."""

    prometheus_url: str
    endpoints: list[Endpoint]
    targets: list[ScrapeTarget]


def start(
    component: Component | None,
    values: Mapping[str, dict[str, Any]],
    place: Place,
    *,
    namespace: str,
    components: Sequence[str],
    scrape_interval_s: float,
) -> Monitoring:
    """Start what watches the stack; `values` are all components' by name. Raises `ClusterError`."""
    prometheus_url = prometheus_server.start(interval_s=scrape_interval_s, folder=place.folder, environ=place.environ)
    return Monitoring(prometheus_url, [], [])


def note_pod(folder: Path, component: str, *, running: bool, restarted: bool = False) -> None:
    """Tell the pod metrics of this stack what has become of a component; no effect without them."""
