"""Kubernetes manifests with an expected outcome: read a file, apply it, watch its pods, judge, remove.

Belongs here: what the API server and the scheduler make of the objects of an `apply` step.
Doesn't belong here: the connection and its errors (kube_api.py), Helm releases, nodes and leases, or which cluster a
lab runs on (cluster_*.py).

Objects are written by server-side apply, so a second apply of the same file changes nothing, and the API server itself
refuses fields that it doesn't know.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.steps import ApplyStep, ExpectedPod
from resources import kube_api
from resources.cluster import ApplyOutcome, ClusterError, PodOutcome, Progress
from resources.kube_api import Deadline, RefusedError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Manifest = dict[str, Any]
"""One Kubernetes object as its YAML says it."""

FIELD_MANAGER = "lab-pipelines"
ABSENT = "Absent"
"""The `phase` of an expected pod that the cluster doesn't have."""

PUBLIC_IDS = {
    "AZURE_CLIENT_ID": "the client id of the lab's managed identity",
    "AZURE_TENANT_ID": "the id of the tenant that the identity belongs to",
    "AZURE_KEY_VAULT": "the name of the key vault that holds the lab's secrets",
}
"""What a manifest may take from the environment as `${NAME}`. Ids alone: whoever may read an object of the cluster can
read what was written into it."""

_PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
# Truths about a moment: the quota controller has not counted yet, or the account is about to be made.
_NOT_YET = re.compile(r'status unknown for quota|serviceaccount "\S+" not found')


class ManifestError(ClusterError):
    """A file of manifests can't be used. The message names the file, the document and the field."""


class Judgement(NamedTuple):
    """Whether an outcome is as its step expects, and what there is to say about it."""

    ok: bool
    message: str


# --- Pure: from a file to objects, from an outcome to a judgement ---


