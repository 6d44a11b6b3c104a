"""From a lab's component to the Helm release that runs it in a cluster: chart, values, and where it answers.

Belongs here: pure functions; what differs between the charts of the catalogue and our own for the modelled server.
Doesn't belong here: Helm (helm.py), pods (kube_pods.py), reading a values file (chart_values.py).

Values are the chart's defaults, then the lab's file, then the variant's overrides, then what a run adds: a
ServiceMonitor where the cluster knows that kind, and pods that are replaced rather than doubled, since a second one
would ask for a second GPU. The run's labels are put on whatever a chart renders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.stack import Chart, Component, ComponentKind
from lab_pipelines.deployment import REPO_ROOT, ClusterEngine
from resources import chart_values
from resources.chart_values import ValuesError
from resources.cluster import ClusterError, Endpoint
from resources.kube_namespace import without_secrets

MODELLED_CHART = REPO_ROOT / "helm-values" / "charts" / "modelled-vllm"
KINDS: frozenset[ComponentKind] = frozenset({"vllm", "dcgm_exporter", "monitoring", "logging", "workload"})
"""Kinds of components that a cluster runs as their chart says. Of these only an engine is sent load."""
PROMETHEUS_RELEASE = {"release": "kube-prometheus-stack"}
"""The label by which kube-prometheus-stack's Prometheus selects ServiceMonitors, by that chart's own defaults."""
ENGINE_CONTAINER = "vllm"
"""The serving container, in the vllm-stack chart and in ours."""


@dataclass(frozen=True)
class Surroundings:
    """What a release has to fit into, beside its component's own values."""

    namespace: str
    engine: ClusterEngine
    image: str
    sku: str | None
    gpus: int
    time_scale: float
    cold_start_time_scale: float
    labels: Mapping[str, str]
    """For every object and every pod of a release, which Helm's side adds (helm.py)."""
    monitors: bool
    """Whether the cluster knows ServiceMonitors."""
    secrets: bool
    """Whether the Secrets that values refer to will be there."""


@dataclass(frozen=True)
class Release:
    """One Helm release as it shall be."""

    component: Component
    name: str
    chart: Chart | Path
    """A pinned chart of a repository, or the folder of one of ours."""
    values: dict[str, Any]
    replicas: int
    container: str | None
    """The one that serves; None: a pod's first."""
    arguments: list[str]
    """Of an engine: model and flags. Empty for anything else."""
    endpoint: Endpoint
    """Its addresses within the cluster."""


def values_of(component: Component, overrides: Sequence[Overrides]) -> dict[str, Any]:
    """The lab's values with the overrides. Raises `ClusterError` that names the file."""
    try:
        return chart_values.load_values(REPO_ROOT / component.chart.values, *overrides)
    except ValuesError as error:
        raise ClusterError(str(error)) from None


def release_of(component: Component, overrides: Sequence[Overrides], around: Surroundings) -> Release:
    """The release of one component. Raises `ClusterError` for values that can't be used."""
    values = values_of(component, overrides)
    if not around.secrets:
        values = without_secrets(values)
    if component.kind != "vllm":
        return Release(
            component=component,
            name=component.name,
            chart=component.chart,
            values=values,
            replicas=1,
            container=None,
            arguments=[],
            endpoint=_endpoint(component, None, None),
        )
    try:
        arguments = chart_values.vllm_arguments(values, source=component.chart.values)
    except ValuesError as error:
        raise ClusterError(str(error)) from None
    model = values["servingEngineSpec"]["modelSpec"][0]
    return (_modelled if around.engine == "modelled" else _vllm)(component, values, model, arguments, around)


def _vllm(
    component: Component, values: dict[str, Any], model: dict[str, Any], arguments: list[str], around: Surroundings
) -> Release:
    """By the vllm-stack chart (production-stack 0.1.12): its templates name the service and select by its labels."""
    serving: dict[str, Any] = {**values["servingEngineSpec"], "strategy": {"type": "Recreate"}}
    monitor = {"additionalLabels": PROMETHEUS_RELEASE, **(serving.get("serviceMonitor") or {})}
    serving["serviceMonitor"] = {**monitor, "enabled": around.monitors}
    host = f"{component.name}-{model['name']}-engine-service.{around.namespace}.svc"
    root = f"http://{host}:{serving.get('servicePort', 80)}"
    return Release(
        component=component,
        name=component.name,
        chart=component.chart,
        values={**values, "servingEngineSpec": serving},
        replicas=int(model.get("replicaCount", 1)),
        container=ENGINE_CONTAINER,
        arguments=arguments,
        endpoint=_endpoint(component, root, None),
    )


def _modelled(
    component: Component, values: dict[str, Any], model: dict[str, Any], arguments: list[str], around: Surroundings
) -> Release:
    """By our own chart: the modelled server with the same arguments, on any node, and it asks for no GPU."""
    root = f"http://{component.name}.{around.namespace}.svc"
    return Release(
        component=component,
        name=component.name,
        chart=MODELLED_CHART,
        values={
            "image": around.image,
            "arguments": arguments,
            "gpu": _gpu_of(around.sku),
            "gpus": max(around.gpus, 1),
            "timeScale": around.time_scale,
            "coldStartTimeScale": around.cold_start_time_scale,
            "replicas": int(model.get("replicaCount", 1)),
            "serviceMonitor": {"enabled": around.monitors, "labels": PROMETHEUS_RELEASE},
        },
        replicas=int(model.get("replicaCount", 1)),
        container=ENGINE_CONTAINER,
        arguments=arguments,
        endpoint=_endpoint(component, f"{root}:80", f"{root}:9400"),
    )


def _gpu_of(sku: str | None) -> str:
    gpu = load_prices().sku(sku).gpu if sku else None
    if gpu is None:
        raise ClusterError(f"the stack has an engine, and {sku} has no GPU; name a GPU node in the spec's `nodes`")
    return gpu


def _endpoint(component: Component, root: str | None, gpu_root: str | None) -> Endpoint:
    return Endpoint(
        component=component.name,
        kind=component.kind,
        base_url=f"{root}/v1" if root else None,
        cluster_url=f"{root}/v1" if root else None,
        metrics_url=f"{root}/metrics" if root else None,
        gpu_metrics_url=f"{gpu_root}/metrics" if gpu_root else None,
        log=None,
    )
