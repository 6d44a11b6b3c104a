"""The life of a pod: scheduled, its image pulled, started, ready, ended, each with its time, condition and event.

Belongs here: scheduler and kubelet of the double, and the processes that play a pod's container. Doesn't belong here:
who makes pods (controllers.py), how they are reached (portforward.py).

A pod runs without a process unless a test gives it one: it becomes Running, Ready, and if it is a Job's, Succeeded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lab_pipelines.rehearsal import scheduler
from lab_pipelines.rehearsal.admission import quantity
from tests.support.kube import statuses
from tests.support.kube.kinds import Json
from tests.support.kube.loop import Loop
from tests.support.kube.statuses import with_condition
from tests.support.kube.store import Change, Key, Store

Address = tuple[str, int]


@dataclass(frozen=True)
class Delays:
    """How long each part of a pod's life takes, in seconds."""

    schedule_s: float = 0.0
    pull_s: float = 0.0
    start_s: float = 0.0
    ready_s: float = 0.0
    restart_s: float = 0.1
    """Until the kubelet starts a failed container again; twice as long each time."""
    job_s: float = 0.0
    """How long a Job's pod without a process runs."""


@dataclass(frozen=True)
class PodProcess:
    """What plays a pod's container on this machine."""

    ports: Mapping[int, Address] = field(default_factory=dict)
    """Where each port of the container is on loopback."""
    log: Callable[[], str] = str
    """What the container has written so far."""
    stop: Callable[[], None] = lambda: None
    wait: Callable[[], int] | None = None
    """Returns the container's exit code once it has ended; None for one that runs until it is stopped."""
    message: Callable[[], str] = str
    """What it has left as its termination message."""


class PodCrashedError(Exception):
    """Raised by what starts a pod's process: the container ended at once."""

    def __init__(self, exit_code: int, log: str) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code, self.log = exit_code, log


Start = Callable[[Json], PodProcess]
"""Starts what plays a pod; called with the pod, on a thread of its own; returns once it answers."""


