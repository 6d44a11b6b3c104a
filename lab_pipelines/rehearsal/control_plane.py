"""A namespace's objects in virtual time: taken or refused, placed or pending, and what kube-state-metrics says of them.

Belongs here: the state of the objects, and when a placed pod runs and ends. Doesn't belong here: who may be
(admission.py), who goes where (scheduler.py), which nodes there are (node_pools.py), what a step expects
(resources/manifests.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lab_pipelines.rehearsal.admission import RefusedError, admit, asked, quantity, used
from lab_pipelines.rehearsal.node_pools import GPU, NodePools
from lab_pipelines.rehearsal.scheduler import Node, NotModelledError, Placed, Unschedulable, place

if TYPE_CHECKING:
    from lab_pipelines.catalog.prices import Sku

Json = dict[str, Any]

STARTS_WITHIN_S = 2.0
"""From a node to a running container whose image is small and already there; virtual seconds, an estimate."""
GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
"""Of every GPU pool of the labs; AKS's own documentation uses the same."""
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
"""The label of a node that names its machine."""
EXPORTER = "kube-state-metrics"
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
KINDS = ("Pod", "LimitRange", "ResourceQuota", "ConfigMap")
UNITS = (("cpu", "core"), ("memory", "byte"), (GPU, "integer"))
"""Resources that kube-state-metrics is asked for, with the unit that it gives them."""
PAST_DEADLINE = {
    "reason": "DeadlineExceeded",
    "message": "Pod was active on the node longer than the specified deadline",
}
"""What a kubelet says of a pod that it ends at its `activeDeadlineSeconds`."""
WaitedFor = Literal["node_requested", "node_ready", "driver_ready", "image_pulled"]


class Wait(NamedTuple):
    """A part of a pod's time from its creation to its image being there."""

    name: WaitedFor
    started_s: float
    ended_s: float


@dataclass
class _Pod:
    """A pod and what has become of it. Times are infinite as long as they are not known."""

    made: Json
    created_s: float
    node: Node | None = None
    unschedulable: str | None = None
    """The scheduler's last word, while it has no node."""
    placed_s: float = math.inf
    image_s: float = math.inf
    """When its image is on its node."""
    runs_s: float = math.inf
    ends_s: float = math.inf
    """At its deadline, which counts from its placement."""

    @property
    def name(self) -> str:
        return self.made["metadata"]["name"]

    def phase(self, at_s: float) -> str:
        if at_s >= self.ends_s:
            return "Failed"
        return "Running" if at_s >= self.runs_s else "Pending"

    def status(self, at_s: float) -> Json:
        condition: Json = {"type": "PodScheduled", "status": "True"}
        if self.unschedulable is not None:
            said = {"reason": "Unschedulable", "message": self.unschedulable}
            condition = {"type": "PodScheduled", "status": "False", **said}
        ended = PAST_DEADLINE if at_s >= self.ends_s else {}
        return {"phase": self.phase(at_s), "conditions": [condition], **ended}


def node_of(name: str, sku_name: str, sku: Sku) -> Node:
    """A Ready node of a SKU. All of the machine is allocatable: what AKS keeps for itself is left out."""
    amounts = {"cpu": str(sku.vcpus), "memory": f"{sku.memory_gib}Gi"}
    if sku.gpus:
        amounts[GPU] = str(sku.gpus)
    return Node(
        name=name,
        labels={"kubernetes.io/hostname": name, INSTANCE_TYPE: sku_name},
        allocatable={resource: quantity(amount) for resource, amount in amounts.items()},
        taints=(GPU_TAINT,) if sku.gpus else (),
    )


