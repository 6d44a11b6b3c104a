"""What the contract's tests share: a cluster, a place of their own in it, and what they put there.

Belongs here: helpers that work on the double and on a real cluster alike. Doesn't belong here: anything that asks which
of the two it is.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client

from resources import kube_api, manifests
from resources.helm import HelmReleases
from resources.kube_api import Deadline
from resources.manifests import Manifest

WITHIN_S = 60.0
"""How long a cluster may take for what it does at once."""
LABELS = {"lab": "l07", "cost-center": "contract-tests", "run-id": "contract"}
IMAGE = "registry.k8s.io/pause:3.10.1"
NOWHERE = {"labs.example/no-such-label": "true"}
KWOK_TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
"""Keeps other pods away from a node that only pretends to run them."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """A client of a cluster, and a namespace of the test's own."""

    api_client: client.ApiClient
    kubeconfig: Path
    namespace: str

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """One request; a path without a leading slash is one of the namespace, in the core API."""
        whole = path if path.startswith("/") else f"/api/v1/namespaces/{self.namespace}/{path}"
        options = {"content_type": kube_api.JSON, "deadline": Deadline.within(WITHIN_S), **options}
        return kube_api.request(self.api_client, method, whole, body=body, **options)

    def apply(self, *objects: Manifest) -> str | None:
        deadline = Deadline.within(WITHIN_S)
        return manifests.apply(self.api_client, objects, namespace=self.namespace, labels=LABELS, deadline=deadline)

    def read(self, plural: str, name: str) -> Any:
        return self.ask("GET", f"{plural}/{name}")

    def pods(self, **labels: str) -> list[Any]:
        return self.ask("GET", "pods", query={"labelSelector": kube_api.selector_of(labels)})["items"]

    @property
    def releases(self) -> HelmReleases:
        return HelmReleases(self.api_client, kubeconfig=self.kubeconfig, context=None, namespace=self.namespace)


def until(look: Callable[[], _T], what: str, *, within_s: float = WITHIN_S) -> _T:
    """What `look` gives once it gives something. Raises `AssertionError`."""
    deadline = Deadline.within(within_s)
    while not (found := look()):
        assert deadline.remaining_s > 0, f"{what}: not within {within_s:g} s"
        time.sleep(0.05)
    return found


def unique(prefix: str) -> str:
    """A name that no other test run has at the same time."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def pod(name: str, resources: dict[str, Any] | None = None, **spec: Any) -> Manifest:
    container = {"name": "idle", "image": IMAGE, "resources": resources or {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def quota(name: str, **hard: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}}


def workload(kind: str, name: str, node: Mapping[str, str], **spec: Any) -> Manifest:
    """A Deployment or StatefulSet of pods that do nothing, on nodes with these labels."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {**on(node), **pod("x")["spec"], **on(node)}}
    body = {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


def on(node: Mapping[str, str]) -> dict[str, Any]:
    """The part of a pod's spec that lets it onto the test's own node, and nowhere else."""
    tolerations = [{"key": KWOK_TAINT["key"], "operator": "Exists"}]
    return {"nodeSelector": dict(node), "tolerations": tolerations}


def kwok_node(name: str, **status: str) -> Manifest:
    """A node that kwok keeps Ready, with these amounts beside CPU and memory."""
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "20", **status}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"labs.example/node": name, "kubernetes.io/hostname": name, "type": "kwok"},
        },
        "spec": {"taints": [KWOK_TAINT]},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


def is_ready(one: Mapping[str, Any]) -> bool:
    conditions = (one.get("status") or {}).get("conditions") or []
    return any(said["type"] == "Ready" and said["status"] == "True" for said in conditions)
