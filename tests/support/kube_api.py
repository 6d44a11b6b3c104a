"""A double of the Kubernetes API server over real HTTP: what manifests.py asks of one, answered in the real shapes.

Belongs here: discovery, server-side apply, lists, watches, quota and validation as an API server of 1.36 answers them,
and a scheduler whose decisions are given as data. The messages are those that a real control plane gave; the contract
in tests/cluster holds both to the same tests.
Doesn't belong here: anything that no test of ours asks for.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from lab_pipelines.rehearsal.admission import RefusedError, admit
from tests.support.kube_types import mistakes

Json = dict[str, Any]

KINDS = {
    "v1": {
        "Pod": "pods",
        "ConfigMap": "configmaps",
        "LimitRange": "limitranges",
        "ResourceQuota": "resourcequotas",
        "Secret": "secrets",
        "ServiceAccount": "serviceaccounts",
    },
    "batch/v1": {"Job": "jobs"},
    "secrets-store.csi.x-k8s.io/v1": {"SecretProviderClass": "secretproviderclasses"},
}
WITHOUT_SCHEMA = {"SecretProviderClass"}
CLUSTER_SCOPED = {"v1": {"Namespace": "namespaces", "Node": "nodes"}}

_COLLECTION = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[\w.-]+/\w+))/namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?$"
)
_NAMESPACES = re.compile(r"^/api/v1/namespaces(?:/(?P<name>[^/]+))?$")


def unschedulable(message: str) -> Json:
    """The status of a pod that the scheduler can't place."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def waiting(reason: str, message: str) -> Json:
    """The status of a pod that has a node, and a container that does not start."""
    scheduled = {"type": "PodScheduled", "status": "True"}
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "conditions": [scheduled], "containerStatuses": [{"name": "c", "state": state}]}


def ended(exit_code: int, message: str) -> Json:
    """The status of a pod whose container has ended, with what it left as its termination message."""
    state = {
        "terminated": {
            "exitCode": exit_code,
            "reason": "Error" if exit_code else "Completed",
            "message": message,
        }
    }
    phase = "Failed" if exit_code else "Succeeded"
    return {"phase": phase, "containerStatuses": [{"name": "c", "state": state}]}


RUNNING: Json = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str | None
    body: Any


@dataclass
class Canned:
    """An answer in place of the real one, for the next `times` requests that match."""

    method: str
    path: re.Pattern[str]
    status: int
    body: str
    headers: Mapping[str, str]
    times: int


