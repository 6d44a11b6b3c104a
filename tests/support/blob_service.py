"""A double of Azure's Blob service over real HTTP: what a lake asks of one, answered in the real shapes.

Belongs here: Put Blob with `If-None-Match`, Get Blob with its properties, List Blobs, Get Container Properties, as the
REST reference has them (learn.microsoft.com/rest/api/storageservices, version 2021-12-02) and as Azurite answered.
Doesn't belong here: authentication, blocks, deletion: no lake of ours asks for them.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "account"
KEY = base64.b64encode(b"known to everybody").decode()


@dataclass
class BlobService:
    """The server; a context manager."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    """By container/name."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> BlobService:
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def note(self, method: str, if_none_match: str | None) -> None:
        """Called for each request, before it is answered."""

    @property
    def connection_string(self) -> str:
        endpoint = f"http://127.0.0.1:{self._server.server_port}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: BlobService

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name, _ = self._asked()
        with self.service.lock:
            if self.headers.get("If-None-Match") == "*" and name in self.service.blobs:
                self._refuse(409, "BlobAlreadyExists")
                return
            self.service.blobs[name] = content
        self._answer(201, headers=_of(content))

    def do_HEAD(self) -> None:
        name, query = self._asked()
        if query.get("restype") == "container":
            self._answer(200)
        elif name not in self.service.blobs:
            self._refuse(404, "BlobNotFound")
        else:
            self._answer(200, headers=_of(self.service.blobs[name]), length=len(self.service.blobs[name]))

    def do_GET(self) -> None:
        name, query = self._asked()
        if query.get("comp") == "list":
            self._answer(200, self._listed(name, query).encode(), {"Content-Type": "application/xml"})
        elif query.get("restype") == "container":
            self._answer(200)
        elif name not in self.service.blobs:
            self._refuse(404, "BlobNotFound")
        else:
            self._get(self.service.blobs[name])

    def _get(self, content: bytes) -> None:
        asked = self.headers.get("x-ms-range") or self.headers.get("Range")
        if not asked or not content:
            self._answer(200, content, _of(content))
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self._answer(206, part, {**_of(content), "Content-Range": span})

    def _listed(self, container: str, query: dict[str, str]) -> str:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        blobs, folders = "", dict[str, None]()
        for name, content in sorted(self.service.blobs.items()):
            path = name.removeprefix(f"{container}/")
            if not name.startswith(f"{container}/{prefix}"):
                continue
            if delimiter and delimiter in path[len(prefix) :]:
                folders[prefix + path[len(prefix) :].split(delimiter)[0] + delimiter] = None
                continue
            properties = "".join(f"<{key}>{value}</{key}>" for key, value in _properties(content).items())
            blobs += f"<Blob><Name>{escape(path)}</Name><Properties>{properties}</Properties></Blob>"
        prefixes = "".join(f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>" for folder in folders)
        return (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{container}">'
            f"<Prefix>{escape(prefix)}</Prefix><Blobs>{prefixes}{blobs}</Blobs><NextMarker /></EnumerationResults>"
        )

    def _asked(self) -> tuple[str, dict[str, str]]:
        """(container/name, query); a container alone has no slash."""
        self.service.note(self.command, self.headers.get("If-None-Match"))
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix(f"/{ACCOUNT}").strip("/")
        return path, {key: values[0] for key, values in parse_qs(parts.query).items()}

    def _refuse(self, status: int, code: str) -> None:
        body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
        self._answer(status, body.encode(), {"x-ms-error-code": code, "Content-Type": "application/xml"})

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        said = {
            "x-ms-version": "2021-12-02",
            "x-ms-request-id": "00000000-0000-0000-0000-000000000000",
            **(headers or {}),
        }
        for name, value in said.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _properties(content: bytes) -> dict[str, str]:
    return {
        "Creation-Time": formatdate(0, usegmt=True),
        "Last-Modified": formatdate(0, usegmt=True),
        "Etag": f"0x{hashlib.md5(content).hexdigest()[:15].upper()}",
        "Content-Length": str(len(content)),
        "Content-Type": "application/octet-stream",
        "BlobType": "BlockBlob",
    }


def _of(content: bytes) -> dict[str, str]:
    properties = _properties(content)
    return {
        "ETag": f'"{properties["Etag"]}"',
        "Last-Modified": properties["Last-Modified"],
        "x-ms-creation-time": properties["Creation-Time"],
        "x-ms-blob-type": "BlockBlob",
        "Content-Type": "application/octet-stream",
    }
