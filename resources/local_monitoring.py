"""Prometheus of a local stack, and where the stack asks for monitoring, its rules, Alertmanager and pod metrics.

Belongs here: what of kube-prometheus-stack runs on this machine, and in which order. Doesn't belong here: each
program's own configuration (prometheus_server.py, alertmanager_server.py, alert_rules.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.stack import Component
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.standins.pods import Pod, read_pods, write_pods
from resources import alert_rules, alertmanager_server, local_components, prometheus_server
from resources.alert_rules import RulesError
from resources.cluster import ClusterError, Endpoint, Progress
from resources.local_components import Place
from resources.prometheus_server import ScrapeTarget

NOTIFICATIONS_FILE = "notifications.jsonl"
PODS_FILE = "pods.json"


@dataclass(frozen=True)
class Monitoring:
    """What watches a stack."""

    prometheus_url: str
    endpoints: list[Endpoint]
    targets: list[ScrapeTarget]


def start(
    component: Component | None,
    values: Mapping[str, Any],
    place: Place,
    *,
    namespace: str,
    components: Sequence[str],
    scrape_interval_s: float,
    progress: Progress,
) -> Monitoring:
    """Start what watches the stack: Prometheus always, the rest for a stack with a `monitoring` component.

    `values` are that component's own. Raises `ClusterError`.
    """
    if component is None:
        return Monitoring(
            prometheus_server.start(interval_s=scrape_interval_s, folder=place.folder, environ=place.environ), [], []
        )
    write_pods(place.folder / PODS_FILE, {name: Pod(restarts=0, running=True) for name in components})
    pods = local_components.start_process(
        "pod-metrics",
        "lab_pipelines.standins.pod_metrics",
        ["--state", str(place.folder / PODS_FILE), "--namespace", namespace],
        place,
    )
    notifications = place.folder / NOTIFICATIONS_FILE
    rule_files = _rule_files(component, place, scrape_interval_s, progress)
    alertmanager_url = None
    if rule_files:
        webhook = local_components.start_process(
            "webhook", "lab_pipelines.standins.webhook", ["--log", str(notifications)], place
        )
        config = (values.get("alertmanager") or {}).get("config") or {}
        alertmanager_url = alertmanager_server.start(
            alertmanager_server.local_config(
                config, webhook_url=webhook["url"], time_scale=place.time_scale, source=component.chart.values
            ),
            folder=place.folder,
            environ=place.environ,
        )
    prometheus_url = prometheus_server.start(
        interval_s=scrape_interval_s,
        folder=place.folder,
        environ=place.environ,
        rule_files=rule_files,
        alertmanager_url=alertmanager_url,
        time_scale=place.time_scale,
    )
    endpoint = Endpoint(
        component=component.name,
        kind="monitoring",
        base_url=alertmanager_url,
        metrics_url=None,
        gpu_metrics_url=None,
        log=str(notifications) if rule_files else None,
    )
    targets = [ScrapeTarget("kube-state-metrics", pods["metrics_url"], namespaced=False)]
    if alertmanager_url is not None:
        targets.append(ScrapeTarget("alertmanager", f"{alertmanager_url}/metrics"))
    return Monitoring(prometheus_url, [endpoint], targets)


def note_pod(folder: Path, component: str, *, running: bool, restarted: bool = False) -> None:
    """Tell the pod metrics of this stack what has become of a component; a stack without them has nothing to tell."""
    path = folder / PODS_FILE
    if path.exists():
        pods = read_pods(path)
        write_pods(path, {**pods, component: Pod(pods[component].restarts + restarted, running)})


def _rule_files(component: Component, place: Place, scrape_interval_s: float, progress: Progress) -> list[Path]:
    """The rules that lie beside the component's values, on this stack's clock."""
    source = REPO_ROOT / Path(component.chart.values).parent / alert_rules.FILE
    if not source.exists():
        return []
    try:
        rules = alert_rules.local_rules(
            alert_rules.load(source),
            time_scale=place.time_scale,
            scrape_interval_s=scrape_interval_s,
            source=str(source.relative_to(REPO_ROOT)),
        )
    except RulesError as error:
        raise ClusterError(str(error)) from None
    for note in rules.notes:
        progress(note)
    path = place.folder / "rules.yml"
    path.write_text(json.dumps(rules.content), encoding="utf-8")  # JSON is YAML
    return [path]
