"""Leases in a cluster: a lab's namespace is its lease (ownership.py says why).

Belongs here: taking, renewing, reading, ending and reaping them through the Kubernetes API.
Doesn't belong here: what is installed in a namespace (cluster_kubernetes.py), node pools (node_holds.py).

Nothing here needs a record of ours: the reaper knows what to do from the labels of what it finds.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from lab_pipelines.catalog.spec import LabSpec
from resources import kube_api, ownership, processes
from resources.cluster import ClusterError, Lease, LeaseHeldError, Progress, Reaped, Session
from resources.kube_api import Deadline, RefusedError
from resources.ownership import EXPIRES_LABEL, LEASE_LABEL, LEASE_TTL, MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

OWNER_ANNOTATION = "lab-pipelines/owner"
LAB_ANNOTATION = "lab-pipelines/lab"
HOLD_ANNOTATION = "lab-pipelines/hold"
"""`true`: the stack may outlive the process that asked for it, until the lease expires."""
SESSION_CONFIG_MAP = "lab-session"

POD_SECURITY = {
    "pod-security.kubernetes.io/enforce": "baseline",
    "pod-security.kubernetes.io/warn": "restricted",
}
"""No pod of a lab may reach its node. `restricted` is said, not enforced: vLLM's own image runs as root."""

RENEW_AFTER = timedelta(minutes=1)
"""A lease is written again once it has lost so much: progress comes every second, and each write is a request."""

CLUSTER_SCOPED = (
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/storage.k8s.io/v1/storageclasses",
)
"""What a chart may make outside of its namespace, which therefore doesn't go with it. Custom resource definitions are
left alone: deleting one deletes everybody's objects of that kind."""

_NAMESPACES = "/api/v1/namespaces"
_SESSIONS = TypeAdapter(list[Session])
_TRIES = 4
_T = TypeVar("_T")


class LeaseLostError(ClusterError):
    """The run no longer holds the lease that it took."""


class Held(NamedTuple):
    """A namespace of ours as it was read."""

    lease: Lease
    labels: Mapping[str, str]
    created_at: datetime
    uid: str
    version: str
    terminating: bool
    hold: bool

    def why_over(self, now: datetime) -> str | None:
        """Why it should end: its labels and its age; on the owner's own machine also the owner's death."""
        if over := ownership.why_over(self.labels, created_at=self.created_at, now=now):
            return over
        host, _, process = self.lease.owner.partition("/")
        if not self.hold and host == socket.gethostname() and not processes.is_alive(process):
            return f"its run (process {process.split(':')[0]} on {host}) is dead"
        return None


