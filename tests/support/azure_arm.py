"""A double of Azure Resource Manager over real HTTP: one AKS cluster's agent pools, for the real SDK on loopback.

Belongs here: listing with pages, reading and replacing agent pools, and the operations that this starts, with the
codes, headers and messages that Azure is publicly known to answer with; and faults to order. It takes what is sent at
its word: a property that a PUT leaves out is gone.
Doesn't belong here: what is in a pool (azure_agent_pools.py), our own side of the connection (azure_pools.py), or
anything that no test of ours asks for.

Time passes with requests: an operation ends after so many, whatever the machine's speed.
"""

from __future__ import annotations

import copy
import json
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from tests.support import planned_faults
from tests.support.azure_agent_pools import (
    CLUSTER,
    READ_ONLY,
    RESOURCE_GROUP,
    SUBSCRIPTION,
    Json,
    RefusedError,
    check_put,
    pool_body,
)

_CLUSTER_PATH = re.compile(
    r"^/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.ContainerService/managedClusters/(?P<cluster>[^/]+)/agentPools(?:/(?P<pool>[^/]+))?$"
)
_OPERATION_PATH = re.compile(
    r"^/subscriptions/[^/]+/providers/Microsoft\.ContainerService/locations/eastus/"
    r"(?P<how>operations|operationresults)/(?P<id>[\w-]+)$"
)


class Seen(NamedTuple):
    """One request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By names as `If-Match`, however they were sent."""
    body: Any


@dataclass
class Fault:
    """What becomes of the requests that match, after `skip` of them, `times` times."""

    method: str
    path: re.Pattern[str]
    status: int | None
    """None: the connection is dropped."""
    body: str
    headers: Mapping[str, str]
    skip: int
    times: int
    carried_out: bool
    """The request is carried out all the same: only its answer is lost."""


@dataclass
class Operation:
    """A change to a pool that is under way."""

    id: str
    pool: str
    left: int
    started_at: datetime
    ended_at: datetime | None = None
    error: Json | None = None
    status: str = "InProgress"