@dataclass
class KubeApi:
    """The server; a context manager. `decisions`: for a pod, or for the Job that makes it, its statuses one by one."""

    decisions: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    silent: bool = False
    """Accept requests and never answer, until the server is closed."""
    _canned: list[Canned] = field(default_factory=list)
    _objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    """By (plural, namespace, name)."""
    _namespaces: dict[str, Json] = field(default_factory=dict)
    _history: list[tuple[int, str, Json]] = field(default_factory=list)
    """(resource version, type, pod) of every change to a pod."""
    _expired: int = 0
    _version: int = 100
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closing: bool = False

    def __enter__(self) -> KubeApi:
        api = self

        class Handler(_Handler):
            kube = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, folder: Path, *, token: str = "of-the-test") -> Path:
        """Write a kubeconfig for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": {"token": token}}],
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "tester"}}],
            "current-context": "double",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def answer(
        self,
        method: str,
        path: str,
        *,
        status: int,
        message: str,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next requests whose path with its query matches with a `Status` object of this message."""
        body = _status_object(status, message, reason)
        self._canned.append(Canned(method, re.compile(path), status, body, headers or {}, times))

    def expire_next_watch(self) -> None:
        """Tell the next watch that its resource version is too old, as a server does that has compacted its history."""
        self._expired += 1

    def make_namespace(self, name: str) -> str:
        self._namespaces[name] = self._stamped({"metadata": {"name": name}}, "v1", "Namespace")
        return name

    def stored(self) -> list[tuple[str, str, str]]:
        """(plural, namespace, name) of everything there is."""
        with self._changed:
            return sorted(self._objects)

    def requests(self, method: str, path: str) -> list[Seen]:
        return [one for one in self.seen if one.method == method and re.search(path, one.path)]

    # --- The answers ---

    def canned(self, method: str, path: str) -> Canned | None:
        for one in self._canned:
            if one.times and one.method == method and one.path.search(path):
                one.times -= 1
                return one
        return None

    def wait_for_end(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing)

    def handle(self, seen: Seen) -> tuple[int, str]:
        """Status and body. Raises `RefusedError`."""
        with self._changed:
            status, answer = self._answer_to(seen)
            return status, json.dumps(answer)  # before another thread changes it

    def _answer_to(self, seen: Seen) -> tuple[int, Json]:
        if seen.path == "/version":
            return 200, {"major": "1", "minor": "36", "gitVersion": "v1.36.2"}
        root = seen.path.removeprefix("/apis/").removeprefix("/api/")
        if seen.path.startswith("/api") and root in KINDS:
            return 200, _resource_list(root)
        if match := _NAMESPACES.match(seen.path):
            return self._namespace(seen, match["name"])
        if (match := _COLLECTION.match(seen.path)) and (match["core"] or match["group"]) in KINDS:
            return self._namespaced(seen, match)
        raise RefusedError(404, "NotFound", "the server could not find the requested resource")

    def _namespace(self, seen: Seen, name: str | None) -> tuple[int, Json]:
        if seen.method == "POST":
            metadata = seen.body["metadata"]
            made = metadata.get("name") or f"{metadata['generateName']}{self._version:05d}"
            self._namespaces[made] = self._stamped({"metadata": {**metadata, "name": made}}, "v1", "Namespace")
            return 201, self._namespaces[made]
        if name not in self._namespaces:
            raise RefusedError(404, "NotFound", f'namespaces "{name}" not found')
        if seen.method == "DELETE":
            while key := next((key for key in self._objects if key[1] == name), None):
                self._remove(key)
            return 200, self._namespaces.pop(name)
        return 200, self._namespaces[name]

    def _namespaced(self, seen: Seen, match: re.Match[str]) -> tuple[int, Json]:
        namespace, plural, name = match["namespace"], match["plural"], match["name"]
        version = match["core"] or match["group"]
        kind = next(kind for kind, known in KINDS[version].items() if known == plural)
        if seen.method == "PATCH" and namespace not in self._namespaces:
            raise RefusedError(404, "NotFound", f'namespaces "{namespace}" not found')
        if seen.method == "PATCH":
            return self._apply(seen, version, kind, (plural, namespace, name))
        wanted = dict(pair.split("=", 1) for pair in seen.query.get("labelSelector", "").split(",") if pair)
        keys = [
            key
            for key, value in sorted(self._objects.items())
            if key[:2] == (plural, namespace)
            and name in (None, key[2])
            and wanted.items() <= (value["metadata"].get("labels") or {}).items()
        ]
        if seen.method == "DELETE":
            for key in keys:
                self._remove(key)
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if name is not None:
            if not keys:
                raise RefusedError(404, "NotFound", f'{plural} "{name}" not found')
            found = copy.deepcopy(self._objects[keys[0]])
            if kind == "ResourceQuota":  # its controller counts a moment after the quota was made
                self._objects[keys[0]]["status"] = {"hard": found["spec"]["hard"]}
            return 200, found
        items = [self._objects[key] for key in keys]
        metadata = {"resourceVersion": str(self._version)}
        return 200, {"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items}

    def _apply(self, seen: Seen, version: str, kind: str, key: tuple[str, str, str]) -> tuple[int, Json]:
        if seen.content_type != "application/apply-patch+yaml" or "fieldManager" not in seen.query:
            raise RefusedError(
                400, "BadRequest", "PatchOptions.fieldManager: Required value: is required for apply patch"
            )
        body = seen.body
        wrong = [] if kind in WITHOUT_SCHEMA else mistakes(body)
        if unknown := [said for said in wrong if said.endswith("field not declared in schema")]:
            message = f"failed to create typed patch object ({key[1]}/{key[2]}; {version}, Kind={kind}): {unknown[0]}"
            raise RefusedError(500, "", message)
        if (there := self._objects.get(key)) is not None:
            there["metadata"]["labels"] = body["metadata"].get("labels")
            return 200, there
        if kind == "Pod":
            # The double's pods never end before they are deleted, so that every one of them counts.
            limits, quotas, others = (self._of(plural, key[1]) for plural in ("limitranges", "resourcequotas", "pods"))
            admit(body, limit_ranges=limits, quotas=quotas, others=others)
        made = self._store(key, body, version, kind, manager=seen.query["fieldManager"])
        if kind == "Job":
            template = body["spec"]["template"]
            name, owner = f"{key[2]}-x7k2p", {"kind": "Job", "name": key[2]}
            metadata = {**template["metadata"], "name": name, "namespace": key[1], "ownerReferences": [owner]}
            pod = {"metadata": metadata, "spec": template["spec"]}
            self._store(("pods", key[1], name), pod, "v1", "Pod", manager="job-controller")
        return 201, made

    def _store(self, key: tuple[str, str, str], body: Json, version: str, kind: str, *, manager: str) -> Json:
        made = self._stamped(copy.deepcopy(body), version, kind)
        made["metadata"]["managedFields"] = [{"manager": manager, "operation": "Apply"}]
        self._objects[key] = made
        if kind == "Pod":
            made["status"] = {"phase": "Pending"}
            self._note("ADDED", made)
            owner = next((one["name"] for one in made["metadata"].get("ownerReferences", [])), key[2])
            statuses = self.decisions.get(owner, [RUNNING])
            threading.Thread(target=self._decide, args=(key, statuses), daemon=True).start()
        return made

    def _decide(self, key: tuple[str, str, str], statuses: Sequence[Json]) -> None:
        """As scheduler and kubelet would: after the pod was taken, and each status as a change of its own."""
        for status in statuses:
            with self._changed:
                if key not in self._objects:
                    return
                self._objects[key]["status"] = copy.deepcopy(status)
                self._note("MODIFIED", self._objects[key])

    def _of(self, plural: str, namespace: str) -> list[Json]:
        return [one for key, one in self._objects.items() if key[:2] == (plural, namespace)]

    def _remove(self, key: tuple[str, str, str]) -> None:
        gone = self._objects.pop(key)
        if key[0] == "pods":
            self._note("DELETED", gone)
        for dependent in [
            other
            for other, value in self._objects.items()
            if other[1] == key[1] and any(one["name"] == key[2] for one in value["metadata"].get("ownerReferences", []))
        ]:
            self._remove(dependent)

    def _stamped(self, body: Json, version: str, kind: str) -> Json:
        self._version += 1
        body |= {"apiVersion": version, "kind": kind}
        body["metadata"] |= {"resourceVersion": str(self._version), "uid": f"uid-{self._version}"}
        return body

    def _note(self, change: str, pod: Json) -> None:
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, change, copy.deepcopy(pod)))
        self._changed.notify_all()

    def watch_events(self, seen: Seen, namespace: str) -> Iterator[Json]:
        """Every later change to a pod of the namespace, until the time that the client asked for is over."""
        if self._expired:
            self._expired -= 1
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (200)"}
            yield {"type": "ERROR", "object": gone}
            return
        ends = time.monotonic() + float(seen.query["timeoutSeconds"])
        wanted = dict(pair.split("=", 1) for pair in seen.query.get("labelSelector", "").split(",") if pair)
        last = int(seen.query["resourceVersion"])
        while True:
            with self._changed:
                new = [one for one in self._history if one[0] > last]
                if not new and not self._closing:
                    self._changed.wait(timeout=max(ends - time.monotonic(), 0))
            for version, change, pod in new:
                last = version
                metadata = pod["metadata"]
                if wanted.items() <= (metadata.get("labels") or {}).items() and metadata.get("namespace") == namespace:
                    yield {"type": change, "object": pod}
            if self._closing or time.monotonic() >= ends:
                return


