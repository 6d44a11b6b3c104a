"""The controllers of the double: what makes pods for a Deployment, a StatefulSet, a DaemonSet or a Job, and empties a
namespace.

Belongs here: how each keeps its objects as their spec says, and what it writes into their status. Doesn't belong here:
the life of a pod (kubelet.py).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from lab_pipelines.rehearsal.admission import RefusedError
from tests.support.kube import admitting, statuses
from tests.support.kube.kinds import BUILT_IN, Json
from tests.support.kube.kubelet import Kubelet
from tests.support.kube.loop import Loop
from tests.support.kube.statuses import with_condition
from tests.support.kube.store import Change, Key, Store

_POD = next(one for one in BUILT_IN if one.kind == "Pod")
RETRY_S = 0.2
"""After which a controller tries again what was refused."""


class Controllers:
    """Reconciles what changed, on the loop."""

    def __init__(self, store: Store, loop: Loop, kubelet: Kubelet) -> None:
        self.namespace_lingers_s = 0.0
        """How long a deleted namespace stays Terminating, at the least."""
        self._store, self._loop, self._kubelet = store, loop, kubelet
        self._queued: set[Key] = set()
        self._reconcilers: Mapping[str, Callable[[Key, Json], None]] = {
            "deployments.apps": self._deployment,
            "replicasets.apps": self._replica_set,
            "statefulsets.apps": self._stateful_set,
            "daemonsets.apps": self._daemon_set,
            "jobs.batch": self._job,
            "namespaces": self._namespace,
        }
        store.listeners.append(self._on_change)

    def _on_change(self, change: Change) -> None:
        self._enqueue(change.key)
        for owner in change.after["metadata"].get("ownerReferences") or []:
            for resource in self._reconcilers:
                self._enqueue(Key(resource, change.key.namespace, owner["name"]))
        if change.type == "DELETED" and change.key.namespace:
            namespace = self._store.get(Key("namespaces", "", change.key.namespace))
            if namespace is not None and "deletionTimestamp" in namespace["metadata"]:
                self._enqueue(Key("namespaces", "", change.key.namespace))
        if change.key.resource == "pods":
            self._count(change.key.namespace)
        if change.key.resource == "nodes":
            for key in self._store.keys("daemonsets.apps"):
                self._enqueue(key)

    def _count(self, namespace: str) -> None:
        """Quotas that have been counted once are counted again with each change of a pod."""
        for key in self._store.keys("resourcequotas", namespace):
            quota = self._store.get(key) or {}
            if "status" in quota:
                self._write_status(key, admitting.quota_status(self._store, quota))

    def _enqueue(self, key: Key, *, after_s: float = 0.0) -> None:
        if key.resource in self._reconcilers and key not in self._queued:
            self._queued.add(key)
            self._loop.later(after_s, lambda: self._reconcile(key))

    def _reconcile(self, key: Key) -> None:
        self._queued.discard(key)
        there = self._store.get(key)
        if there is None or (key.resource != "namespaces" and "deletionTimestamp" in there["metadata"]):
            return
        self._reconcilers[key.resource](key, there)

    # --- Deployment and ReplicaSet ---

    def _deployment(self, key: Key, there: Json) -> None:
        spec = there["spec"]
        wanted, template = spec["replicas"], spec["template"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        sets = self._owned("replicasets.apps", there)
        new = next((one for one in sets if one["metadata"]["labels"].get("pod-template-hash") == digest), None)
        old = [one for one in sets if one is not new]
        recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
        if new is None:
            if recreate and any(self._owned("pods", one) for one in old):
                for one in old:
                    self._scale(one, 0)
                return
            new = self._new_set(there, template, digest)
        ready_now = _number(new, "availableReplicas")
        surge = 0 if recreate else _surge(spec, wanted)
        room = wanted + surge - sum(one["spec"]["replicas"] for one in old)
        self._scale(new, max(min(wanted, room), min(new["spec"]["replicas"], wanted)))
        # Old pods go as new ones come, so that never fewer than the spec allows are there.
        spare = ready_now + sum(one["spec"]["replicas"] for one in old) - (wanted - _unavailable(spec, wanted))
        for one in old:
            less = max(min(one["spec"]["replicas"], spare), 0)
            self._scale(one, one["spec"]["replicas"] - less)
            spare -= less
        self._write_status(key, self._deployment_status(there))

    def _new_set(self, deployment: Json, template: Json, digest: str) -> Json:
        metadata = deployment["metadata"]
        labels = {**(template["metadata"].get("labels") or {}), "pod-template-hash": digest}
        selector = {
            "matchLabels": {**deployment["spec"]["selector"].get("matchLabels", {}), "pod-template-hash": digest}
        }
        revision = 1 + len(self._owned("replicasets.apps", deployment))
        made = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{metadata['name']}-{digest}",
                "namespace": metadata["namespace"],
                "labels": labels,
                "annotations": {"deployment.kubernetes.io/revision": str(revision)},
                "ownerReferences": [_owner(deployment)],
            },
            "spec": {
                "replicas": 0,
                "selector": selector,
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
            },
        }
        return self._store.put(Key("replicasets.apps", metadata["namespace"], made["metadata"]["name"]), made)

    def _deployment_status(self, deployment: Json) -> Json:
        sets = self._owned("replicasets.apps", deployment)
        template = deployment["spec"]["template"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        updated = [one for one in sets if one["metadata"]["labels"].get("pod-template-hash") == digest]
        wanted = deployment["spec"]["replicas"]
        total, available = (sum(_number(one, name) for one in sets) for name in ("replicas", "availableReplicas"))
        fresh = sum(_number(one, "replicas") for one in updated)
        status = {
            **(deployment.get("status") or {}),
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": total,
            "updatedReplicas": fresh,
            "readyReplicas": available,
            "availableReplicas": available,
            "unavailableReplicas": max(total - available, 0),
        }
        at, enough = statuses.now(), available >= wanted - _unavailable(deployment["spec"], wanted)
        reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
        status = with_condition(status, "Available", enough, at, reason=reason)
        done = fresh == total == wanted == available
        reason = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
        status = with_condition(status, "Progressing", True, at, reason=reason)
        for one in updated:
            for said in (one.get("status") or {}).get("conditions") or []:
                if said["type"] == "ReplicaFailure":
                    status = with_condition(
                        status, "ReplicaFailure", True, at, reason=said["reason"], message=said["message"]
                    )
        return status

    def _scale(self, replica_set: Json, replicas: int) -> None:
        metadata = replica_set["metadata"]
        key = Key("replicasets.apps", metadata["namespace"], metadata["name"])
        there = self._store.get(key)
        if there is not None and there["spec"]["replicas"] != replicas:
            self._store.put(key, {**there, "spec": {**there["spec"], "replicas": replicas}})

    def _replica_set(self, key: Key, there: Json) -> None:
        pods = [one for one in self._owned("pods", there) if not statuses.is_over(one)]
        wanted = there["spec"]["replicas"]
        status: Json = {name: value for name, value in (there.get("status") or {}).items() if name != "conditions"}
        for _ in range(wanted - len(pods)):
            name = f"{key.name}-{self._suffix()}"
            if (refusal := self._make_pod(there, name, there["spec"]["template"])) is not None:
                said = with_condition(
                    {}, "ReplicaFailure", True, statuses.now(), reason="FailedCreate", message=refusal
                )
                status |= said
                self._kubelet.event(
                    there, "FailedCreate", f"Error creating: {refusal}", "replicaset-controller", warning=True
                )
                self._enqueue(key, after_s=RETRY_S)
                break
        # Those that are not ready go first.
        for pod in sorted(pods, key=statuses.is_ready)[: max(len(pods) - wanted, 0)]:
            self._store.delete(Key("pods", key.namespace, pod["metadata"]["name"]))
        self._write_status(key, {**status, **self._counts(there)})

    # --- StatefulSet, DaemonSet, Job ---

    def _stateful_set(self, key: Key, there: Json) -> None:
        spec = there["spec"]
        wanted, ordered = spec["replicas"], spec.get("podManagementPolicy") != "Parallel"
        pods = {one["metadata"]["name"]: one for one in self._owned("pods", there)}
        digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
        revision = f"{key.name}-{digest}"
        for number in range(wanted):
            name = f"{key.name}-{number}"
            pod = pods.get(name)
            if pod is not None and pod["metadata"]["labels"]["controller-revision-hash"] != revision:
                self._store.delete(Key("pods", key.namespace, name))
                break
            if pod is None:
                self._claims(there, number)
                labels = {"controller-revision-hash": revision, "apps.kubernetes.io/pod-index": str(number)}
                if self._make_pod(there, name, _labelled(spec["template"], labels)) is not None:
                    self._enqueue(key, after_s=RETRY_S)
            if ordered and (pod is None or not statuses.is_ready(pod)):
                break
        for name in sorted(pods, reverse=True):
            if int(name.rsplit("-", 1)[-1]) >= wanted:
                self._store.delete(Key("pods", key.namespace, name))
        counts = self._counts(there)
        updated = sum(one["metadata"]["labels"]["controller-revision-hash"] == revision for one in pods.values())
        revisions = {"currentRevision": revision, "updateRevision": revision}
        self._write_status(key, {**counts, **revisions, "updatedReplicas": updated, "currentReplicas": updated})

    def _claims(self, stateful_set: Json, number: int) -> None:
        metadata = stateful_set["metadata"]
        for claim in stateful_set["spec"].get("volumeClaimTemplates") or []:
            name = f"{claim['metadata']['name']}-{metadata['name']}-{number}"
            labels = {
                **(claim["metadata"].get("labels") or {}),
                **(stateful_set["spec"]["selector"].get("matchLabels") or {}),
            }
            made = {**claim, "apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Bound"}}
            made["metadata"] = {"name": name, "namespace": metadata["namespace"], "labels": labels}
            key = Key("persistentvolumeclaims", metadata["namespace"], name)
            if self._store.get(key) is None:
                self._store.put(key, made)

    def _daemon_set(self, key: Key, there: Json) -> None:
        template = there["spec"]["template"]
        fitting = {name for name in self._nodes() if self._kubelet.tolerates(template, name)}
        on = {one["spec"]["nodeName"]: one for one in self._owned("pods", there)}
        for name in sorted(fitting - on.keys()):
            placed = {**template, "spec": {**template["spec"], "nodeName": name}}
            self._make_pod(there, f"{key.name}-{self._suffix()}", placed)
        for name in on.keys() - fitting:
            self._store.delete(Key("pods", key.namespace, on[name]["metadata"]["name"]))
        ready = sum(statuses.is_ready(one) for one in self._owned("pods", there))
        numbers = {"desiredNumberScheduled": len(fitting), "currentNumberScheduled": len(fitting)}
        numbers |= {"numberReady": ready, "numberAvailable": ready, "updatedNumberScheduled": len(fitting)}
        observed = {"observedGeneration": there["metadata"]["generation"], "numberMisscheduled": 0}
        self._write_status(key, {**numbers, **observed})

    def _job(self, key: Key, there: Json) -> None:
        spec, status = there["spec"], there.get("status") or {}
        if any(one["type"] in ("Complete", "Failed") for one in status.get("conditions") or []):
            return
        pods = self._owned("pods", there)
        phases = [(one.get("status") or {}).get("phase") for one in pods]
        done, failed = phases.count("Succeeded"), phases.count("Failed")
        active = len(pods) - done - failed
        at = statuses.now()
        status = {"startTime": at, **status, "active": active, "succeeded": done, "failed": failed}
        status["ready"] = sum(statuses.is_ready(one) for one in pods)
        if done >= spec["completions"]:
            status = {**status, "completionTime": at}
            status = with_condition(status, "SuccessCriteriaMet", True, at, reason="CompletionsReached")
            status = with_condition(status, "Complete", True, at, reason="CompletionsReached")
        elif failed > spec["backoffLimit"]:
            said = "Job has reached the specified backoff limit"
            for one in ("FailureTarget", "Failed"):
                status = with_condition(status, one, True, at, reason="BackoffLimitExceeded", message=said)
            for pod in pods:
                if not statuses.is_over(pod):
                    self._store.delete(Key("pods", key.namespace, pod["metadata"]["name"]))
        else:
            labels = {"batch.kubernetes.io/job-name": key.name, "job-name": key.name}
            for _ in range(min(spec["parallelism"], spec["completions"] - done) - active):
                refusal = self._make_pod(there, f"{key.name}-{self._suffix()}", _labelled(spec["template"], labels))
                if refusal is not None:
                    self._kubelet.event(
                        there, "FailedCreate", f"Error creating: {refusal}", "job-controller", warning=True
                    )
                    self._enqueue(key, after_s=RETRY_S)
                    break
        self._write_status(key, status)

    # --- Namespaces ---

    def _namespace(self, key: Key, there: Json) -> None:
        if "deletionTimestamp" not in there["metadata"]:
            return
        if not there["status"].get("conditions"):
            conditions = [{"type": "NamespaceDeletionContentFailure", "status": "False", "reason": "ContentDeleted"}]
            self._enqueue(key, after_s=self.namespace_lingers_s)
            self._store.put(key, {**there, "status": {**there["status"], "conditions": conditions}})
            return
        for inner in list(self._store.everything(key.name)):
            self._store.delete(inner)
        left = list(self._store.everything(key.name))
        if not left and not there["metadata"].get("finalizers"):
            self._store.remove(key)
            return
        held: dict[str, int] = {}
        for inner in left:
            for name in (self._store.get(inner) or {"metadata": {}})["metadata"].get("finalizers") or []:
                held[name] = held.get(name, 0) + 1
        said = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(held.items()))
        message = f"Some content in the namespace has finalizers remaining: {said}"
        status = with_condition(
            there["status"], "NamespaceFinalizersRemaining", bool(held), statuses.now(),
            reason="SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            message=message if held else "All content-preserving finalizers finished",
        )  # fmt: skip
        self._write_status(key, status)

    # --- What they share ---

    def _owned(self, resource: str, owner: Json) -> list[Json]:
        uid = owner["metadata"]["uid"]
        return [
            one
            for one in self._store.of(resource, owner["metadata"]["namespace"])
            if any(ref["uid"] == uid for ref in one["metadata"].get("ownerReferences") or [])
        ]

    def _make_pod(self, owner: Json, name: str, template: Json) -> str | None:
        """Make a pod; the API server's refusal, if it refuses it."""
        namespace = owner["metadata"]["namespace"]
        metadata = {**copy.deepcopy(template.get("metadata") or {}), "name": name, "namespace": namespace}
        metadata["ownerReferences"] = [_owner(owner)]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}
        key = Key("pods", namespace, name)
        made = admitting.with_defaults(_POD, pod, number=self._store.version)
        try:
            admitting.hold_to_quota(self._store, _POD, key, made)
        except RefusedError as refused:
            return refused.message
        self._store.put(key, made)
        return None

    def _counts(self, owner: Json) -> Json:
        pods = [one for one in self._owned("pods", owner) if not statuses.is_over(one)]
        ready = sum(statuses.is_ready(one) for one in pods)
        counts = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
        return {"observedGeneration": owner["metadata"]["generation"], **counts}

    def _write_status(self, key: Key, status: Json) -> None:
        if (there := self._store.get(key)) is not None and there.get("status") != status:
            self._store.put(key, {**there, "status": status})

    def _nodes(self) -> list[str]:
        return [one["metadata"]["name"] for one in self._store.of("nodes")]

    def _suffix(self) -> str:
        """Five characters, as generateName appends them; others for each pod."""
        return hashlib.sha256(str(self._store.version).encode()).hexdigest()[:5]


def _owner(owner: Json) -> Json:
    reference = {name: owner[name] for name in ("apiVersion", "kind")}
    named = {name: owner["metadata"][name] for name in ("name", "uid")}
    return {**reference, **named, "controller": True, "blockOwnerDeletion": True}


def _labelled(template: Json, labels: Mapping[str, str]) -> Json:
    metadata = template.get("metadata") or {}
    return {**template, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}


def _number(obj: Json, name: str) -> int:
    return (obj.get("status") or {}).get(name, 0)


def _surge(spec: Json, replicas: int) -> int:
    return _share(_rolling(spec).get("maxSurge", "25%"), replicas, up=True)


def _unavailable(spec: Json, replicas: int) -> int:
    return _share(_rolling(spec).get("maxUnavailable", "25%"), replicas, up=False)


def _rolling(spec: Json) -> Json:
    return (spec.get("strategy") or {}).get("rollingUpdate") or {}


def _share(said: Any, of: int, *, up: bool) -> int:
    if isinstance(said, str) and said.endswith("%"):
        part = of * int(said[:-1])
        return -(-part // 100) if up else part // 100
    return int(said)
