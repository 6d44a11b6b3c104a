"""The connections of the double: reading a request, answering it, streaming a watch, failing as a test asks for.

Belongs here: HTTP. Doesn't belong here: what the answer is (objects.py, watches.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from lab_pipelines.rehearsal.admission import RefusedError
from tests.support.kube import portforward, protobuf, watches
from tests.support.kube.objects import Asked

if TYPE_CHECKING:
    from tests.support.kube_api import KubeApi

_PROXIED = re.compile(r"^(?:https?:)?(?P<name>[^:]+)(?::(?P<port>[\w-]+))?$")


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str | None
    body: Any
    manager: str = "unknown"
    """Who writes, as `managedFields` names it."""


@dataclass
class Fault:
    """What happens to requests that match, in place of the real answer: after `skip` of them, `times` times."""

    method: str
    path: re.Pattern[str]
    skip: int
    times: int
    status: int = 0
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    """The connection ends without an answer."""
    carried_out: bool = False
    """What was asked for is done all the same."""
    silent: bool = False
    """The connection stays open without an answer, until the server is closed."""


def status_object(status: int, message: str, reason: str) -> str:
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
    return json.dumps({**said, "reason": reason} if reason else said)


class RequestHandler(BaseHTTPRequestHandler):
    """One connection; a subclass says to which server it belongs."""

    kube: KubeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

    def log_message(self, format: str, *args: object) -> None:  # silence: a test reads `seen`
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = parts.path.rstrip("/") or "/"
        proxied = "/proxy" in path
        content_type = (self.headers.get("Content-Type") or "").split(";")[0] or None
        body = None if proxied or not data else _read(data, content_type)
        manager = query.get("fieldManager") or (self.headers.get("User-Agent") or "unknown").split("/")[0]
        seen = Seen(self.command, path, query, content_type, body, manager)
        self.kube.seen.append(seen)
        if self.kube.silent:
            self.kube.wait_for_end()
            self.close_connection = True
            return
        if (fault := self.kube.fault(seen.method, self.path)) is not None:
            self._fail(fault, seen)
            return
        try:
            self._answer_to(seen, data)
        except RefusedError as refused:
            said = status_object(refused.status, refused.message, refused.reason)
            self._answer(refused.status, said.encode(), {})

    def _fail(self, fault: Fault, seen: Seen) -> None:
        if fault.carried_out:
            self.kube.handle(seen)
        if fault.silent:
            self.kube.wait_for_end()
        if fault.drop or fault.silent:
            self.close_connection = True
            return
        self._answer(fault.status, fault.body.encode(), fault.headers)

    def _answer_to(self, seen: Seen, data: bytes) -> None:
        """Raises `RefusedError`."""
        kube, parts = self.kube, seen.path.split("/")
        if seen.query.get("watch") in ("true", "1"):
            self._stream(seen, kube.asked(seen.path))
        elif "proxy" in parts:
            self._proxy(seen.path, data)
        elif parts[-1] == "portforward":
            asked = kube.asked(seen.path)
            pod = kube.objects.get(asked)
            if pod["status"].get("phase") != "Running":
                said = f"unable to forward port because pod is not running. Current status={pod['status'].get('phase')}"
                raise RefusedError(400, "BadRequest", said)
            ports = [int(port) for port in seen.query["ports"].split(",")]
            portforward.forward(self, ports, lambda port: kube.address(asked, port))
        elif parts[-1] == "log":
            self._log(seen, kube.asked(seen.path))
        else:
            status, body = kube.handle(seen)
            self._answer(status, body, {})

    def _proxy(self, path: str, data: bytes) -> None:
        before, _, rest = path.partition("/proxy")
        place, _, said = before.rpartition("/")
        match = _PROXIED.match(unquote(said))
        assert match is not None
        asked = self.kube.asked(f"{place}/{match['name']}/proxy")
        try:
            address = self.kube.address(asked, match["port"])
            if address is None:
                raise ConnectionRefusedError("connect: connection refused")
            query = urlsplit(self.path).query
            portforward.proxy(self, address, f"{rest or '/'}{'?' if query else ''}{query}", data)
        except OSError as error:
            raise RefusedError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from None

    def _log(self, seen: Seen, asked: Asked) -> None:
        pod = self.kube.objects.get(asked)
        for one in pod["status"].get("containerStatuses") or []:
            waiting = one["state"].get("waiting")
            if waiting and not one.get("restartCount"):
                said = f'container "{one["name"]}" in pod "{asked.name}" is waiting to start: {waiting["reason"]}'
                raise RefusedError(400, "BadRequest", said)
        lines = self.kube.kubelet.log_of(pod).splitlines(keepends=True)
        if seen.query.get("timestamps") == "true":
            with self.kube.store.changed:
                stamps = self.kube.log_stamps.setdefault(pod["metadata"]["uid"], [])
                stamps += [_written_at(line) for line in lines[len(stamps) :]]
                lines = [f"{stamp} {line}" for stamp, line in zip(stamps, lines, strict=False)]
        if tail := int(seen.query.get("tailLines") or 0):
            lines = lines[-tail:]
        self._answer(200, "".join(lines).encode(), {"Content-Type": "text/plain"})

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, seen: Seen, asked: Asked) -> None:
        """Raises `RefusedError` before the first byte."""
        if self.kube.expires():
            gone = json.loads(status_object(410, "too old resource version: 1 (200)", "Expired"))
            events = iter([{"type": "ERROR", "object": gone}])
        else:
            events = watches.events(self.kube.store, asked, seen.query, ends=self.kube.is_closing)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):  # the client has seen enough
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve


def _read(data: bytes, content_type: str | None) -> Any:
    """A body: protobuf, JSON, or the YAML that an apply may be."""
    if content_type == protobuf.CONTENT_TYPE:
        return protobuf.decode(data)
    try:
        return json.loads(data)
    except ValueError:
        return yaml.safe_load(data)


def _written_at(line: str) -> str:
    """When the kubelet would have taken in a new line: its own `ts`, if it is JSON and has one; else now."""
    try:
        at = datetime.fromtimestamp(json.loads(line)["ts"], UTC)
    except (ValueError, LookupError, TypeError):
        at = datetime.now(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
