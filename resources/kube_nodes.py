"""On which nodes of a cluster a lab's pods are, what they ask of each, and what they used there.

Belongs here: reading pods and nodes, a pod's effective request, and its usage by the cluster's Prometheus. Doesn't
belong here: node pools that a lease has for itself (node_holds.py), or what a share of a node costs
(lab_pipelines/node_time.py).

A node of another machine than the lab asks for is the cluster's own, as AKS's system pool is: it is there without labs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lab_pipelines.rehearsal.admission import quantity
from resources import kube_api
from resources.cluster import Amounts, ClusterError, NodeSeen
from resources.kube_api import Deadline, RefusedError
from resources.telemetry import TelemetryError, ask_now

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = Mapping[str, Any]

RESOURCES = {"gpus": "nvidia.com/gpu", "cpus": "cpu", "memory_bytes": "memory"}
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
POOL_LABELS = ("kubernetes.azure.com/agentpool", "agentpool")
SPOT = ("kubernetes.azure.com/scalesetpriority", "spot")
"""Label and value of AKS's spot nodes."""
ENDED = ("Succeeded", "Failed")
"""Phases of pods that hold nothing any more."""
USAGE_TIMEOUT_S = 10.0

_CONTAINERS = '{{namespace="{namespace}",container!=""}}'
_USED = {
    "cpus": f"sum by (node) (rate(container_cpu_usage_seconds_total{_CONTAINERS}[{{window_s}}s]))",
    # The sum over time by the whole window: a container that was there for half of it counts half.
    "memory_bytes": (
        f"sum by (node) (sum_over_time((sum by (node) (container_memory_working_set_bytes{_CONTAINERS}))"
        "[{window_s}s:{step_s}s])) / {steps}"
    ),
}
"""Means over a window, from the kubelet's own cAdvisor."""


def nodes_seen(api_client: ApiClient, namespace: str, *, sku: str | None, deadline: Deadline) -> list[NodeSeen]:
    """The nodes of machine `sku` on which pods of the namespace are now, with what these ask of each.

    A node that doesn't say what machine it is counts as one. Raises `ClusterError`.
    """
    pods = _get(api_client, f"/api/v1/namespaces/{namespace}/pods", deadline)["items"]
    nodes = {name: _get(api_client, f"/api/v1/nodes/{name}", deadline) for name in sorted(placed(pods))}
    return seen(pods, nodes, sku=sku)


def seen(pods: Sequence[Json], nodes: Mapping[str, Json], *, sku: str | None) -> list[NodeSeen]:
    """As `nodes_seen`, from the API server's own objects. Pure."""
    found = list[NodeSeen]()
    for name, on_it in placed(pods).items():
        labels = nodes[name]["metadata"].get("labels") or {}
        if labels.get(INSTANCE_TYPE, sku) != sku:
            continue
        requests = [effective_request(pod) for pod in on_it]
        allocatable = nodes[name]["status"]["allocatable"]
        found.append(
            NodeSeen(
                node=name,
                pool=next((labels[label] for label in POOL_LABELS if label in labels), None),
                priority="spot" if labels.get(SPOT[0]) == SPOT[1] else "on_demand",
                capacity=_amounts({one: quantity(allocatable.get(key, 0)) for one, key in RESOURCES.items()}),
                requested=_amounts({one: sum((r[one] for r in requests), Decimal()) for one in RESOURCES}),
            )
        )
    return found


def placed(pods: Sequence[Json]) -> dict[str, list[Json]]:
    """The pods that hold something of a node, by its name."""
    nodes = defaultdict[str, list[Json]](list)
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if name and (pod.get("status") or {}).get("phase") not in ENDED:
            nodes[name].append(pod)
    return dict(sorted(nodes.items()))


def effective_request(pod: Json) -> dict[str, Decimal]:
    """What the scheduler sets aside for a pod, by our names of the resources.

    The sum of its containers and sidecars, or what an init container needs together with the sidecars that were started
    before it, if that is more; and the overhead of its runtime class. Source: Kubernetes documentation, "Sidecar
    Containers", resource sharing within containers.
    """
    spec = pod["spec"]
    overhead = _named(spec.get("overhead") or {})
    sidecars, most = _named({}), _named({})
    for init in spec.get("initContainers") or []:
        needed = _sum([sidecars, _asked(init)])
        if init.get("restartPolicy") == "Always":
            sidecars = needed
        most = {one: max(most[one], needed[one]) for one in RESOURCES}
    together = _sum([sidecars, *(_asked(one) for one in spec["containers"])])
    return {one: max(most[one], together[one]) + overhead[one] for one in RESOURCES}


def used(prometheus_url: str, namespace: str, *, since: datetime, until: datetime) -> dict[str | None, Amounts]:
    """Mean usage of the namespace's pods between two times, by node; None for what names no node.

    What can't be asked, or has no series, is missing, and never zero.
    """
    window_s = max(math.ceil((until - since).total_seconds()), 1)
    step_s = max(window_s // 1000, 1)
    found = defaultdict[str | None, dict[str, float]](dict)
    for resource, query in _USED.items():
        promql = query.format(namespace=namespace, window_s=window_s, step_s=step_s, steps=max(window_s // step_s, 1))
        with suppress(TelemetryError):  # a Prometheus that is away must not keep a lab from ending
            for one in ask_now(prometheus_url, promql, at=until, timeout_s=USAGE_TIMEOUT_S):
                value = float(one["value"][1])
                if math.isfinite(value):
                    found[one["metric"].get("node")][resource] = value
    return {node: Amounts(**amounts) for node, amounts in found.items()}


def _asked(container: Json) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    # A limit alone is a request, as the API server has it.
    return _named({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _named(amounts: Json) -> dict[str, Decimal]:
    return {one: quantity(amounts.get(key, 0)) for one, key in RESOURCES.items()}


def _sum(amounts: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    listed = list(amounts)
    return {one: sum((each[one] for each in listed), Decimal()) for one in RESOURCES}


def _amounts(amounts: Mapping[str, Decimal]) -> Amounts:
    return Amounts(**{one: float(amount) for one, amount in amounts.items()})


def _get(api_client: ApiClient, path: str, deadline: Deadline) -> Any:
    try:
        return kube_api.request(api_client, "GET", path, deadline=deadline)
    except RefusedError as refused:
        raise ClusterError(f"{path}: {refused}") from None
