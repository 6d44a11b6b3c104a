"""A namespace's objects in virtual time: taken or refused, placed or pending, and what kube-state-metrics says of them.

Belongs here: the state of the objects, and when a placed pod runs. Doesn't belong here: who may be (admission.py), who
goes where (scheduler.py), what a step expects (resources/manifests.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lab_pipelines.rehearsal.admission import RefusedError, admit, asked, quantity, used
from lab_pipelines.rehearsal.scheduler import Node, NotModelledError, Placed, Unschedulable, place

if TYPE_CHECKING:
    from lab_pipelines.catalog.prices import Sku

Json = dict[str, Any]

STARTS_WITHIN_S = 2.0
"""From a node to a running container whose image is small and already there; virtual seconds, an estimate."""
GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
"""Of every GPU pool of the labs; AKS's own documentation uses the same."""
EXPORTER = "kube-state-metrics"
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
KINDS = ("Pod", "LimitRange", "ResourceQuota", "ConfigMap")


def node_of(name: str, sku_name: str, sku: Sku) -> Node:
    """A Ready node of a SKU. All of the machine is allocatable: what AKS keeps for itself is left out."""
    amounts = {"cpu": str(sku.vcpus), "memory": f"{sku.memory_gib}Gi"}
    if sku.gpus:
        amounts["nvidia.com/gpu"] = str(sku.gpus)
    return Node(
        name=name,
        labels={"kubernetes.io/hostname": name, "node.kubernetes.io/instance-type": sku_name},
        allocatable={resource: quantity(amount) for resource, amount in amounts.items()},
        taints=(GPU_TAINT,) if sku.gpus else (),
    )


class ControlPlane:
    """API server, scheduler and kubelets of one namespace. A pod that has no node waits for ever: no node comes."""

    def __init__(self, namespace: str, nodes: Sequence[Node]) -> None:
        self.namespace = namespace
        self._nodes = nodes
        self._objects: dict[tuple[str, str], Json] = {}
        """By (kind, name)."""
        self._placed: list[Placed] = []
        self._runs_from_s: dict[str, float] = {}
        self._unschedulable: dict[str, str] = {}

    def apply(self, manifest: Json, at_s: float) -> None:
        """Write one object. Raises `RefusedError`; `NotModelledError` for what nothing here knows."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind not in KINDS:
            raise NotModelledError(f"kind {kind}")
        if (kind, name) in self._objects:
            if kind != "Pod":
                self._objects[kind, name] = copy.deepcopy(manifest)
            return
        made = copy.deepcopy(manifest)
        if kind == "Pod":
            admit(made, limit_ranges=self._of("LimitRange"), quotas=self._of("ResourceQuota"), others=self._of("Pod"))
            where = place(made, self._nodes, self._placed)
            if isinstance(where, Unschedulable):
                self._unschedulable[name] = where.message
            else:
                self._placed.append(Placed(made, where))
                self._runs_from_s[name] = at_s + STARTS_WITHIN_S
        self._objects[kind, name] = made

    def pods(self, at_s: float) -> list[Json]:
        """The pods as the API server would show them."""
        return [{**pod, "status": self._status(pod["metadata"]["name"], at_s)} for pod in self._of("Pod")]

    def series(self, at_s: float) -> Iterator[tuple[str, float]]:
        """What kube-state-metrics would show of pods and quotas."""
        nodes = {one.pod["metadata"]["name"]: one.node.name for one in self._placed}
        for pod in self.pods(at_s):
            name, phase = pod["metadata"]["name"], pod["status"]["phase"]
            for one in PHASES:
                yield self._series("kube_pod_status_phase", pod=name, phase=one), float(one == phase)
            if name in self._unschedulable:
                yield self._series("kube_pod_status_unschedulable", pod=name), 1.0
            yield from self._requests(pod, nodes.get(name, ""))
        for quota in self._of("ResourceQuota"):
            named, counted = quota["metadata"]["name"], used(quota, self._of("Pod"))
            for key, most in quota["spec"]["hard"].items():
                for kind, amount in (("hard", quantity(most)), ("used", counted[key])):
                    yield (
                        self._series("kube_resourcequota", resourcequota=named, resource=key, type=kind),
                        float(amount),
                    )

    def _requests(self, pod: Json, node: str) -> Iterator[tuple[str, float]]:
        for container in pod["spec"]["containers"]:
            alone = {"spec": {"containers": [container]}}
            for resource, unit in (("cpu", "core"), ("memory", "byte"), ("nvidia.com/gpu", "integer")):
                if amount := asked(alone, f"requests.{resource}"):
                    yield (
                        self._series(
                            "kube_pod_container_resource_requests",
                            pod=pod["metadata"]["name"],
                            container=container["name"],
                            node=node,
                            resource=resource.translate(str.maketrans("./-", "___")),
                            unit=unit,
                        ),
                        float(amount),
                    )

    def _status(self, name: str, at_s: float) -> Json:
        condition: Json = {"type": "PodScheduled", "status": "True"}
        if (message := self._unschedulable.get(name)) is not None:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        running = name in self._runs_from_s and at_s >= self._runs_from_s[name]
        return {"phase": "Running" if running else "Pending", "conditions": [condition]}

    def _of(self, kind: str) -> list[Json]:
        return [one for key, one in self._objects.items() if key[0] == kind]

    def _series(self, metric: str, **labels: str) -> str:
        where = {"instance": EXPORTER, "job": EXPORTER, "namespace": self.namespace, **labels}
        listed = ",".join(f'{name}="{value}"' for name, value in where.items())
        return f"{metric}{{{listed}}}"


def apply_all(plane: ControlPlane, manifests: Iterable[Json], at_s: float) -> str | None:
    """Write objects in their order. None, or the refusal of one, at which it ends: `Pod big: 403 Forbidden: …`."""
    for manifest in manifests:
        try:
            plane.apply(manifest, at_s)
        except RefusedError as refused:
            about = f"{manifest['kind']} {manifest['metadata']['name']}"
            return f"{about}: {refused.status} {refused.reason}: {refused.message}"
    return None
