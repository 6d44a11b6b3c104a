"""What kube-state-metrics would say of the double's pods and quotas: the series that labs ask for, and no other.

Belongs here: from objects to a metrics page. Doesn't belong here: serving it (lab_cluster.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab_pipelines.rehearsal.admission import asked, quantity, used

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
RESOURCES = {"cpu": "core", "memory": "byte", "nvidia.com/gpu": "integer"}


def page(pods: Sequence[Mapping[str, Any]], quotas: Sequence[dict[str, Any]]) -> str:
    """The exposition of the objects as they are now."""
    lines = [f"{name}{{{_listed(labels)}}} {value}" for name, labels, value in _series(pods, quotas)]
    return "\n".join([*lines, ""])


def _series(
    pods: Sequence[Mapping[str, Any]], quotas: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, str], float]]:
    for pod in pods:
        at = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"]}
        status = pod.get("status") or {}
        for phase in PHASES:
            yield "kube_pod_status_phase", {**at, "phase": phase}, float(status.get("phase") == phase)
        if any(one["type"] == "PodScheduled" and one["status"] == "False" for one in status.get("conditions") or []):
            yield "kube_pod_status_unschedulable", at, 1.0
        for container in pod["spec"]["containers"]:
            for resource, unit in RESOURCES.items():
                if amount := asked({"spec": {"containers": [container]}}, f"requests.{resource}"):
                    named = {"container": container["name"], "node": pod["spec"].get("nodeName", ""), "unit": unit}
                    yield (
                        "kube_pod_container_resource_requests",
                        {**at, **named, "resource": resource.translate(str.maketrans("./-", "___"))},
                        float(amount),
                    )
    for quota in quotas:
        namespace = quota["metadata"]["namespace"]
        here = [dict(pod) for pod in pods if pod["metadata"]["namespace"] == namespace]
        amounts = {key: most for key, most in quota["spec"]["hard"].items() if key.startswith(("requests.", "limits."))}
        counted = used({"spec": {"hard": amounts}}, here)
        for resource, most in amounts.items():
            for kind, amount in (("hard", quantity(most)), ("used", counted[resource])):
                named = {"resourcequota": quota["metadata"]["name"], "resource": resource, "type": kind}
                yield "kube_resourcequota", {"namespace": namespace, **named}, float(amount)


def _listed(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