def _status_object(status: int, message: str, reason: str) -> str:
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
    return json.dumps({**said, "reason": reason} if reason else said)


def _resource_list(version: str) -> Json:
    namespaced = [{"name": plural, "kind": kind, "namespaced": True} for kind, plural in KINDS[version].items()]
    cluster = CLUSTER_SCOPED.get(version, {})
    scoped = [{"name": plural, "kind": kind, "namespaced": False} for kind, plural in cluster.items()]
    subresources = [{"name": "pods/status", "kind": "Pod", "namespaced": True}] if version == "v1" else []
    resources = [*subresources, *namespaced, *scoped]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


class _Handler(BaseHTTPRequestHandler):
    kube: KubeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

    def log_message(self, format: str, *args: object) -> None:  # silence: a test reads `seen`
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = yaml.safe_load(self.rfile.read(length)) if length else None
        seen = Seen(self.command, parts.path, query, self.headers.get("Content-Type"), body)
        self.kube.seen.append(seen)
        if self.kube.silent:
            self.kube.wait_for_end()
            self.close_connection = True
            return
        if canned := self.kube.canned(seen.method, self.path):
            self._answer(canned.status, canned.body, canned.headers)
            return
        if "watch" in query:
            self._stream(seen, parts.path.split("/")[4])
            return
        try:
            status, body = self.kube.handle(seen)
        except RefusedError as refused:
            status, body = refused.status, _status_object(refused.status, refused.message, refused.reason)
        self._answer(status, body, {})

    def _answer(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, seen: Seen, namespace: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in self.kube.watch_events(seen, namespace):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):  # the client has seen enough
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = _serve
