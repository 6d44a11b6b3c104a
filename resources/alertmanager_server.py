"""A real Alertmanager for one local stack: the lab's own route tree, every receiver a webhook on this machine.

The configuration is `alertmanager.config` of the lab's values for kube-prometheus-stack, so routing, grouping and
inhibition are those of a cluster. What notifies people there, and needs secrets, is replaced by the webhook
(lab_pipelines/standins/webhook.py); receivers keep their names, and one that notifies nobody stays so.

Doesn't belong here: when an alert fires (alert_rules.py), waiting for it (alerting.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resources import durations, free_port
from resources.cluster import ClusterError

_WAITS = ("group_wait", "group_interval", "repeat_interval")
# Alertmanager's own defaults (prometheus.io/docs/alerting/latest/configuration, route): where the root route leaves
# them out they count in stack time as well.
_DEFAULT_WAITS = {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}


def local_config(config: Mapping[str, Any], *, webhook_url: str, time_scale: float, source: str) -> dict[str, Any]:
    """`alertmanager.config` for a stack that runs `time_scale` times as fast, its receivers bound to `webhook_url`.

    Pure. Raises `ClusterError` that names `source` for a config without a route or receivers, or with a wait that is
    no duration.
    """
    route, receivers = config.get("route"), config.get("receivers")
    if not isinstance(route, Mapping) or not isinstance(receivers, list):
        raise ClusterError(f"{source}: alertmanager.config: expected a `route` and a list of `receivers`")
    local = {
        "route": _scaled_route({**_DEFAULT_WAITS, **route}, time_scale, source=source),
        "receivers": [_local_receiver(receiver, webhook_url) for receiver in receivers],
    }
    for field in ("inhibit_rules", "time_intervals"):
        if field in config:
            local[field] = config[field]
    return local


def _scaled_route(route: Mapping[str, Any], time_scale: float, *, source: str) -> dict[str, Any]:
    scaled = dict(route)
    for field in _WAITS:
        if field in route:
            try:
                scaled[field] = durations.scaled(str(route[field]), time_scale)
            except ValueError as error:
                raise ClusterError(f"{source}: alertmanager.config: {field}: {error}") from None
    if "routes" in route:
        scaled["routes"] = [_scaled_route(below, time_scale, source=source) for below in route["routes"]]
    return scaled


def _local_receiver(receiver: Mapping[str, Any], webhook_url: str) -> dict[str, Any]:
    notifies = any(key.endswith("_configs") and value for key, value in receiver.items())
    local: dict[str, Any] = {"name": receiver.get("name")}
    if notifies:
        local["webhook_configs"] = [{"url": webhook_url, "send_resolved": True}]
    return local


def start(config: Mapping[str, Any], *, folder: Path, environ: dict[str, str]) -> str:
    """Start Alertmanager with `config`, as `local_config` makes it; its URL once it is ready. Raises `ClusterError`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "alertmanager.yml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return free_port.start(
        "alertmanager",
        lambda port: [
            f"--config.file={path}",
            f"--storage.path={folder / 'alertmanager-data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",  # it has no peers, and would look for an address to gossip on
            "--log.level=warn",
        ],
        ready="/-/ready",
        log=folder / "alertmanager.log",
        folder=folder,
        environ=environ,
    )