class NamespaceLeases:
    """The leases of one cluster. Every method may be called from another process or machine than the last one."""

    def __init__(self, api_client: ApiClient) -> None:
        self._api = api_client

    def take(self, spec: LabSpec, run_id: str, *, hold: timedelta | None, deadline: Deadline) -> Lease:
        """Make the lab's namespace, which nobody can make twice. A former one that is going away is waited for.

        Raises `LeaseHeldError` while another run holds it, `ClusterError` for a namespace that isn't ours.
        """
        expires_at = datetime.now(UTC).replace(microsecond=0) + (hold or LEASE_TTL)
        lease = Lease(
            lease_id=uuid.uuid4().hex,
            lab=spec.id,
            run_id=run_id,
            owner=f"{socket.gethostname()}/{processes.owner_of()}",
            expires_at=expires_at,
            namespace=spec.namespace,
        )
        labels = ownership.lease_labels(spec.cost_labels, run_id=run_id, lease_id=lease.lease_id, expires_at=expires_at)
        annotations = {OWNER_ANNOTATION: lease.owner, LAB_ANNOTATION: spec.id}
        metadata = {
            "name": spec.namespace,
            "labels": {**labels, MANAGED_BY_LABEL: MANAGED_BY, **POD_SECURITY},
            "annotations": {**annotations, **({HOLD_ANNOTATION: "true"} if hold else {})},
        }
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        try:
            self._make(body, lease, deadline)
        except ClusterError:
            raise
        except BaseException:  # an interrupt: the server may have made it, and nobody else would know whose it is
            self.release(spec.namespace, lease.lease_id, deadline=deadline, progress=lambda line: None)
            raise
        return lease

    def _make(self, body: Mapping[str, Any], lease: Lease, deadline: Deadline) -> None:
        """Make the namespace of `lease`, once nobody else has it. Raises as `take`."""
        namespace = str(lease.namespace)
        while True:
            try:
                self._ask(
                    "POST", _NAMESPACES, query={"fieldManager": MANAGED_BY}, body=body, content_type=kube_api.JSON,
                    deadline=deadline,
                )  # fmt: skip
            except RefusedError as refused:
                if refused.status != 409:
                    raise ClusterError(f"namespace {namespace} can't be made: {refused}") from None
                if self._is_taken_by(lease, deadline):
                    return
                self._wait_for_former(namespace, deadline)
            except ClusterError:
                # The server may have made it before its answer was lost.
                if not self._is_taken_by(lease, deadline):
                    raise
                return
            else:
                return

    def _is_taken_by(self, lease: Lease, deadline: Deadline) -> bool:
        held = self.read(str(lease.namespace), deadline=deadline)
        return held is not None and held.lease.lease_id == lease.lease_id

    def _wait_for_former(self, namespace: str, deadline: Deadline) -> None:
        """Return once the namespace is gone. Raises for one that isn't about to go."""
        found = self._namespace(namespace, deadline)
        if found is None:
            return
        held = _held(found)
        if held is None:
            raise ClusterError(
                f"namespace {namespace} exists and isn't ours (no label {LEASE_LABEL}). Labs make and delete "
                "their own: remove or rename it"
            )
        if not held.terminating:
            lease = held.lease
            raise LeaseHeldError(
                f"{lease.lab} is held by run {lease.run_id} ({lease.owner}) until "
                f"{lease.expires_at:%Y-%m-%d %H:%M:%S} UTC. Wait for it, end that run, or: labs teardown {lease.lab}"
            )
        self._wait_until_gone(namespace, held.uid, deadline)

    def renew(self, namespace: str, lease_id: str, *, deadline: Deadline) -> Lease:
        """Extend the lease to `LEASE_TTL` from now, if it ends sooner.

        Raises `LeaseLostError` when it is gone, `ClusterError` when the API server can't be asked.
        """
        while True:
            held = self.read(namespace, deadline=deadline)
            if held is None or held.terminating or held.lease.lease_id != lease_id:
                raise LeaseLostError(
                    f"the lease on {namespace} is gone: its stack was released or reaped meanwhile, or another "
                    "run has it"
                )
            wanted = datetime.now(UTC).replace(microsecond=0) + LEASE_TTL
            if wanted - held.lease.expires_at < RENEW_AFTER:
                return held.lease
            labels = {EXPIRES_LABEL: str(int(wanted.timestamp()))}
            change = {"metadata": {"resourceVersion": held.version, "labels": labels}}
            try:
                self._ask(
                    "PATCH", f"{_NAMESPACES}/{namespace}", query={"fieldManager": MANAGED_BY}, body=change,
                    content_type=kube_api.MERGE_PATCH, deadline=deadline,
                )  # fmt: skip
            except RefusedError as refused:
                if refused.status not in (404, 409) or deadline.remaining_s == 0:
                    raise ClusterError(f"the lease on {namespace} can't be renewed: {refused}") from None
                time.sleep(kube_api.RETRY_S)  # somebody else wrote the namespace in between: look again
            else:
                return held.lease.model_copy(update={"expires_at": wanted})

    def read(self, namespace: str, *, deadline: Deadline) -> Held | None:
        """The lease on a namespace, or None where there is no namespace of ours. Raises `ClusterError`."""
        found = self._again(lambda: self._namespace(namespace, deadline))
        return _held(found) if found is not None else None

    def all(self, *, deadline: Deadline) -> list[Held]:
        """Every namespace of ours, by name, also those that are going away. Raises `ClusterError`."""
        query = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY},{LEASE_LABEL}"}
        listed = self._again(lambda: self._ask("GET", _NAMESPACES, query=query, deadline=deadline))
        return [held for item in listed["items"] if (held := _held(item)) is not None]

    def good(self, *, now: datetime, deadline: Deadline) -> dict[str, Held]:
        """The leases that aren't over, by id. Raises `ClusterError`."""
        return {
            held.lease.lease_id: held
            for held in self.all(deadline=deadline)
            if not held.terminating and held.why_over(now) is None
        }

    def sessions(self, namespace: str, *, deadline: Deadline) -> list[Session]:
        """The sessions of the lease on `namespace` so far; empty before the first is up. Raises `ClusterError`."""
        path = f"{_NAMESPACES}/{namespace}/configmaps/{SESSION_CONFIG_MAP}"
        try:
            found = self._ask("GET", path, deadline=deadline)
            return _SESSIONS.validate_json(found["data"]["sessions"])
        except RefusedError as refused:
            if refused.status != 404:
                raise ClusterError(f"{path}: {refused}") from None
            return []
        except (KeyError, ValidationError):
            raise ClusterError(
                f"config map {namespace}/{SESSION_CONFIG_MAP} is not as this version writes it; end the lab's "
                "stack and run it again: labs teardown"
            ) from None

    def put_sessions(
        self, namespace: str, sessions: Sequence[Session], *, labels: Mapping[str, str], deadline: Deadline
    ) -> None:
        """Replace the sessions of the lease on `namespace`. Raises `ClusterError`."""
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": SESSION_CONFIG_MAP,
                "namespace": namespace,
                "labels": {**labels, MANAGED_BY_LABEL: MANAGED_BY},
            },
            "data": {"sessions": _SESSIONS.dump_json(list(sessions)).decode()},
        }
        path = f"{_NAMESPACES}/{namespace}/configmaps/{SESSION_CONFIG_MAP}"
        try:
            self._ask("PATCH", path, query={"fieldManager": MANAGED_BY, "force": "true"}, body=body, deadline=deadline)
        except RefusedError as refused:
            raise ClusterError(f"{path}: {refused}") from None

    def release(self, namespace: str, lease_id: str, *, deadline: Deadline, progress: Progress) -> datetime | None:
        """Remove what the lease holds, the namespace last; the time when all was gone, None if it was gone before.

        Another lease on the same namespace is left alone. Raises `ClusterError`, also for a namespace that is still
        there at the deadline, with what the API server says holds it up.
        """
        held = self.read(namespace, deadline=deadline)
        if held is None or held.lease.lease_id != lease_id:
            return None
        for path, name, _ in self._cluster_scoped(deadline, f"{LEASE_LABEL}={lease_id}"):
            self._delete(f"{path}/{name}", deadline)
            progress(f"removed {path.rsplit('/', 1)[-1]}/{name}")
        self._delete(f"{_NAMESPACES}/{namespace}", deadline, uid=held.uid)
        progress(f"namespace {namespace} is going away")
        self._wait_until_gone(namespace, held.uid, deadline)
        return datetime.now(UTC)

    def reap(self, *, now: datetime, deadline: Deadline) -> list[Reaped]:
        """End every lease that is over, and remove what carries the label of a lease that isn't there. Doesn't wait.

        By labels and age alone; what has no label of ours is never touched. Raises `ClusterError`.
        """
        # Objects first: each was made after its lease, so one whose lease is not in the later list has lost it.
        objects = self._cluster_scoped(deadline, LEASE_LABEL)
        reaped, good = list[Reaped](), set[str]()
        for held in self.all(deadline=deadline):
            reason = held.why_over(now)
            if reason is None and not held.terminating:
                good.add(held.lease.lease_id)
            elif reason is not None and not held.terminating:
                lease = held.lease
                self._delete(f"{_NAMESPACES}/{lease.namespace}", deadline, uid=held.uid)
                removed = [f"namespaces/{lease.namespace}"]
                reaped.append(
                    Reaped(lease_id=lease.lease_id, lab=lease.lab, run_id=lease.run_id, reason=reason, removed=removed)
                )
        for path, name, labels in objects:
            if labels[LEASE_LABEL] not in good:
                self._delete(f"{path}/{name}", deadline)
                reaped.append(_orphan(f"{path.rsplit('/', 1)[-1]}/{name}", labels))
        return reaped

    def _cluster_scoped(self, deadline: Deadline, selector: str) -> list[tuple[str, str, Mapping[str, str]]]:
        """(collection, name, labels) of objects outside of any namespace."""
        found = []
        for path in CLUSTER_SCOPED:
            query = {"labelSelector": selector}
            try:
                listed = self._again(lambda p=path, q=query: self._ask("GET", p, query=q, deadline=deadline))
            except RefusedError as refused:
                if refused.status == 404:
                    continue  # a cluster that doesn't serve the kind has none of it
                raise ClusterError(f"{path}: {refused}") from None
            found += [(path, item["metadata"]["name"], item["metadata"]["labels"]) for item in listed["items"]]
        return found

    def _delete(self, path: str, deadline: Deadline, *, uid: str | None = None) -> None:
        """Ask for deletion; what is gone already, or is another by now, is left alone."""
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            self._again(lambda: self._ask("DELETE", path, body=body, content_type=kube_api.JSON, deadline=deadline))
        except RefusedError as refused:
            if refused.status not in (404, 409):
                raise ClusterError(f"{path} can't be deleted: {refused}") from None

    def _wait_until_gone(self, namespace: str, uid: str, deadline: Deadline) -> None:
        while (found := self._again(lambda: self._namespace(namespace, deadline))) is not None:
            if found["metadata"]["uid"] != uid:
                return
            if deadline.remaining_s == 0:
                conditions = (found.get("status") or {}).get("conditions") or []
                said = [one.get("message") for one in conditions if one.get("status") == "True"]
                why = "; ".join(filter(None, said)) or "it gives no reason"
                raise ClusterError(
                    f"namespace {namespace} is still there after being deleted: {why}. The reaper asks again; if a "
                    "finalizer holds it up, mend what should remove it"
                )
            time.sleep(kube_api.RETRY_S)  # deletion goes on behind the answer

    def _namespace(self, name: str, deadline: Deadline) -> Mapping[str, Any] | None:
        try:
            return self._ask("GET", f"{_NAMESPACES}/{name}", deadline=deadline)
        except RefusedError as refused:
            if refused.status != 404:
                raise ClusterError(f"namespace {name}: {refused}") from None
            return None

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return kube_api.request(self._api, method, path, **options)

    @staticmethod
    def _again(ask: Callable[[], _T]) -> _T:
        """Ask, and ask again for a server that fails: what is read or deleted may be so twice."""
        for left in reversed(range(_TRIES)):
            try:
                return ask()
            except ClusterError:
                if left == 0:
                    raise
                time.sleep(kube_api.RETRY_S)  # a lost connection or a 500 is often over by then
        raise AssertionError("the last try returns or raises")


