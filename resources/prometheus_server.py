"""A real Prometheus for one local stack: its configuration, its process, its readiness.

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
_PORT_ATTEMPTS = 5


@dataclass(frozen=True)
class ScrapeTarget:
    job: str
    url: str
    """Of the metrics page itself."""


def configuration(targets: list[ScrapeTarget], *, namespace: str, interval_s: float) -> dict[str, Any]:
    """Prometheus's configuration file. Every target carries the label `namespace`, as pods do in a cluster. Pure."""
    interval = f"{round(interval_s * 1000)}ms"
    jobs = []
    for target in targets:
        parts = urlsplit(target.url)
        jobs.append(
            {
                "job_name": target.job,
                "scheme": parts.scheme,
                "metrics_path": parts.path or "/metrics",
                "static_configs": [{"targets": [parts.netloc], "labels": {"namespace": namespace}}],
            }
        )
    return {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}


def start(
    targets: list[ScrapeTarget], *, namespace: str, interval_s: float, folder: Path, environ: dict[str, str]
) -> str:
    """Start Prometheus on a free loopback port and wait until it is ready; its URL. Raises `ClusterError`."""
    try:
        binary = binaries.find("prometheus")
    except binaries.BinaryNotFoundError as error:
        raise ClusterError(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(configuration(targets, namespace=namespace, interval_s=interval_s)))  # JSON is YAML
    log = folder / "prometheus.log"
    for _ in range(_PORT_ATTEMPTS):
        port = _free_port()
        process = processes.spawn(
            [
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
            time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
