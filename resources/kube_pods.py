"""The pods of one Helm release: wait until they are ready, why one isn't, their log, how many there shall be.

Belongs here: asking the API server about pods, and judging what it says. Doesn't belong here: installing a release
(helm.py), or what its pods do (cluster_kubernetes.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resources import kube_api, kube_timeline, manifests
from resources.cluster import ClusterError, Progress
from resources.kube_api import Deadline, RefusedError
from resources.kube_timeline import LogLine

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = Mapping[str, Any]

INSTANCE_LABEL = "app.kubernetes.io/instance"
"""By which the pods of a release are told from others; every chart of the catalogue sets it."""
LOOK_EVERY_S = 1.0
GIVES_UP_AFTER = 2
"""Ends of a container after which it is taken to refuse its configuration. One may be an accident."""
TELL_EVERY_S = 15.0
LOG_LINES = 5000
"""At most so many of a log's last lines are read."""

_SCALED = ("/apis/apps/v1", ("deployments", "statefulsets"))
_REFUSALS = (
    re.compile(r'"event": "(?:wrong_arguments|out_of_memory)".*"message": "(?P<said>(?:[^"\\]|\\.)*)"'),
    re.compile(r"(?P<said>(?:torch\.)?(?:OutOfMemoryError|cuda\.OutOfMemoryError): .*)"),
    re.compile(r"(?P<said>ValueError: .*)"),
    re.compile(r"(?P<said>RuntimeError: .*)"),
    re.compile(r"vllm serve: error: (?P<said>.*)"),
)
"""What an engine says last when it won't start: the modelled server's log, then vLLM's last exceptions."""


class StartRefusedError(ClusterError):
    """A container ended again and again before it was ready. The message is its own."""


