"""A double of the Kubernetes API server over real HTTP, with scheduler, kubelet and controllers behind it.

Belongs here: the server, how a test prepares it, and the faults that it is told to have. The rest is in kube/, one part
per module. The messages are those that a real control plane of 1.36 gave; the contract in tests/contract holds both to
the same tests.
Doesn't belong here: anything that no test of ours asks for.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from lab_pipelines.rehearsal.admission import RefusedError
from tests.support import planned_faults
from tests.support.kube import discovery, portforward, statuses
from tests.support.kube.controllers import Controllers
from tests.support.kube.http import Fault, RequestHandler, Seen, status_object
from tests.support.kube.kinds import SUBRESOURCES, Json
from tests.support.kube.kubelet import Address, Delays, Kubelet, Start
from tests.support.kube.loop import Loop
from tests.support.kube.objects import APPLY, PATCHES, Asked, Objects
from tests.support.kube.store import Key, Store, key_of

CRDS = Path(__file__).parent.parent / "data" / "crds"

_PATH = re.compile(r"^/(?:api/(?P<core>v1)|apis/(?P<group>[\w.-]+/\w+))/(?P<rest>.+)$")


@dataclass
class KubeApi:
    """The server; a context manager.

    `decisions`: for a pod, or for what owns it (a Job, a Deployment), its statuses one by one, in place of scheduler
    and kubelet. Without nodes every other pod runs; with nodes the scheduler places it.
    """

    decisions: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    silent: bool = False
    """Accept requests and never answer, until the server is closed."""
    delays: Delays = field(default_factory=Delays)
    log_stamps: dict[str, list[str]] = field(default_factory=dict)
    """By a pod's uid: when each line of its log was taken in."""
    on_request: Callable[[str, str], Fault | None] | None = None
    """Called with method and path (with its query) of each request while its sender waits; what it returns happens."""
    _faults: list[Fault] = field(default_factory=list)
    _expired: int = 0
    _closing: bool = False

    def __post_init__(self) -> None:
        self.store = Store()
        self._loop = Loop(self.store.changed)
        self.kubelet = Kubelet(self.store, self._loop, self._decided, self.delays)
        self.controllers = Controllers(self.store, self._loop, self.kubelet)
        self.objects = Objects(self.store)

    def _decided(self, name: str) -> Sequence[Json] | None:
        return self.decisions.get(name)

    def __enter__(self) -> KubeApi:
        api = self

        class Handler(RequestHandler):
            kube = api

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """As the server's own, but for a client that has died: tests kill them."""
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)

        self._loop.__enter__()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.store.changed:
            self._closing = True
            self.store.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._loop.__exit__()
        self.kubelet.stop_all()

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

    # --- What there is ---

    def make_namespace(self, name: str) -> str:
        self.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}})
        return name

    def make_node(
        self,
        name: str,
        *,
        gpus: int = 0,
        labels: Mapping[str, str] | None = None,
        taints: Iterable[Json] = (),
        cpu: str = "4",
        memory: str = "16Gi",
        created_at: str | None = None,
        ready_at: str | None = None,
    ) -> str:
        """A node that is Ready. Times as the API writes them, e.g. `2026-11-28T13:58:03Z`; None: now."""
        at = statuses.now()
        amounts = {"cpu": cpu, "memory": memory, "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": ready_at or at}
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        self.seed(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {**metadata, "creationTimestamp": created_at or at},
                "spec": {"taints": list(taints)},
                "status": {"allocatable": amounts, "capacity": amounts, "conditions": [ready]},
            }
        )
        return name

    def seed(self, *objects: Json) -> None:
        """Store objects as they are, with their status, unchecked; a pod with the condition `PodScheduled` stays so."""
        with self.store.changed:
            for one in objects:
                kind = self.objects.kind_named(one["apiVersion"], one["kind"])
                metadata = one["metadata"]
                self.store.put(key_of(kind, metadata.get("namespace"), metadata["name"]), one)

    def install_crds(self) -> None:
        """The definitions of KEDA and the Prometheus operator (tests/data/crds)."""
        self.seed(*(yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(CRDS.glob("*.yaml"))))

    def plays(self, start: Start, *, image: str | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Let `start` play the container of every later pod with this image (with or without its tag) and these labels.

        The pod is Ready once `start` has returned; `PodCrashedError` from it ends the container.
        """
        self.kubelet.plays(start, image=image, labels=labels or {})

    def stored(self) -> list[tuple[str, str, str]]:
        """(resource, namespace, name) of everything there is, but for events."""
        with self.store.changed:
            return sorted(key for key in self.store.everything() if key.resource != "events")

    def read(self, resource: str, namespace: str, name: str) -> Json | None:
        """An object as it is now, e.g. of `deployments.apps`; `namespace` is empty for one of the whole cluster."""
        with self.store.changed:
            return self.store.get(Key(resource, namespace, name))

    def requests(self, method: str, path: str) -> list[Seen]:
        return [one for one in self.seen if one.method == method and re.search(path, one.path)]

    # --- Faults ---

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
        skip: int = 0,
    ) -> None:
        """Answer requests whose path with its query matches with a `Status` object of this message."""
        body = status_object(status, message, reason)
        self._faults.append(Fault(method, re.compile(path), skip, times, status, body, headers or {}))

    def drop(self, method: str, path: str, *, times: int = 1, skip: int = 0, carried_out: bool = False) -> None:
        """End the connection of requests that match without an answer, before or after they were carried out."""
        pattern = re.compile(path)
        self._faults.append(Fault(method, pattern, skip, times, drop=True, carried_out=carried_out))

    def expire_next_watch(self) -> None:
        """Tell the next watch that its resource version is too old, as a server does that has compacted its history."""
        self._expired += 1

    # --- The answers ---

    def fault(self, method: str, path: str) -> Fault | None:
        if self.on_request is not None and (ordered := self.on_request(method, path)) is not None:
            return ordered
        with self.store.changed:
            return planned_faults.due(self._faults, method, path)

    def expires(self) -> bool:
        with self.store.changed:
            self._expired -= (expired := self._expired > 0)
        return expired

    def is_closing(self) -> bool:
        return self._closing

    def wait_for_end(self) -> None:
        with self.store.changed:
            self.store.changed.wait_for(self.is_closing)

    def asked(self, path: str) -> Asked:
        """What a path is about. Raises `RefusedError`."""
        if (match := _PATH.match(path)) is not None:
            version = match["core"] or match["group"]
            parts = [unquote(part) for part in match["rest"].split("/")]
            namespaced = len(parts) > 2 and parts[0] == "namespaces" and parts[2] not in SUBRESOURCES["namespaces"]
            namespace, parts = (parts[1], parts[2:]) if namespaced else (None, parts)
            kind = self.objects.kind(version, parts[0])
            if kind is not None and (kind.namespaced or not namespaced):
                name, subresource = (parts[1] if len(parts) > 1 else None), "/".join(parts[2:]) or None
                first = (subresource or "").split("/")[0]
                if subresource is None or first == "status" or first in SUBRESOURCES.get(kind.plural, ()):
                    return Asked(kind, namespace, name, subresource)
        raise RefusedError(404, "NotFound", "the server could not find the requested resource")

    def handle(self, seen: Seen) -> tuple[int, bytes]:
        """Status and body. Raises `RefusedError`."""
        with self.store.changed:
            if (document := discovery.answer(seen.path, self.objects.kinds)) is not None:
                return 200, json.dumps(document).encode()
            asked = self.asked(seen.path)
            if seen.method == "GET" and asked.name is None:
                return 200, self.objects.list(asked, seen.query)
            status, answer = self._one(asked, seen)
            return status, json.dumps(answer).encode()

    def _one(self, asked: Asked, seen: Seen) -> tuple[int, Json]:
        objects, query, body = self.objects, seen.query, seen.body or {}
        verb = seen.method if asked.subresource != "eviction" else "EVICT"
        if verb == "PATCH" and seen.content_type != APPLY and seen.content_type not in PATCHES:
            raise RefusedError(415, "UnsupportedMediaType", f"a patch of {seen.content_type} is not served here")
        if verb == "PATCH" and seen.content_type == APPLY:
            return objects.apply(asked, body, query)
        verbs: dict[str, Callable[[], Json]] = {
            "GET": lambda: objects.get(asked),
            "POST": lambda: objects.create(asked, body, query, seen.manager),
            "PATCH": lambda: objects.patch(asked, body, query, seen.manager, str(seen.content_type)),
            "PUT": lambda: objects.put(asked, body, query, seen.manager),
            "DELETE": lambda: objects.delete(asked, query, body) if asked.name else objects.delete_all(asked, query),
            "EVICT": lambda: objects.evict_pod(asked),
        }
        return 201 if verb in ("POST", "EVICT") else 200, verbs[verb]()

    def address(self, asked: Asked, port: int | str | None) -> Address | None:
        """Where a port of a pod, or of a service's first ready pod, is on this machine. Raises `RefusedError`."""
        with self.store.changed:
            pod = self.objects.get(asked)
            if asked.kind.plural == "services":
                pod, port = portforward.behind(pod, port, self.store.of("pods", asked.namespace))
            process = self.kubelet.process_of(pod)
            number = portforward.number_of(pod, port)
            return process.ports.get(number) if process is not None and number is not None else None