@dataclass
class Kubelet:
    """Schedules and runs every pod of a store."""

    store: Store
    loop: Loop
    decisions: Callable[[str], Sequence[Json] | None]
    """The statuses that a test gives to the pods of a name or an owner's name."""
    delays: Delays = field(default_factory=Delays)
    logs: dict[str, str] = field(default_factory=dict)
    """By the pod's name, for one without a process."""
    _starts: list[tuple[Callable[[Json], bool], Start]] = field(default_factory=list)
    _processes: dict[str, PodProcess] = field(default_factory=dict)
    """By the pod's uid."""
    _pending: dict[Key, None] = field(default_factory=dict)
    _address: int = 0

    def __post_init__(self) -> None:
        self.store.listeners.append(self._on_change)

    def plays(self, start: Start, *, image: str | None, labels: Mapping[str, str]) -> None:
        def matches(pod: Json) -> bool:
            images = [one["image"] for one in pod["spec"]["containers"]]
            fits = image is None or any(one == image or one.rsplit(":", 1)[0] == image for one in images)
            return fits and labels.items() <= (pod["metadata"].get("labels") or {}).items()

        self._starts.append((matches, start))

    def process_of(self, pod: Json) -> PodProcess | None:
        return self._processes.get(pod["metadata"]["uid"])

    def log_of(self, pod: Json) -> str:
        if (process := self.process_of(pod)) is not None:
            return process.log()
        return self.logs.get(pod["metadata"]["name"], "")

    def stop_all(self) -> None:
        for process in list(self._processes.values()):
            process.stop()

    def _on_change(self, change: Change) -> None:
        resource = change.key.resource
        if resource == "pods" and change.type == "ADDED":
            self.loop.later(self.delays.schedule_s, lambda: self._schedule(change.key))
        elif resource == "pods" and change.type == "DELETED":
            self._pending.pop(change.key, None)
            if (process := self._processes.pop(change.after["metadata"]["uid"], None)) is not None:
                threading.Thread(target=process.stop, daemon=True).start()
        if resource == "nodes" and change.type == "DELETED":
            self._collect(change.key.name)
        elif resource == "nodes" and _pretends(change.after):
            self._make_ready(change.key, change.after)
        if self._pending and (resource == "nodes" or (resource == "pods" and _frees(change))):
            self.loop.later(0.0, self._schedule_pending)

    # --- Nodes ---

    def _make_ready(self, key: Key, node: Json) -> None:
        """As kwok does with a node that is only declared."""
        status = with_condition(node.get("status") or {}, "Ready", True, statuses.now(), reason="KubeletReady")
        self.store.put(key, {**node, "status": {**status, "phase": "Running"}})

    def _collect(self, node: str) -> None:
        """A pod doesn't outlive its node."""
        for key in self.store.keys("pods"):
            if (self.store.get(key) or {"spec": {}})["spec"].get("nodeName") == node:
                self.store.delete(key)

    # --- The scheduler ---

    def _schedule_pending(self) -> None:
        for key in list(self._pending):
            self._schedule(key)

    def _schedule(self, key: Key) -> None:
        pod = self.store.get(key)
        if pod is None or statuses.is_bound(pod) or statuses.is_over(pod) or "deletionTimestamp" in pod["metadata"]:
            return
        if (scripted := self._scripted(pod)) is not None:
            for status in scripted:
                self._set_status(key, status)
            return
        node: str | None = pod["spec"].get("nodeName")
        nodes = self.store.of("nodes")
        if nodes and node is None:
            found = scheduler.place(pod, [_node(one) for one in nodes], self._placed(nodes))
            if isinstance(found, scheduler.Unschedulable):
                self._refuse(key, pod, found.message)
                return
            node = found.name
        self._pending.pop(key, None)
        at = statuses.now()
        status = with_condition({**pod["status"], "startTime": at}, "PodScheduled", True, at)
        for one in ("Initialized", "Ready", "ContainersReady"):
            ready = one == "Initialized"
            status = with_condition(status, one, ready, at, reason="" if ready else "ContainersNotReady")
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        status["containerStatuses"] = [_container(one, waiting, ready=False) for one in pod["spec"]["containers"]]
        spec = {**pod["spec"], **({"nodeName": node} if node else {})}
        pod = self.store.put(key, {**pod, "spec": spec, "status": status})
        self.event(pod, "Scheduled", f"Successfully assigned {key.namespace}/{key.name} to {node}", "default-scheduler")
        for one in pod["spec"]["containers"]:
            self.event(pod, "Pulling", f'Pulling image "{one["image"]}"', "kubelet")
        uid = pod["metadata"]["uid"]
        self.loop.later(self.delays.pull_s, lambda: self._pulled(key, uid))

    def _scripted(self, pod: Json) -> Sequence[Json] | None:
        """The statuses for a pod by its name, its owner's, or the owner's owner's: a Deployment's."""
        names, there = [pod["metadata"]["name"]], pod
        while owner := next(iter(there["metadata"].get("ownerReferences") or []), None):
            names.append(owner["name"])
            key = Key(_RESOURCE_OF.get(owner["kind"], ""), pod["metadata"]["namespace"], owner["name"])
            there = self.store.get(key) or {"metadata": {}}
        return next((found for name in names if (found := self.decisions(name)) is not None), None)

    def _refuse(self, key: Key, pod: Json, message: str) -> None:
        self._pending[key] = None
        at = statuses.now()
        status = with_condition(pod["status"], "PodScheduled", False, at, reason="Unschedulable", message=message)
        if status != pod["status"]:
            pod = self.store.put(key, {**pod, "status": status})
            self.event(pod, "FailedScheduling", message, "default-scheduler", warning=True)

    def tolerates(self, template: Json, node: str) -> bool:
        """Whether a DaemonSet's pod may be on a node: its filters, whatever else is there."""
        found = next(one for one in self.store.of("nodes") if one["metadata"]["name"] == node)
        pod = {"metadata": template.get("metadata") or {}, "spec": template["spec"]}
        return isinstance(scheduler.place(pod, [_node(found)], []), scheduler.Node)

    def _placed(self, nodes: list[Json]) -> list[scheduler.Placed]:
        known = {one["metadata"]["name"]: _node(one) for one in nodes}
        return [
            scheduler.Placed(pod, known[name])
            for pod in self.store.of("pods")
            if (name := pod["spec"].get("nodeName")) in known and not statuses.is_over(pod)
        ]

    # --- The kubelet ---

    def _pulled(self, key: Key, uid: str) -> None:
        if (pod := self._same(key, uid)) is None:
            return
        for one in pod["spec"]["containers"]:
            took = f"{self.delays.pull_s:g}s"
            said = f'Successfully pulled image "{one["image"]}" in {took} ({took} including waiting)'
            self.event(pod, "Pulled", said, "kubelet")
            self.event(pod, "Created", f"Created container: {one['name']}", "kubelet")
        self.loop.later(self.delays.start_s, lambda: self._started(key, uid))

    def _started(self, key: Key, uid: str) -> None:
        if (pod := self._same(key, uid)) is None:
            return
        self._address += 1
        at = statuses.now()
        address = f"10.244.{self._address // 250}.{self._address % 250 + 1}"
        restarts = max((one["restartCount"] for one in pod["status"]["containerStatuses"]), default=0)
        running = [
            _container(one, {"running": {"startedAt": at}}, ready=False, restarts=restarts)
            for one in pod["spec"]["containers"]
        ]
        status = {**pod["status"], "phase": "Running", "podIP": address, "containerStatuses": running}
        pod = self.store.put(key, {**pod, "status": status})
        for one in pod["spec"]["containers"]:
            self.event(pod, "Started", f"Started container {one['name']}", "kubelet")
        start = next((start for matches, start in self._starts if matches(pod)), None)
        if start is None:
            self.loop.later(self.delays.ready_s, lambda: self._ready(key, uid))
            if pod["spec"].get("restartPolicy") != "Always":
                self.loop.later(self.delays.ready_s + self.delays.job_s, lambda: self._end(key, uid, 0))
        else:
            threading.Thread(target=self._play, args=(key, uid, pod, start), daemon=True).start()

    def _play(self, key: Key, uid: str, pod: Json, start: Start) -> None:
        """On a thread of its own: start the process, and follow it to its end."""
        try:
            process = start(pod)
        except PodCrashedError as crashed:
            with self.store.changed:
                self.logs[key.name] = crashed.log
                self._end(key, uid, crashed.exit_code)
            return
        with self.store.changed:
            if self._same(key, uid) is None:
                process.stop()
                return
            self._processes[uid] = process
            self.loop.later(self.delays.ready_s, lambda: self._ready(key, uid))
        if process.wait is not None:
            exit_code = process.wait()
            with self.store.changed:
                self._end(key, uid, exit_code, message=process.message())

    def _ready(self, key: Key, uid: str) -> None:
        pod = self._same(key, uid)
        if pod is None or pod["status"]["phase"] != "Running":
            return
        status, at = pod["status"], statuses.now()
        for one in ("ContainersReady", "Ready"):
            status = with_condition(status, one, True, at)
        ready = [{**one, "ready": True} for one in status["containerStatuses"]]
        self.store.put(key, {**pod, "status": {**status, "containerStatuses": ready}})

    def _end(self, key: Key, uid: str, exit_code: int, *, message: str = "") -> None:
        """The container ended: so does the pod, unless it is to be started again, which takes the kubelet a while."""
        pod = self._same(key, uid)
        if pod is None or statuses.is_over(pod):
            return
        at = statuses.now()
        reason = "Error" if exit_code else "Completed"
        said = {"message": message} if message else {}
        over = {"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": at, **said}}
        policy = pod["spec"].get("restartPolicy", "Always")
        again = policy == "Always" or (policy == "OnFailure" and exit_code != 0)
        status = pod["status"]
        for one in ("ContainersReady", "Ready"):
            status = with_condition(status, one, False, at, reason="ContainersNotReady" if again else "PodCompleted")
        containers = []
        for one in status["containerStatuses"]:
            if again:
                name = pod["metadata"]["name"]
                said = f"back-off 10s restarting failed container={one['name']} pod={name}"
                waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": said}}
                restarts = one["restartCount"] + 1
                containers.append(
                    {**one, "ready": False, "state": waiting, "lastState": over, "restartCount": restarts}
                )
            else:
                containers.append({**one, "ready": False, "state": over})
        phase = pod["status"]["phase"] if again else "Failed" if exit_code else "Succeeded"
        pod = self.store.put(key, {**pod, "status": {**status, "phase": phase, "containerStatuses": containers}})
        if again:
            self._processes.pop(uid, None)
            restarts = max(one["restartCount"] for one in containers)
            self.loop.later(self.delays.restart_s * 2 ** (restarts - 1), lambda: self._started(key, uid))
            self.event(pod, "BackOff", "Back-off restarting failed container", "kubelet", warning=True)

    def end(self, key: Key, exit_code: int) -> None:
        """A test ends a pod's container."""
        with self.store.changed:
            if (pod := self.store.get(key)) is not None:
                self._end(key, pod["metadata"]["uid"], exit_code)

    def _same(self, key: Key, uid: str) -> Json | None:
        pod = self.store.get(key)
        gone = pod is None or pod["metadata"]["uid"] != uid or "deletionTimestamp" in pod["metadata"]
        return None if gone else pod

    def _set_status(self, key: Key, status: Json) -> None:
        if (pod := self.store.get(key)) is not None:
            self.store.put(key, {**pod, "status": status})

    def event(self, about: Json, reason: str, message: str, source: str, *, warning: bool = False) -> None:
        """Write an Event about an object, as its component would."""
        metadata = about["metadata"]
        name = f"{metadata['name']}.{self.store.version:x}"
        kind = about.get("kind", "Pod")
        involved = {name: metadata[name] for name in ("name", "namespace", "uid")}
        at = statuses.now()
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {"apiVersion": about.get("apiVersion", "v1"), "kind": kind, **involved},
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": source},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "eventTime": statuses.now_micro() if source == "default-scheduler" else None,
            "count": 1,
        }
        self.store.put(Key("events", metadata["namespace"], name), event)


