"""A live session as the assets hand it on, for tests that need one without a stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from lab_pipelines.catalog.stack import ComponentKind
from resources.cluster import Endpoint, Phase, Session

REQUESTED = datetime(2026, 3, 12, 9, 0, tzinfo=UTC)
READY = REQUESTED + timedelta(seconds=2)


def endpoint(component: str, kind: ComponentKind, base_url: str | None) -> Endpoint:
    return Endpoint(component=component, kind=kind, base_url=base_url, metrics_url=None, gpu_metrics_url=None, log=None)


def session(**changes: Any) -> Session:
    """L06 at pace `short` with a modelled engine; any field can be given."""
    fields: dict[str, Any] = {
        "session_id": "lease-1",
        "lab": "L06",
        "variant": "baseline",
        "run_id": "run-1",
        "target": "local",
        "engine": "modelled-vllm",
        "provenance": "modelled",
        "pace": "short",
        "time_scale": 5.0,
        "cold_start_time_scale": 400.0,
        "namespace": "lab-06",
        "model": "m",
        "sku": "Standard_NC4as_T4_v3",
        "nodes": 1,
        "endpoints": [
            endpoint("vllm", "vllm", "http://127.0.0.1:1/v1"),
            endpoint("http", "http_server", "http://127.0.0.1:3"),
            endpoint("exporter", "dcgm_exporter", None),
        ],
        "prometheus_url": "http://127.0.0.1:2",
        "metric_selector": 'namespace="lab-06"',
        "engine_args": ["m"],
        "spec_digest": "s",
        "values_digest": "v",
        "requested_at": REQUESTED,
        "ready_at": READY,
        "phases": [
            Phase(name="node_ready", started_at=REQUESTED, ended_at=READY, duration_s=284.0),
            Phase(name="first_token", started_at=READY, ended_at=READY, duration_s=0.5),
        ],
    }
    return Session(**{**fields, **changes})