def read_manifests(path: Path, environ: Mapping[str, str]) -> list[Manifest]:
    """The objects of a multi-document YAML file, `${NAME}` of `PUBLIC_IDS` filled in. Raises `ManifestError`."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ManifestError(f"{path}: can't be read as YAML: {' '.join(str(error).split())}") from None
    manifests = [
        _checked(_filled(document, environ, where=where), where=where)
        for number, document in enumerate(documents, start=1)
        if document is not None  # nothing stands between two separators
        for where in [f"{path}: document {number}"]
    ]
    if not manifests:
        raise ManifestError(f"{path}: has no object")
    return manifests


def _checked(manifest: Any, *, where: str) -> Manifest:
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), str) for key in ("apiVersion", "kind")):
        raise ManifestError(f"{where}: expected a Kubernetes object with apiVersion and kind")
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise ManifestError(f"{where}: metadata.name: is required (generateName can't be applied twice)")
    if "namespace" in metadata:
        raise ManifestError(f"{where}: metadata.namespace: remove it; every object goes to its lab's namespace")
    return manifest


def _filled(value: Any, environ: Mapping[str, str], *, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, environ, where=where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, environ, where=where) for inner in value]
    if not isinstance(value, str):
        return value
    for name in _PLACEHOLDER.findall(value):
        if name not in PUBLIC_IDS:
            raise ManifestError(f"{where}: ${{{name}}} is not known; known: {', '.join(sorted(PUBLIC_IDS))}")
        if not environ.get(name):
            raise ManifestError(f"{where}: the environment variable {name} is not set; set it to {PUBLIC_IDS[name]}")
    return _PLACEHOLDER.sub(lambda found: environ[found[1]], value)


def labels_of(spec: LabSpec, run_id: str) -> dict[str, str]:
    """The labels of every object that a run of the lab makes."""
    return {**spec.cost_labels, "run-id": run_id, "app.kubernetes.io/managed-by": FIELD_MANAGER}


def placed(manifest: Manifest, *, namespace: str, labels: Mapping[str, str]) -> Manifest:
    """A copy of the object in `namespace`, with `labels` on it and on every pod template within."""
    copied = labelled(manifest, labels)
    copied["metadata"]["namespace"] = namespace
    return copied


def labelled(manifest: Manifest, labels: Mapping[str, str]) -> Manifest:
    """A copy of the object with `labels` on it and on every pod template within."""
    copied = copy.deepcopy(manifest)
    for part in (copied, *_templates(copied.get("spec"))):
        metadata = part.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    return copied


def _templates(spec: Any) -> Iterator[Manifest]:
    """A workload's pod template; a CronJob's job template and the pod template in it."""
    for key in ("template", "jobTemplate"):
        if isinstance(spec, dict) and isinstance(spec.get(key), dict):
            yield spec[key]
            yield from _templates(spec[key].get("spec"))


def expectation_for(pod_name: str, expected: Sequence[ExpectedPod]) -> ExpectedPod | None:
    """The expectation that a pod belongs to: of its own name, or of the workload that made it.

    A Job `probe` makes a pod `probe-x7k2p`. Where `gpu` and `gpu-half` are both expected, the longer name that fits
    wins.
    """
    fitting = [one for one in expected if pod_name == one.name or pod_name.startswith(f"{one.name}-")]
    return max(fitting, key=lambda one: len(one.name), default=None)


def judge(step: ApplyStep, outcome: ApplyOutcome) -> Judgement:
    """Is the outcome as the step expects?"""
    if step.expect == "rejected":
        assert step.reason is not None  # catalog/steps.py requires it
        if outcome.accepted:
            return Judgement(False, f"was accepted, but must be rejected with /{step.reason}/")
        if re.search(step.reason, outcome.message or "") is None:
            return Judgement(False, f"was rejected, but not with /{step.reason}/: {outcome.message}")
        return Judgement(True, f"rejected as expected: {outcome.message}")
    if not outcome.accepted:
        return Judgement(False, f"was rejected, but must be accepted: {outcome.message}")
    for one in step.pods:
        mine = [pod for pod in outcome.pods if expectation_for(pod.name, step.pods) is one]
        for pod in mine or [PodOutcome(name=one.name, phase=ABSENT, reason=None)]:
            if wrong := _mismatch(one, pod):
                return Judgement(False, f"after {step.within_s:g} s {wrong}")
    seen = [f"{pod.name} is {pod.phase}{f' ({pod.reason})' if pod.reason else ''}" for pod in outcome.pods]
    return Judgement(True, f"accepted as expected{': ' if seen else ''}{'; '.join(seen)}")


def _mismatch(expected: ExpectedPod, pod: PodOutcome) -> str | None:
    why = f": {pod.reason}" if pod.reason else ""
    if pod.phase != expected.phase:
        return f"pod {pod.name} is {pod.phase}, but must be {expected.phase}{why}"
    if expected.reason is not None and re.search(expected.reason, pod.reason or "") is None:
        return f"pod {pod.name} is {pod.phase}, but not with /{expected.reason}/{why or ': it gives no reason'}"
    return None


def pod_outcome(pod: Mapping[str, Any]) -> PodOutcome:
    """Where a pod (as the API server's JSON has it) is, and why.

    The reason is the scheduler's message while the pod has no node, then what a container says that waits or has ended,
    then what the kubelet says of the pod. None: nothing is wrong, and nobody left a message.
    """
    status = pod.get("status") or {}
    return PodOutcome(
        name=pod["metadata"]["name"],
        phase=status.get("phase") or "Unknown",
        reason=next((said for said in _reasons(status) if said), None),
    )


def _reasons(status: Mapping[str, Any]) -> Iterator[str | None]:
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield condition.get("message") or condition.get("reason")
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        if ended := state.get("terminated"):
            said = " ".join((ended.get("message") or "").split())
            if ended["exitCode"] != 0 or said:
                yield f"{ended.get('reason')}, exit code {ended['exitCode']}{f': {said}' if said else ''}"
        if (waiting := state.get("waiting")) and waiting.get("reason") not in _ON_ITS_WAY:
            yield ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
    yield status.get("message") or status.get("reason")


_ON_ITS_WAY = ("ContainerCreating", "PodInitializing", None)


# --- I/O ---


def carry_out(
    api_client: ApiClient,
    step: ApplyStep,
    *,
    root: Path,
    environ: Mapping[str, str],
    namespace: str,
    labels: Mapping[str, str],
    progress: Progress,
) -> ApplyOutcome:
    """The whole step: read `root / step.manifests`, apply, watch until its pods are as expected or its time ends.

    Raises `ManifestError` for the file, `ClusterError` for a cluster that can't be asked. A refusal is an outcome.
    """
    deadline = Deadline.within(step.within_s)
    manifests = read_manifests(root / step.manifests, environ)
    refusal = apply(api_client, manifests, namespace=namespace, labels=labels, deadline=deadline)
    if refusal is not None:
        return ApplyOutcome(accepted=False, message=refusal, pods=[])
    progress(f"{step.name}: the API server took {', '.join(_about(manifest) for manifest in manifests)}")
    pods = watch_pods(api_client, step.pods, namespace=namespace, labels=labels, deadline=deadline)
    return ApplyOutcome(accepted=True, message=None, pods=pods)


def apply(
    api_client: ApiClient,
    manifests: Sequence[Manifest],
    *,
    namespace: str,
    labels: Mapping[str, str],
    deadline: Deadline,
) -> str | None:
    """Write the objects in the file's order. None, or the API server's refusal of one, at which it ends.

    A refusal reads `Pod third-gpu: 403 Forbidden: …`. A ResourceQuota is waited for until it counts. Raises
    `ClusterError` when the cluster can't be asked, lacks a kind or the namespace, or gives no permission.
    """
    paths = _Paths(api_client, namespace, deadline)
    for manifest in manifests:
        path = f"{paths.of(manifest)}/{manifest['metadata']['name']}"
        try:
            _write(api_client, path, placed(manifest, namespace=namespace, labels=labels), deadline=deadline)
        except RefusedError as refused:
            if refused.status == 404:
                raise ClusterError(f"{_about(manifest)}: {refused.message}; make the lab's namespace first") from None
            return f"{_about(manifest)}: {refused}"
        if manifest["kind"] == "ResourceQuota":
            _wait_until_counted(api_client, path, deadline=deadline)
    return None


def _require_namespace(api_client: ApiClient, namespace: str, *, deadline: Deadline) -> None:
    """Raise `ClusterError` for a namespace that is gone or going."""
    try:
        found = kube_api.request(api_client, "GET", f"/api/v1/namespaces/{namespace}", deadline=deadline)
    except RefusedError as refused:
        if refused.status != 404:
            raise ClusterError(f"namespace {namespace}: {refused}") from None
    else:
        if "deletionTimestamp" not in found["metadata"]:
            return
    raise ClusterError(f"namespace {namespace} is taken away: the lab's stack was released or reaped meanwhile")


def watch_pods(
    api_client: ApiClient,
    expected: Sequence[ExpectedPod],
    *,
    namespace: str,
    labels: Mapping[str, str],
    deadline: Deadline,
) -> list[PodOutcome]:
    """The expected pods, once each is as expected or can't become so any more, at the latest at the deadline.

    A pod that isn't there has the phase `Absent`. Raises `ClusterError`, also where the namespace is taken away
    meanwhile: then no pod becomes anything any more.
    """
    if not expected:
        return []
    selector, path = kube_api.selector_of(labels), f"/api/v1/namespaces/{namespace}/pods"
    while True:
        listed = kube_api.request(api_client, "GET", path, query={"labelSelector": selector}, deadline=deadline)
        _require_namespace(api_client, namespace, deadline=deadline)
        pods = {pod["metadata"]["name"]: pod_outcome(pod) for pod in listed["items"]}
        changes = kube_api.watch(
            api_client, path, selector=selector, version=listed["metadata"]["resourceVersion"], deadline=deadline
        )
        while not (over := settled(pods.values(), expected)) and (change := next(changes, None)):
            kind, pod = change
            pods.pop(pod["metadata"]["name"], None)
            if kind == "DELETED":
                _require_namespace(api_client, namespace, deadline=deadline)
            else:
                pods[pod["metadata"]["name"]] = pod_outcome(pod)
        changes.close()
        if over or deadline.remaining_s == 0:
            break
        time.sleep(kube_api.RETRY_S)  # a server that ends every watch at once must not be asked without a pause
    return found(pods.values(), expected)


def found(pods: Collection[PodOutcome], expected: Sequence[ExpectedPod]) -> list[PodOutcome]:
    """The pods that somebody expects, by name; one that isn't there has the phase `Absent`."""
    mine = sorted((pod for pod in pods if expectation_for(pod.name, expected)), key=lambda pod: pod.name)
    return [*mine, *(PodOutcome(name=one.name, phase=ABSENT, reason=None) for one in _absent(mine, expected))]


def _absent(pods: Sequence[PodOutcome], expected: Sequence[ExpectedPod]) -> list[ExpectedPod]:
    there = [expectation_for(pod.name, expected) for pod in pods]
    return [one for one in expected if one not in there]


def settled(pods: Collection[PodOutcome], expected: Sequence[ExpectedPod]) -> bool:
    """Whether nothing is left to wait for: each pod is as expected, or can't become so any more."""
    of = [(pod, one) for pod in pods if (one := expectation_for(pod.name, expected)) is not None]
    return not _absent([pod for pod, _ in of], expected) and all(
        _mismatch(one, pod) is None or _STAGE.get(pod.phase, 0) > _STAGE.get(one.phase, 0) or pod.phase in _ENDED
        for pod, one in of
    )


# A pod never goes back: one that runs was scheduled, whatever the spec expected.
_STAGE = {"Pending": 0, "Running": 1, "Succeeded": 2, "Failed": 2}
_ENDED = ("Succeeded", "Failed")


def delete(
    api_client: ApiClient,
    manifests: Sequence[Manifest],
    *,
    namespace: str,
    labels: Mapping[str, str],
    deadline: Deadline,
) -> list[str]:
    """Remove what in `namespace` has all of `labels` and is of a kind in `manifests`; wait until it is gone.

    The names of what was removed, e.g. `pods/first-gpu`. Idempotent. Raises `ClusterError`, also when something is
    still there at the deadline.
    """
    paths = _Paths(api_client, namespace, deadline)
    kinds = list(dict.fromkeys(paths.of(manifest) for manifest in reversed(manifests)))
    query = {"labelSelector": kube_api.selector_of(labels)}

    def there(path: str) -> list[str]:
        listed = kube_api.request(api_client, "GET", path, query=query, deadline=deadline)
        return [item["metadata"]["name"] for item in listed["items"]]

    removed: list[str] = []
    for path in kinds:
        removed += [f"{path.rsplit('/', 1)[-1]}/{name}" for name in there(path)]
        # Foreground: an owner goes last, so nothing of it is left once it is gone.
        options = {**query, "propagationPolicy": "Foreground"}
        kube_api.request(api_client, "DELETE", path, query=options, deadline=deadline)
    for path in kinds:
        while left := there(path):
            if deadline.remaining_s == 0:
                raise ClusterError(f"{path}: still there after being deleted: {', '.join(left)}; see their finalizers")
            time.sleep(kube_api.RETRY_S)  # deletion goes on behind the answer; a list tells its end
    return removed


class _Paths:
    """Where the API server keeps objects of a kind, by its own discovery, asked once for each API version."""

    def __init__(self, api_client: ApiClient, namespace: str, deadline: Deadline) -> None:
        self._api_client, self._namespace, self._deadline = api_client, namespace, deadline
        self._known: dict[str, Sequence[Mapping[str, Any]]] = {}

    def of(self, manifest: Manifest) -> str:
        version, kind = manifest["apiVersion"], manifest["kind"]
        if version not in self._known:
            self._known[version] = kube_api.resources_of(self._api_client, version, deadline=self._deadline)
        for resource in self._known[version]:
            if resource["kind"] == kind and "/" not in resource["name"]:
                if not resource["namespaced"]:
                    raise ManifestError(f"{_about(manifest)}: belongs to the whole cluster, not to a lab's namespace")
                root = f"/apis/{version}" if "/" in version else f"/api/{version}"
                return f"{root}/namespaces/{self._namespace}/{resource['name']}"
        raise ClusterError(f"{_about(manifest)}: the cluster has no {version} {kind}; install what brings it first")


def _about(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _write(api_client: ApiClient, path: str, manifest: Manifest, *, deadline: Deadline) -> None:
    query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
    while True:
        try:
            kube_api.request(api_client, "PATCH", path, query=query, body=manifest, deadline=deadline)
        except RefusedError as refused:
            # 409: two writers of one quota's count. A field can't be in conflict, `force` takes it.
            if deadline.remaining_s == 0 or not (refused.status == 409 or _NOT_YET.search(refused.message)):
                raise
            time.sleep(kube_api.RETRY_S)  # the other writer is done within milliseconds
        else:
            return


def _wait_until_counted(api_client: ApiClient, path: str, *, deadline: Deadline) -> None:
    """Until the quota controller has written the quota's status: before that it refuses, or lets pass, by chance."""
    while True:
        quota = kube_api.request(api_client, "GET", path, deadline=deadline)
        if (quota.get("status") or {}).get("hard") == quota["spec"].get("hard"):
            return
        if deadline.remaining_s == 0:
            raise ClusterError(f"{path}: the cluster did not count this quota; does its controller manager run?")
        time.sleep(kube_api.RETRY_S)  # the controller counts it soon after its creation