_RESOURCE_OF = {
    "ReplicaSet": "replicasets.apps",
    "Deployment": "deployments.apps",
    "StatefulSet": "statefulsets.apps",
    "DaemonSet": "daemonsets.apps",
    "Job": "jobs.batch",
}


def _pretends(node: Json) -> bool:
    """Whether kwok should keep a node, and has not begun to."""
    annotations = node["metadata"].get("annotations") or {}
    return annotations.get("kwok.x-k8s.io/node") == "fake" and (node.get("status") or {}).get("phase") != "Running"


def _frees(change: Change) -> bool:
    return change.type == "DELETED" or statuses.is_over(change.after)


def _container(container: Json, state: Json, *, ready: bool, restarts: int = 0) -> Json:
    status = {"name": container["name"], "image": container["image"], "imageID": "", "state": state, "lastState": {}}
    return {**status, "ready": ready, "started": "running" in state, "restartCount": restarts}


def _node(node: Json) -> scheduler.Node:
    """A Node object as the scheduler sees it; one that isn't Ready has the taint that its controller gives it."""
    status = node.get("status") or {}
    taints = list(node["spec"].get("taints") or []) if "spec" in node else []
    ready = next((one["status"] for one in status.get("conditions") or [] if one["type"] == "Ready"), "True")
    if ready != "True":
        taints.append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
    if (node.get("spec") or {}).get("unschedulable"):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    amounts = {name: quantity(amount) for name, amount in (status.get("allocatable") or {}).items()}
    return scheduler.Node(node["metadata"]["name"], node["metadata"].get("labels") or {}, amounts, taints)