def _orphan(name: str, labels: Mapping[str, str]) -> Reaped:
    return Reaped(
        lease_id=labels[LEASE_LABEL],
        lab=labels.get(ownership.LAB_LABEL, "unknown").upper(),
        run_id=labels.get(RUN_LABEL, "unknown"),
        reason="its lease is gone",
        removed=[name],
    )


def _held(namespace: Mapping[str, Any]) -> Held | None:
    """A namespace's lease, None for one that isn't ours."""
    metadata = namespace["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if not ownership.is_ours(labels) or labels.get(MANAGED_BY_LABEL) != MANAGED_BY:
        return None
    created_at = datetime.fromisoformat(metadata["creationTimestamp"])
    lease = Lease(
        lease_id=labels[LEASE_LABEL],
        lab=annotations.get(LAB_ANNOTATION) or labels.get(ownership.LAB_LABEL, "unknown").upper(),
        run_id=labels.get(RUN_LABEL, "unknown"),
        owner=annotations.get(OWNER_ANNOTATION, "unknown"),
        expires_at=ownership.expires_at(labels, created_at=created_at),
        namespace=metadata["name"],
    )
    return Held(
        lease=lease,
        labels=labels,
        created_at=created_at,
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        terminating=metadata.get("deletionTimestamp") is not None,
        hold=annotations.get(HOLD_ANNOTATION) == "true",
    )
