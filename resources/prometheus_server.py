"""A real Prometheus for one local stack: its configuration, its process, its readiness.

It is started before its targets are known, and told of them through a file: Prometheus hands targets to its scrapers
on a five-second tick that begins with the process, whichever way they are discovered. Started with the stack instead
of after it, the tick falls into the cold start.

Doesn't belong here: asking it (telemetry.py).
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resources import binaries, processes
from resources.cluster import ClusterError

READY_TIMEOUT_S = 20.0
FIRST_SCRAPE_TIMEOUT_S = 20.0
TARGETS_FILE = "targets.json"
_NEVER = "0001-01-01T00:00:00Z"
"""Prometheus's way to say that a target was not scraped yet."""
_PORT_ATTEMPTS = 5


@dataclass(frozen=True)
class ScrapeTarget:
    job: str
    url: str
    """Of the metrics page itself."""


def configuration(*, targets_file: Path, interval_s: float) -> dict[str, Any]:
    """Prometheus's configuration: whatever stands in `targets_file`, at `interval_s` wall seconds. Pure."""
    interval = f"{round(interval_s * 1000)}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [{"job_name": "stack", "file_sd_configs": [{"files": [str(targets_file)]}]}],
    }


def target_groups(targets: list[ScrapeTarget], *, namespace: str) -> list[dict[str, Any]]:
    """What stands in the targets file. Every target carries the label `namespace`, as pods do in a cluster. Pure."""
    groups = []
    for target in targets:
        parts = urlsplit(target.url)
        labels = {
            "job": target.job,
            "namespace": namespace,
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


def start(*, interval_s: float, folder: Path, environ: dict[str, str]) -> str:
    """Start Prometheus on a free loopback port and wait until it is ready; its URL. Raises `ClusterError`.

    It scrapes nothing until `announce`.
    """
    try:
        binary = binaries.find("prometheus")
    except binaries.BinaryNotFoundError as error:
        raise ClusterError(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    settings = configuration(targets_file=folder / TARGETS_FILE, interval_s=interval_s)
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    log = folder / "prometheus.log"
    for _ in range(_PORT_ATTEMPTS):
        port = _free_port()
        process = processes.spawn(
            [
                # The watcher steps back for the watched: on two cores a scrape would hold up the streams it counts.
                *["nice", "-n", "10"],
                str(binary),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'prometheus-data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            environ=environ,
            log=log,
            cwd=folder,
        )
        url = f"http://127.0.0.1:{port}"
        if _becomes_ready(process, url):
            return url
        # Between choosing the port and binding it another process may have taken it: the next attempt takes another.
        if process.poll() is None:
            break
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise ClusterError(f"Prometheus did not become ready; its log ({log}) ends:\n{tail}")


def _becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1):
                # Only our own child counts: another server on this port would answer while ours has died.
                return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)  # nothing listens yet, so there is nothing to wait on
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