@dataclass
class AzureArm:
    """The server; a context manager. Set what a test needs before or while it runs."""

    token: str = "token-of-the-test"
    page_size: int = 100
    steps: int = 2
    """How many requests later an operation ends."""
    operation_header: Literal["Azure-AsyncOperation", "Location", "neither"] = "Azure-AsyncOperation"
    retry_after: str | None = "0"
    vcpus_left: int | None = None
    """Quota beyond what runs; None: more than anybody asks for."""
    failing: dict[str, Json] = field(default_factory=dict)
    """By pool: the error in which its operations that add nodes end."""
    denied: set[str] = field(default_factory=set)
    """Actions that the caller's role lacks, e.g. `Microsoft.ContainerService/managedClusters/agentPools/write`."""
    on_count: Callable[[str, int], None] | None = None
    """Called with pool and number when nodes have come or gone, e.g. to change a cluster's Node objects."""
    on_request: Callable[[str, str], Fault | None] | None = None
    """Called with method and path (with its query) of each request while its sender waits; what it returns happens."""
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    seen: list[Seen] = field(default_factory=list)
    _pools: dict[str, Json] = field(default_factory=dict)
    _operations: dict[str, Operation] = field(default_factory=dict)
    _faults: list[Fault] = field(default_factory=list)
    _changes: int = 1
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __enter__(self) -> Self:
        arm = self

        class Handler(_Handler):
            azure = arm

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """As the server's own, but for a client that has died: tests kill them."""
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, *, spot: bool = False, **properties: Any) -> str:
        with self._lock:
            self._pools[name] = pool_body(name, spot=spot, **properties)
        return name

    def properties(self, name: str) -> Json:
        with self._lock:
            return copy.deepcopy(self._pools[name]["properties"])

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {name: body["properties"]["count"] for name, body in self._pools.items()}

    def change(self, name: str, **properties: Any) -> None:
        """Change a pool as somebody else does."""
        with self._lock:
            self._pools[name]["properties"] |= properties
            self._new_etag(name)

    def end_operations(self) -> None:
        """Let time pass until nothing is under way any more."""
        with self._lock:
            for operation in self._operations.values():
                if operation.ended_at is None:
                    self._end(operation)

    def begin_operation(self, name: str, *, steps: int, state: str = "Updating") -> None:
        """Start an operation of somebody else on a pool, which changes none of its properties."""
        with self._lock:
            self._start(name, steps=steps, state=state)

    def fault(
        self,
        method: str,
        path: str,
        *,
        status: int | None = None,
        code: str = "InternalServerError",
        message: str = "The server encountered an error.",
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        skip: int = 0,
        times: int = 1,
        carried_out: bool = False,
    ) -> None:
        """Answer requests whose path and query match with an error; without a status, drop the connection."""
        answer = body if body is not None else _error(code, message)
        with self._lock:
            pattern = re.compile(path)
            self._faults.append(Fault(method, pattern, status, answer, headers or {}, skip, times, carried_out))

    def clear_faults(self) -> None:
        with self._lock:
            self._faults.clear()

    def requests(self, method: str, path: str = "") -> list[Seen]:
        with self._lock:
            return [one for one in self.seen if one.method == method and re.search(path, one.path)]

    # --- The answers ---

    def faulty(self, method: str, path: str) -> Fault | None:
        if self.on_request is not None and (ordered := self.on_request(method, path)) is not None:
            return ordered
        with self._lock:
            return planned_faults.due(self._faults, method, path)

    def handle(self, seen: Seen, query: Mapping[str, str]) -> tuple[int, Json, Mapping[str, str]]:
        """Status, body and headers. Raises `RefusedError`."""
        with self._lock:
            self._authenticate(seen)
            self._pass_time()
            status, body, headers = self._answer_to(seen, query)
            return status, copy.deepcopy(body), headers

    def _authenticate(self, seen: Seen) -> None:
        sent = seen.headers.get("Authorization", "")
        if sent != f"Bearer {self.token}":
            challenge = {"WWW-Authenticate": 'Bearer authorization_uri="https://login.windows.net/"'}
            code = "InvalidAuthenticationToken" if sent else "AuthenticationFailed"
            raise RefusedError(401, code, "The access token is invalid.", headers=challenge)

    def _pass_time(self) -> None:
        for operation in self._operations.values():
            if operation.ended_at is None:
                operation.left -= 1
                if operation.left <= 0:
                    self._end(operation)

    def _answer_to(self, seen: Seen, query: Mapping[str, str]) -> tuple[int, Json, Mapping[str, str]]:
        if match := _OPERATION_PATH.match(seen.path):
            self._authorize(f"Microsoft.ContainerService/locations/{match['how']}/read")
            return self._operation(match["how"], match["id"])
        match = _CLUSTER_PATH.match(seen.path)
        if match is None:
            raise RefusedError(404, "InvalidResourceType", f"The resource type of {seen.path} could not be found.")
        if "api-version" not in query:
            raise RefusedError(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        self._find_cluster(match)
        action = "write" if seen.method == "PUT" else "read"
        self._authorize(f"Microsoft.ContainerService/managedClusters/agentPools/{action}")
        name = match["pool"]
        if name is None:
            return self._list(query)
        if name not in self._pools:
            raise RefusedError(404, "NotFound", f"The resource agentPools/{name} could not be found.")
        if seen.method == "PUT":
            return self._put(name, seen)
        return 200, self._pools[name], {}

    def _find_cluster(self, match: re.Match[str]) -> None:
        if match["subscription"] != SUBSCRIPTION:
            raise RefusedError(
                404, "SubscriptionNotFound", f"The subscription '{match['subscription']}' could not be found."
            )
        if match["group"].lower() != RESOURCE_GROUP:
            raise RefusedError(404, "ResourceGroupNotFound", f"Resource group '{match['group']}' could not be found.")
        if match["cluster"].lower() != CLUSTER:
            resource = f"Microsoft.ContainerService/managedClusters/{match['cluster']}"
            raise RefusedError(
                404, "ResourceNotFound",
                f"The Resource '{resource}' under resource group '{match['group']}' was not found.",
            )  # fmt: skip

    def _authorize(self, action: str) -> None:
        if action in self.denied:
            raise RefusedError(
                403, "AuthorizationFailed",
                "The client 'labs' with object id 'b1c2' does not have authorization to perform action "
                f"'{action}' over scope '/subscriptions/{SUBSCRIPTION}' or the scope is invalid.",
            )  # fmt: skip

    def _list(self, query: Mapping[str, str]) -> tuple[int, Json, Mapping[str, str]]:
        start = int(query.get("$skipToken", "0"))
        bodies = list(self._pools.values())
        page: Json = {"value": bodies[start : start + self.page_size]}
        if start + self.page_size < len(bodies):
            path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.ContainerService"
            path = f"{path}/managedClusters/{CLUSTER}/agentPools"
            page["nextLink"] = f"{self.url}{path}?api-version=2026-08-01&$skipToken={start + self.page_size}"
        return 200, page, {}

    def _put(self, name: str, seen: Seen) -> tuple[int, Json, Mapping[str, str]]:
        before, sent = self._pools[name]["properties"], (seen.body or {}).get("properties") or {}
        wanted = seen.headers.get("If-Match", "").strip('"')
        if wanted and wanted != before["eTag"]:
            raise RefusedError(412, "PreconditionFailed", f"The etag '{wanted}' does not match the resource's.")
        if running := next((one for one in self._operations.values() if one.ended_at is None), None):
            state = self._pools[running.pool]["properties"]["provisioningState"]
            raise RefusedError(
                409, "OperationNotAllowed",
                f"Operation is not allowed: Another agentpool operation ({running.pool} - {state}) is in progress, "
                "please wait for it to finish before starting a new operation.",
            )  # fmt: skip
        check_put(name, before, sent, vcpus_left=self.vcpus_left)
        added = sent["count"] - before["count"]
        self._pools[name]["properties"] = {
            **{key: value for key, value in copy.deepcopy(sent).items() if key not in READ_ONLY},
            **{key: before[key] for key in READ_ONLY if key in before},
        }
        state = "Scaling" if added else "Updating"
        operation = self._start(
            name, steps=self.steps, state=state, error=self.failing.get(name) if added > 0 else None
        )
        operations = f"{self.url}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/eastus"
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        if self.operation_header != "neither":
            how = "operations" if self.operation_header == "Azure-AsyncOperation" else "operationresults"
            headers[self.operation_header] = f"{operations}/{how}/{operation.id}?api-version=2016-03-30"
        return 200, self._pools[name], headers

    def _start(self, name: str, *, steps: int, state: str, error: Json | None = None) -> Operation:
        operation = Operation(f"op-{len(self._operations) + 1}", name, steps, self.clock(), error=error)
        self._operations[operation.id] = operation
        self._pools[name]["properties"]["provisioningState"] = state
        self._new_etag(name)
        return operation

    def _end(self, operation: Operation) -> None:
        operation.ended_at = self.clock()
        operation.status = "Failed" if operation.error else "Succeeded"
        properties = self._pools[operation.pool]["properties"]
        properties["provisioningState"] = operation.status
        self._new_etag(operation.pool)
        if self.on_count is not None and operation.error is None:
            self.on_count(operation.pool, properties["count"])

    def _new_etag(self, name: str) -> None:
        self._changes += 1
        self._pools[name]["properties"]["eTag"] = f"{name}-{self._changes}"

    def _operation(self, how: str, identity: str) -> tuple[int, Json, Mapping[str, str]]:
        operation = self._operations.get(identity)
        if operation is None:
            raise RefusedError(404, "NotFound", f"The operation {identity} could not be found.")
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        if how == "operationresults":
            if operation.ended_at is None:
                return 202, {}, headers
            return 200, self._pools[operation.pool], {}
        body: Json = {"name": operation.id, "status": operation.status, "startTime": _stamp(operation.started_at)}
        if operation.ended_at is not None:
            body["endTime"] = _stamp(operation.ended_at)
        if operation.ended_at is not None and operation.error:
            body["error"] = operation.error
        return 200, body, headers if operation.ended_at is None else {}


def _stamp(moment: datetime) -> str:
    """As Azure writes it, with seven digits."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}0Z"


def _error(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}})


class _Handler(BaseHTTPRequestHandler):
    azure: AzureArm
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

    def log_message(self, format: str, *args: object) -> None:  # silence: a test reads `seen`
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.title(): value for name, value in self.headers.items()}
        seen = Seen(self.command, parts.path, headers, body)
        self.azure.seen.append(seen)
        fault = self.azure.faulty(self.command, self.path)
        if fault is None or fault.carried_out:
            answer = self._carry_out(seen, query)
            if fault is None:
                self._answer(*answer)
                return
        if fault.status is None:
            self.close_connection = True
            return
        self._answer(fault.status, fault.body, fault.headers)

    def _carry_out(self, seen: Seen, query: Mapping[str, str]) -> tuple[int, str, Mapping[str, str]]:
        try:
            status, body, headers = self.azure.handle(seen, query)
        except RefusedError as refused:
            return refused.status, _error(refused.code, refused.message), refused.headers
        return status, "" if status == 204 else json.dumps(body), headers

    def _answer(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = _serve