class ReleasePods:
    """The pods of release `release` in `namespace`."""

    def __init__(self, api_client: ApiClient, namespace: str, release: str) -> None:
        self._api, self._namespace, self._release = api_client, namespace, release

    def all(self, deadline: Deadline) -> list[Json]:
        """Every pod of the release, the youngest first. Raises `ClusterError`."""
        query = {"labelSelector": f"{INSTANCE_LABEL}={self._release}"}
        found = self._get(f"{self._root}/pods", deadline, query=query)["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)

    def wait_until_ready(self, *, container: str | None, deadline: Deadline, progress: Progress) -> list[Json]:
        """The pods, once every one that shall be there is ready.

        Raises `StartRefusedError` for a container that won't start, `ClusterError` at the deadline, with what the
        scheduler, the kubelet or the container itself says.
        """
        told_at, told = 0.0, ""
        while True:
            pods = [pod for pod in self.all(deadline) if pod["metadata"].get("deletionTimestamp") is None]
            if pods and len(pods) >= self._wanted(deadline) and all(is_ready(pod) for pod in pods):
                return pods
            for pod in pods:
                if ends(pod, container) >= GIVES_UP_AFTER:
                    raise StartRefusedError(self._last_words(pod, container, deadline))
            waiting = "; ".join(filter(None, (why_not_ready(pod) for pod in pods))) or "no pod is there yet"
            if deadline.remaining_s == 0:
                raise ClusterError(f"{self._release} is not ready in time: {waiting}{self._events(deadline)}")
            if waiting != told and time.monotonic() - told_at > TELL_EVERY_S:
                progress(f"{self._release}: {waiting}")
                told_at, told = time.monotonic(), waiting
            time.sleep(LOOK_EVERY_S)  # readiness hangs on several objects, so no single watch tells of it

    def wait_until_gone(self, deadline: Deadline) -> None:
        """Return once no pod of the release is left. Raises `ClusterError` at the deadline."""
        while left := [pod["metadata"]["name"] for pod in self.all(deadline)]:
            if deadline.remaining_s == 0:
                raise ClusterError(f"{', '.join(left)}: still there after being stopped")
            time.sleep(kube_api.RETRY_S)  # a pod's end is its kubelet's business

    def scale(self, replicas: int, deadline: Deadline) -> None:
        """Let every deployment and stateful set of the release have `replicas` pods. Raises `ClusterError`."""
        changed = 0
        for path, _ in self._workloads(deadline):
            self._request("PATCH", path, deadline, body={"spec": {"replicas": replicas}})
            changed += 1
        if not changed:
            raise ClusterError(f"component {self._release} is not up, so it can't be stopped or started")

    def log(self, pod: Json, *, container: str | None, deadline: Deadline, previous: bool = False) -> list[LogLine]:
        """The log of one container; empty for one that has none yet. Raises `ClusterError`."""
        query = {"timestamps": "true", "tailLines": str(LOG_LINES), "container": container or _serving(pod)}
        if previous:
            query["previous"] = "true"
        try:
            text = kube_api.text(
                self._api, f"{self._root}/pods/{pod['metadata']['name']}/log", query=query, deadline=deadline
            )
        except RefusedError:
            return []  # a container that waits, or has no former life, has no log
        return kube_timeline.log_lines(text)

    def events(self, pod: Json, deadline: Deadline) -> list[Json]:
        """What the scheduler and the kubelet noted about a pod. Raises `ClusterError`."""
        query = {"fieldSelector": f"involvedObject.uid={pod['metadata']['uid']}"}
        return self._get(f"{self._root}/events", deadline, query=query)["items"]

    def node(self, pod: Json, deadline: Deadline) -> Json | None:
        """The node of a pod, None before it has one. Raises `ClusterError`."""
        name = pod["spec"].get("nodeName")
        return self._get(f"/api/v1/nodes/{name}", deadline) if name else None

    def _wanted(self, deadline: Deadline) -> int:
        return sum(int(workload["spec"].get("replicas", 1)) for _, workload in self._workloads(deadline))

    def _workloads(self, deadline: Deadline) -> list[tuple[str, Json]]:
        root, kinds = _SCALED
        query = {"labelSelector": f"{INSTANCE_LABEL}={self._release}"}
        found = []
        for kind in kinds:
            collection = f"{root}/namespaces/{self._namespace}/{kind}"
            listed = self._get(collection, deadline, query=query)["items"]
            found += [(f"{collection}/{one['metadata']['name']}", one) for one in listed]
        return found

    def _last_words(self, pod: Json, container: str | None, deadline: Deadline) -> str:
        for previous in (False, True):
            lines = [line.text for line in self.log(pod, container=container, deadline=deadline, previous=previous)]
            if said := refusal_in(lines):
                return said
        return why_not_ready(pod) or f"{self._release} ends at once, and its log says nothing"

    def _events(self, deadline: Deadline) -> str:
        """The latest warning about each pod, for a message."""
        said = []
        for pod in self.all(Deadline.within(kube_api.READ_TIMEOUT_S)):
            warnings = [one for one in self.events(pod, Deadline.within(kube_api.READ_TIMEOUT_S)) if _warns(one)]
            said += [f"{one.get('reason')}: {' '.join(str(one.get('message')).split())}" for one in warnings[-1:]]
        return f" (events: {'; '.join(said)})" if said else ""

    @property
    def _root(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}"

    def _get(self, path: str, deadline: Deadline, *, query: Mapping[str, str] | None = None) -> Any:
        return self._asked(lambda: kube_api.request(self._api, "GET", path, query=query, deadline=deadline), path)

    def _request(self, method: str, path: str, deadline: Deadline, *, body: Json) -> Any:
        return self._asked(
            lambda: kube_api.request(
                self._api, method, path, body=body, content_type=kube_api.MERGE_PATCH, deadline=deadline
            ),
            path,
        )

    @staticmethod
    def _asked(ask: Callable[[], Any], path: str) -> Any:
        try:
            return ask()
        except RefusedError as refused:
            raise ClusterError(f"{path}: {refused}") from None


def is_ready(pod: Json) -> bool:
    """Whether a pod's condition Ready is true."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def ends(pod: Json, container: str | None) -> int:
    """How often the serving container has ended so far."""
    wanted = container or _serving(pod)
    for one in (pod.get("status") or {}).get("containerStatuses") or []:
        if one["name"] == wanted:
            return int(one.get("restartCount") or 0) + (1 if "terminated" in (one.get("state") or {}) else 0)
    return 0


def why_not_ready(pod: Json) -> str | None:
    """What the scheduler, a container or the kubelet says of a pod that isn't ready; None for one that is."""
    if is_ready(pod):
        return None
    outcome = manifests.pod_outcome(pod)
    return f"{outcome.name} is {outcome.phase}{f': {outcome.reason}' if outcome.reason else ''}"


def refusal_in(lines: Sequence[str]) -> str | None:
    """What an engine that would not start says in its log, the last such line; None if it says no such thing."""
    for line in reversed(lines):
        for pattern in _REFUSALS:
            if found := pattern.search(line):
                return " ".join(found["said"].replace('\\"', '"').split())
    return None


def _serving(pod: Json) -> str:
    return pod["spec"]["containers"][0]["name"]


def _warns(event: Json) -> bool:
    return event.get("type") == "Warning"
