"""The pods of one Helm release: which there are, and what is known of them.

Belongs here: asking the API server about them, and what an engine's log says. Doesn't belong here: installing a release
and waiting for it (helm.py), why pods are not ready (diagnosis.py), or what they do (cluster_kubernetes.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resources import kube_api, kube_timeline
from resources.cluster import ClusterError
from resources.helm import RELEASE_LABEL
from resources.kube_api import Deadline, RefusedError
from resources.kube_timeline import LogLine

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = Mapping[str, Any]

LOG_LINES = 5000
"""At most so many of a log's last lines are read."""

_REFUSALS = (
    re.compile(r'"event": "(?:wrong_arguments|out_of_memory)".*"message": "(?P<said>(?:[^"\\]|\\.)*)"'),
    re.compile(r"(?P<said>(?:torch\.)?(?:OutOfMemoryError|cuda\.OutOfMemoryError): .*)"),
    re.compile(r"(?P<said>ValueError: .*)"),
    re.compile(r"(?P<said>RuntimeError: .*)"),
    re.compile(r"vllm serve: error: (?P<said>.*)"),
)
"""What an engine says last when it won't start: the modelled server's log, then vLLM's last exceptions."""


class ReleasePods:
    """The pods of release `release` in `namespace`."""

    def __init__(self, api_client: ApiClient, namespace: str, release: str) -> None:
        self._api, self._namespace, self._release = api_client, namespace, release

    def all(self, deadline: Deadline) -> list[Json]:
        """Every pod of the release, the youngest first. Raises `ClusterError`."""
        found = self._get(f"{self._root}/pods", deadline, query=self._selected)["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)

    def wait_until_gone(self, deadline: Deadline) -> None:
        """Return once no pod of the release is left. Raises `ClusterError` at the deadline."""
        while left := [pod["metadata"]["name"] for pod in self.all(deadline)]:
            if deadline.remaining_s == 0:
                raise ClusterError(f"{', '.join(left)}: still there after being stopped")
            time.sleep(kube_api.RETRY_S)  # a pod's end is its kubelet's business

    def log(self, pod: Json, *, container: str | None, deadline: Deadline) -> list[LogLine]:
        """The log of one container, or of the pod's first; empty for one that has none yet. Raises `ClusterError`."""
        name = container or pod["spec"]["containers"][0]["name"]
        query = {"timestamps": "true", "tailLines": str(LOG_LINES), "container": name}
        path = f"{self._root}/pods/{pod['metadata']['name']}/log"
        try:
            text = kube_api.read_text(self._api, path, query=query, deadline=deadline)
        except RefusedError:
            return []  # a container that waits has no log
        return kube_timeline.log_lines(text)

    def events(self, pod: Json, deadline: Deadline) -> list[Json]:
        """What the scheduler and the kubelet noted about a pod. Raises `ClusterError`."""
        query = {"fieldSelector": f"involvedObject.uid={pod['metadata']['uid']}"}
        return self._get(f"{self._root}/events", deadline, query=query)["items"]

    def node(self, pod: Json, deadline: Deadline) -> Json | None:
        """The node of a pod, None before it has one. Raises `ClusterError`."""
        name = pod["spec"].get("nodeName")
        return self._get(f"/api/v1/nodes/{name}", deadline) if name else None

    @property
    def _root(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}"

    @property
    def _selected(self) -> dict[str, str]:
        return {"labelSelector": f"{RELEASE_LABEL}={self._release}"}

    def _get(self, path: str, deadline: Deadline, *, query: Mapping[str, str] | None = None) -> Any:
        try:
            return kube_api.request(self._api, "GET", path, query=query, deadline=deadline)
        except RefusedError as refused:
            raise ClusterError(f"{path}: {refused}") from None


def is_ready(pod: Json) -> bool:
    """Whether a pod's condition Ready is true."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def refusal_in(lines: Sequence[str]) -> str | None:
    """What an engine that would not start says in its log, the last such line; None if it says no such thing."""
    for line in reversed(lines):
        for pattern in _REFUSALS:
            if found := pattern.search(line):
                return " ".join(found["said"].replace('\\"', '"').split())
    return None
