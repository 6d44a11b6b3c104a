"""Why workloads of a cluster are not ready: the scheduler's words, the kubelet's, the container's last lines.

Belongs here: pure functions over the API's objects, and the requests that gather these. Doesn't belong here: Helm
(helm.py), what a pod of an `apply` step should have become (manifests.py), times (the cold start's timeline).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resources import kube_api
from resources.kube_api import Deadline, RefusedError
from resources.manifests import pod_outcome
from resources.redaction import redacted

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = Mapping[str, Any]
"""One object as the API server's JSON has it."""

WORKLOADS = ("deployments", "statefulsets", "daemonsets")
RESTARTS_THAT_TELL = 2
"""A container that failed, was started again and failed again won't do better the third time. A first failure may be
a download that broke off."""
LOG_LINES = 20
EVENTS = 5
LONGEST = 1500
"""Characters of a diagnosis in one line: what fits into an error that somebody reads."""


@dataclass(frozen=True)
class Seen:
    """What there was of a release, or of any set of labels, at one moment."""

    workloads: Sequence[Object]
    """Deployments, StatefulSets and DaemonSets, each with its `kind`."""
    pods: Sequence[Object]
    events: Sequence[Object] = ()
    logs: Mapping[str, str] = field(default_factory=dict)
    """The end of a pod's log, by its name."""


@dataclass(frozen=True)
class Trouble:
    """What is wrong with one pod, or with a workload that has none."""

    about: str
    """`pod vllm-7f9c-x2k1p` or `Deployment vllm`."""
    reason: str
    events: list[str]
    """Warnings, the newest last."""
    log: list[str]
    """The last lines of its container, secrets hidden."""


# --- Pure ---


def unready(seen: Seen, expected: Sequence[tuple[str, str]] = ()) -> list[str]:
    """What is still waited for, one line each: workloads without all their pods, pods of nobody that are not ready.

    `expected`: (kind, name) of workloads that must be there.
    """
    there = {(one["kind"], one["metadata"]["name"]) for one in seen.workloads}
    waited = [f"{kind} {name} is not there yet" for kind, name in expected if (kind, name) not in there]
    for one in seen.workloads:
        if why := _workload_is_short_of(one):
            waited.append(f"{one['kind']} {one['metadata']['name']}: {why}")
    for pod in seen.pods:
        if not pod["metadata"].get("ownerReferences") and not _is_done(pod):
            waited.append(f"pod {pod['metadata']['name']}: {_phase(pod)}, not ready")
    return waited


def hopeless(seen: Seen) -> str | None:
    """Why waiting longer is of no use: a container keeps failing, or its image can't exist. None: it may still do."""
    for pod in seen.pods:
        for container in _containers(pod):
            waiting = (container.get("state") or {}).get("waiting") or {}
            about = f"pod {pod['metadata']['name']}, container {container['name']}"
            if waiting.get("reason") in ("InvalidImageName", "ErrImageNeverPull"):
                return f"{about}: {waiting['reason']}: {waiting.get('message', '')}"
            if waiting.get("reason") == "CrashLoopBackOff" and container.get("restartCount", 0) >= RESTARTS_THAT_TELL:
                last = (container.get("lastState") or {}).get("terminated") or {}
                why = f"{last.get('reason', 'Error')}, exit code {last.get('exitCode')}"
                return f"{about} failed {container['restartCount']} times ({why})"
    return None


def diagnose(seen: Seen, hidden: Collection[str] = ()) -> list[Trouble]:
    """Each pod that is not ready, with everything that was said about it; workloads that get no pods first.

    `hidden`: values that must not be told, beside whatever looks like a secret.
    """
    troubles = []
    for one in seen.workloads:
        failures = [
            said.get("message", "")
            for said in (one.get("status") or {}).get("conditions") or []
            if said["type"] == "ReplicaFailure" and said["status"] == "True"
        ]
        name, mine = one["metadata"]["name"], _warnings(seen.events, _is_part(one), hidden)
        if failures or (mine and _workload_is_short_of(one)):
            reason = failures[0] if failures else _workload_is_short_of(one) or ""
            troubles.append(Trouble(f"{one['kind']} {name}", redacted(reason, hidden), mine, []))
    for pod in seen.pods:
        if not _is_done(pod):
            name = pod["metadata"]["name"]
            outcome = pod_outcome(pod)
            reason = f"{outcome.phase}: {outcome.reason or _on_its_way(pod)}"
            events = _warnings(seen.events, _is_about(name), hidden)
            log = [redacted(line, hidden) for line in seen.logs.get(name, "").splitlines() if line.strip()]
            troubles.append(Trouble(f"pod {name}", redacted(reason, hidden), events, log[-LOG_LINES:]))
    return troubles