class ControlPlane:
    """API server, scheduler and kubelets of one namespace, over `nodes` that stay and those of `pools`.

    Time passes for it when it is asked for something; what has happened by then doesn't hang on how often it is asked.
    Without pools a pod that has no node waits until another one ends or is deleted.
    """

    def __init__(self, namespace: str, nodes: Sequence[Node], pools: NodePools | None = None) -> None:
        self.namespace = namespace
        self.pools = pools
        self._fixed = nodes
        self._pods: dict[str, _Pod] = {}
        self._objects: dict[tuple[str, str], Json] = {}
        """All but the pods, by (kind, name)."""
        self._now_s = -math.inf

    def apply(self, manifest: Json, at_s: float) -> None:
        """Write one object. Raises `RefusedError`; `NotModelledError` for what nothing here knows."""
        self._pass_to(at_s)
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind not in KINDS:
            raise NotModelledError(f"kind {kind}")
        made = copy.deepcopy(manifest)
        if kind != "Pod":
            self._objects[kind, name] = made
        elif name not in self._pods:
            others = [one.made for one in self._active()]
            admit(made, limit_ranges=self._of("LimitRange"), quotas=self._of("ResourceQuota"), others=others)
            pod = _Pod(made, self._now_s)
            self._place(pod)
            self._pods[name] = pod
            self._tell_pools()

    def delete(self, name: str, at_s: float) -> None:
        """Take a pod away; its place is free at once. Nothing happens if it isn't there."""
        self._pass_to(at_s)
        if self._pods.pop(name, None) is not None:
            self._place_all()

    def pods(self, at_s: float) -> list[Json]:
        """The pods as the API server would show them."""
        self._pass_to(at_s)
        return [{**pod.made, "status": pod.status(self._now_s)} for pod in self._pods.values()]

    def waits(self, name: str, at_s: float) -> list[Wait] | None:
        """What a pod waited for until its image was there, or None as long as it is not. Raises `KeyError`.

        In their order and without gaps, but for time in which it waited for room on a node that was there.
        """
        self._pass_to(at_s)
        pod = self._pods[name]
        if pod.image_s > self._now_s:
            return None
        edges: list[tuple[WaitedFor, float, float]] = [("image_pulled", pod.placed_s, pod.image_s)]
        node = self.pools.named(pod.node.name) if self.pools and pod.node else None
        if node is not None:
            edges = [
                ("node_requested", pod.created_s, node.requested_s),
                ("node_ready", node.requested_s, node.ready_s),
                ("driver_ready", node.ready_s, node.usable_s),
                *edges,
            ]
        clipped = [Wait(name, max(begun, pod.created_s), min(ended, pod.image_s)) for name, begun, ended in edges]
        return [wait for wait in clipped if wait.started_s < wait.ended_s]

    def why_waiting(self, name: str) -> str:
        """The last words of scheduler and autoscaler about a pod, for a person. Raises `KeyError`."""
        said = [self._pods[name].unschedulable, self.pools.last_word(name) if self.pools else None]
        return "; ".join(one for one in said if one) or "its image is being pulled"

    def next_change_s(self) -> float:
        """When something happens next by itself."""
        own = (at_s for pod in self._pods.values() for at_s in (pod.image_s, pod.runs_s, pod.ends_s))
        changes = [at_s for at_s in own if at_s > self._now_s]
        return min([*changes, self.pools.next_change_s() if self.pools else math.inf])

    def series(self, at_s: float) -> Iterator[tuple[str, float]]:
        """What kube-state-metrics would show of nodes, pods and quotas."""
        self._pass_to(at_s)
        yield from self._of_nodes()
        for pod in self._pods.values():
            for one in PHASES:
                yield (
                    self._series("kube_pod_status_phase", pod=pod.name, phase=one),
                    float(one == pod.phase(self._now_s)),
                )
            if pod.unschedulable is not None:
                yield self._series("kube_pod_status_unschedulable", pod=pod.name), 1.0
            yield from self._requests(pod.made, pod.node.name if pod.node else "")
        for quota in self._of("ResourceQuota"):
            named, counted = quota["metadata"]["name"], used(quota, [one.made for one in self._active()])
            for key, most in quota["spec"]["hard"].items():
                for kind, amount in (("hard", quantity(most)), ("used", counted[key])):
                    yield (
                        self._series("kube_resourcequota", resourcequota=named, resource=key, type=kind),
                        float(amount),
                    )

    def _of_nodes(self) -> Iterator[tuple[str, float]]:
        leaving = [one.node for one in self.pools.registered() if one.seen() is None] if self.pools else []
        for node in [*self._nodes(), *leaving]:
            yield self._series("kube_node_info", node=node.name), 1.0
            yield self._series("kube_node_status_condition", node=node.name, condition="Ready", status="true"), 1.0
            for resource, unit in UNITS:
                if amount := node.allocatable.get(resource):
                    labels = {"node": node.name, "resource": _word(resource), "unit": unit}
                    yield self._series("kube_node_status_allocatable", **labels), float(amount)

    def _requests(self, pod: Json, node: str) -> Iterator[tuple[str, float]]:
        for container in pod["spec"]["containers"]:
            alone = {"spec": {"containers": [container]}}
            for resource, unit in UNITS:
                if amount := asked(alone, f"requests.{resource}"):
                    yield (
                        self._series(
                            "kube_pod_container_resource_requests",
                            pod=pod["metadata"]["name"],
                            container=container["name"],
                            node=node,
                            resource=_word(resource),
                            unit=unit,
                        ),
                        float(amount),
                    )

    def _nodes(self) -> list[Node]:
        """All that a pod may be placed on now."""
        return [*self._fixed, *(self.pools.schedulable() if self.pools else [])]

    def _active(self) -> list[_Pod]:
        """Those that have not ended: only they hold room and count for a quota."""
        return [pod for pod in self._pods.values() if pod.ends_s > self._now_s]

    def _placed(self) -> list[Placed]:
        return [Placed(pod.made, pod.node) for pod in self._active() if pod.node is not None]

    def _waiting(self) -> list[_Pod]:
        return [pod for pod in self._pods.values() if pod.node is None]

    def _pass_to(self, at_s: float) -> None:
        while (edge_s := self.next_change_s()) <= at_s:
            self._now_s = max(self._now_s, edge_s)
            if self.pools is not None:
                self.pools.pass_to(self._now_s)
            self._place_all()
            if self.pools is not None:
                waiting = [pod.made for pod in self._waiting()]
                self.pools.scan_if_due(self._now_s, waiting, self._placed(), self._fixed)
                self._forget_orphans()
        self._now_s = max(self._now_s, at_s)

    def _place_all(self) -> None:
        for pod in self._waiting():
            self._place(pod)
        self._tell_pools()

    def _place(self, pod: _Pod) -> None:
        where = place(pod.made, self._nodes(), self._placed())
        if isinstance(where, Unschedulable):
            pod.unschedulable = where.message
            return
        pod.node, pod.unschedulable, pod.placed_s = where, None, self._now_s
        pod.image_s = self._image_there_s(pod, where)
        pod.runs_s = pod.image_s + STARTS_WITHIN_S
        if (lasts_s := pod.made["spec"].get("activeDeadlineSeconds")) is not None:
            pod.ends_s = self._now_s + float(lasts_s)

    def _image_there_s(self, pod: _Pod, where: Node) -> float:
        """When all of its images are on the node. A node of no pool has every image already."""
        node = self.pools.named(where.name) if self.pools else None
        if node is None:
            return self._now_s
        return max(node.image_there_s(one["image"], self._now_s) for one in pod.made["spec"]["containers"])

    def _tell_pools(self) -> None:
        if self.pools is not None:
            self.pools.occupy({one.node.name for one in self._placed()}, self._now_s)

    def _forget_orphans(self) -> None:
        """A pod that has ended goes with its node, as the garbage collector of pods does it."""
        assert self.pools is not None
        there = {node.name for node in self._fixed} | {one.node.name for one in self.pools.registered()}
        self._pods = {n: pod for n, pod in self._pods.items() if pod.node is None or pod.node.name in there}

    def _of(self, kind: str) -> list[Json]:
        return [one for key, one in self._objects.items() if key[0] == kind]

    def _series(self, metric: str, **labels: str) -> str:
        where = {"instance": EXPORTER, "job": EXPORTER, "namespace": self.namespace, **labels}
        listed = ",".join(f'{name}="{value}"' for name, value in where.items())
        return f"{metric}{{{listed}}}"


def _word(resource: str) -> str:
    """A resource's name as kube-state-metrics writes it."""
    return resource.translate(str.maketrans("./-", "___"))


def apply_all(plane: ControlPlane, manifests: Iterable[Json], at_s: float) -> str | None:
    """Write objects in their order. None, or the refusal of one, at which it ends: `Pod big: 403 Forbidden: …`."""
    for manifest in manifests:
        try:
            plane.apply(manifest, at_s)
        except RefusedError as refused:
            about = f"{manifest['kind']} {manifest['metadata']['name']}"
            return f"{about}: {refused.status} {refused.reason}: {refused.message}"
    return None
