"""A real Prometheus for one local stack: its configuration, its process, its targets.

It is started before its targets are known, and told of them through a file: Prometheus hands targets to its scrapers
on a five-second tick that begins with the process, whichever way they are discovered. Started with the stack instead
of after it, the tick falls into the cold start.

Doesn't belong here: asking it (telemetry.py, alerting.py), or what its rules say (alert_rules.py).
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from resources import free_port
from resources.cluster import ClusterError
from resources.kube_api import Deadline

FIRST_SCRAPE_TIMEOUT_S = 20.0
TARGETS_FILE = "targets.json"
RESEND_DELAY_S = 60.0
"""Prometheus's own default, in stack seconds: how often it tells Alertmanager again of an alert that lasts."""
_NEVER = "0001-01-01T00:00:00Z"
"""Prometheus's way to say that a target was not scraped yet."""


@dataclass(frozen=True)
class ScrapeTarget:
    job: str
    url: str
    """Of the metrics page itself."""
    namespaced: bool = True
    """Whether the target is in the lab's namespace. False for one whose series name a namespace themselves, as those of
    kube-state-metrics do: Prometheus would rename theirs to `exported_namespace`."""


def configuration(
    *, targets_file: Path, interval_s: float, rule_files: Sequence[Path] = (), alertmanager_url: str | None = None
) -> dict[str, Any]:
    """Prometheus's configuration: whatever stands in `targets_file`, at `interval_s` wall seconds. Pure."""
    interval = f"{round(interval_s * 1000)}ms"
    settings: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [{"job_name": "stack", "file_sd_configs": [{"files": [str(targets_file)]}]}],
    }
    if rule_files:
        settings["rule_files"] = [str(path) for path in rule_files]
    if alertmanager_url is not None:
        targets = [{"targets": [urlsplit(alertmanager_url).netloc]}]
        settings["alerting"] = {"alertmanagers": [{"static_configs": targets}]}
    return settings


def target_groups(targets: list[ScrapeTarget], *, namespace: str) -> list[dict[str, Any]]:
    """What stands in the targets file. Every target carries the label `namespace`, as pods do in a cluster. Pure."""
    groups = []
    for target in targets:
        parts = urlsplit(target.url)
        labels = {
            "job": target.job,
            **({"namespace": namespace} if target.namespaced else {}),
            "__scheme__": parts.scheme,
            "__metrics_path__": parts.path or "/metrics",
        }
        groups.append({"targets": [parts.netloc], "labels": labels})
    return groups


def announce(url: str, targets: list[ScrapeTarget], *, namespace: str, folder: Path) -> None:
    """Tell the Prometheus at `url`, started in `folder`, what to scrape, and wait until it has scraped all of it once.

    A counter that grows before its first scrape has lost that growth for ever. Raises `ClusterError`.
    """
    path = folder / TARGETS_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(target_groups(targets, namespace=namespace)), encoding="utf-8")
    temporary.replace(path)
    deadline = time.monotonic() + FIRST_SCRAPE_TIMEOUT_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/api/v1/targets?state=active", timeout=5) as response:
            active = json.load(response)["data"]["activeTargets"]
        if len(active) == len(targets) and all(target["lastScrape"] > _NEVER for target in active):
            return
        time.sleep(0.05)
    raise ClusterError(f"Prometheus at {url} did not scrape its targets within {FIRST_SCRAPE_TIMEOUT_S:.0f} s")


def scraped(url: str, selector: str, *, after: datetime, deadline: Deadline) -> bool:
    """Wait until every target that the Prometheus at `url` knows by `selector`, and at least one, was scraped after a
    time and is up. False at the deadline."""
    query = urlencode({"query": f"min(timestamp(up{{{selector}}} == 1))"})
    while True:
        with suppress(OSError, ValueError, LookupError):  # one that can't be asked now may be a moment later
            with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=5) as response:
                found = json.load(response)["data"]["result"]
            if found and float(found[0]["value"][1]) > after.timestamp():
                return True
        if deadline.remaining_s == 0:
            return False
        time.sleep(0.2)  # Prometheus has no way to tell us


def start(
    *,
    interval_s: float,
    folder: Path,
    environ: dict[str, str],
    rule_files: Sequence[Path] = (),
    alertmanager_url: str | None = None,
    time_scale: float = 1.0,
) -> str:
    """Start Prometheus on a free loopback port and wait until it is ready; its URL. Raises `ClusterError`.

    It scrapes nothing until `announce`. `rule_files` are evaluated from the start (alert_rules.py), and alerts go to
    the Alertmanager at `alertmanager_url`, which must be up: Prometheus would notice a later one at its next tick only.
    `time_scale` is of the reminders that it sends while an alert lasts; durations of rules are the rule files' own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    settings = configuration(
        targets_file=folder / TARGETS_FILE,
        interval_s=interval_s,
        rule_files=rule_files,
        alertmanager_url=alertmanager_url,
    )
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    return free_port.start(
        "prometheus",
        lambda port: [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'prometheus-data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--rules.alert.resend-delay={round(RESEND_DELAY_S / time_scale * 1000)}ms",
            "--log.level=warn",
        ],
        ready="/-/ready",
        log=folder / "prometheus.log",
        folder=folder,
        environ=environ,
    )