def in_one_line(troubles: Sequence[Trouble]) -> str:
    """The troubles as one line of at most `LONGEST` characters; each log's last three lines."""
    parts = []
    for one in troubles:
        said = [one.reason, *(event for event in one.events[-2:] if not _says(one.reason, event))]
        if one.log:
            said.append(f"its log ends: {' | '.join(one.log[-3:])}")
        parts.append(f"{one.about} is {'; '.join(said)}" if one.about.startswith("pod ") else f"{one.about}: {said[0]}")
    line = " ".join("; ".join(parts).split()) or "nothing says why"
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _says(reason: str, event: str) -> bool:
    """Whether an event repeats the reason."""
    return event.partition(": ")[2] in reason


def _workload_is_short_of(one: Object) -> str | None:
    spec, status = one["spec"], one.get("status") or {}
    if status.get("observedGeneration", 0) < one["metadata"].get("generation", 0):
        return "its controller has not seen it yet"
    if one["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        fresh, ready = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
        there = wanted
    else:
        wanted, there = spec.get("replicas", 1), status.get("replicas", 0)
        fresh = status.get("updatedReplicas", 0)
        ready = status.get("availableReplicas" if one["kind"] == "Deployment" else "readyReplicas", 0)
    if fresh < wanted:
        return f"{fresh} of {wanted} pods are of the newest kind"
    if there > wanted:
        return f"old pods are still there: {there - wanted}"
    return f"{ready} of {wanted} pods are ready" if ready < wanted else None


def _is_done(pod: Object) -> bool:
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in _conditions(pod))
    return ready or _phase(pod) == "Succeeded" or "deletionTimestamp" in pod["metadata"]


def _phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase") or "Unknown"


def _conditions(pod: Object) -> Sequence[Object]:
    return (pod.get("status") or {}).get("conditions") or []


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _on_its_way(pod: Object) -> str:
    """What a pod is at that gives no reason: it waits for its node, its image, or its readiness probe."""
    if not any(one["type"] == "PodScheduled" and one["status"] == "True" for one in _conditions(pod)):
        return "not scheduled yet"
    states = [one.get("state") or {} for one in _containers(pod)]
    if any("running" in state for state in states):
        return "its containers run, but are not ready"
    return "its containers are being made"


def _is_about(pod: str) -> Callable[[Object], bool]:
    return lambda event: event["involvedObject"].get("name") == pod


def _is_part(workload: Object) -> Callable[[Object], bool]:
    """Whether an event is about a workload or the ReplicaSet that it made; a pod's events are told with the pod."""
    name = workload["metadata"]["name"]

    def of(event: Object) -> bool:
        about = event["involvedObject"]
        made = about.get("kind") == "ReplicaSet" and about.get("name", "").rpartition("-")[0] == name
        return made or (about.get("kind") == workload["kind"] and about.get("name") == name)

    return of


def _warnings(events: Sequence[Object], fits: Callable[[Object], bool], hidden: Collection[str]) -> list[str]:
    mine = [one for one in events if one.get("type") == "Warning" and fits(one)]
    mine.sort(key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
    said = [redacted(f"{one.get('reason')}: {' '.join((one.get('message') or '').split())}", hidden) for one in mine]
    return list(dict.fromkeys(reversed(said)))[:EVENTS][::-1]


# --- I/O ---


def look(api_client: ApiClient, *, namespace: str, labels: Mapping[str, str], deadline: Deadline) -> Seen:
    """Workloads and pods with these labels, as they are now. Raises `ClusterError`, `RefusedError`."""
    query = {"labelSelector": kube_api.selector_of(labels)}

    def listed(path: str) -> Sequence[Object]:
        return kube_api.request(api_client, "GET", path, query=query, deadline=deadline)["items"]

    kinds = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
    workloads = [
        {**one, "kind": kinds[plural]}  # the elements of a list don't say their kind
        for plural in WORKLOADS
        for one in listed(f"/apis/apps/v1/namespaces/{namespace}/{plural}")
    ]
    return Seen(workloads, listed(f"/api/v1/namespaces/{namespace}/pods"))


def with_words(api_client: ApiClient, seen: Seen, *, namespace: str, deadline: Deadline) -> Seen:
    """The same with the namespace's events and the ends of the logs of pods that are not ready.

    What can't be had is left out: a diagnosis must not fail where something else already has.
    """
    core = f"/api/v1/namespaces/{namespace}"
    try:
        events = kube_api.request(api_client, "GET", f"{core}/events", deadline=deadline)["items"]
    except (kube_api.ClusterError, RefusedError):
        events = []
    logs = {}
    for pod in seen.pods:
        name, containers = pod["metadata"]["name"], _containers(pod)
        failed = [one for one in containers if not one.get("ready")]
        if _is_done(pod) or not failed:
            continue
        gone = failed[0].get("restartCount", 0) > 0 and "running" not in (failed[0].get("state") or {})
        query = {"container": failed[0]["name"], "tailLines": str(LOG_LINES), **({"previous": "true"} if gone else {})}
        try:
            logs[name] = kube_api.read_text(api_client, f"{core}/pods/{name}/log", query=query, deadline=deadline)
        except (kube_api.ClusterError, RefusedError):
            continue  # a container that has not started has none
    return Seen(seen.workloads, seen.pods, events, logs)
