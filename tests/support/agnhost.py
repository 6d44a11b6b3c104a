"""What plays a pod of Kubernetes' own test image on this machine, as far as the contract asks it: `agnhost netexec`.

Belongs here: the few answers that a test compares. Doesn't belong here: when a pod runs (kube/kubelet.py).
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.kube.kubelet import PodProcess

IMAGE = "registry.k8s.io/e2e-test-images/agnhost"
PORT = 8080


def start(pod: dict[str, Any]) -> PodProcess:
    """`/echo?msg=…` answers with the message, `/hostname` with the pod's name."""
    log = [f"Started HTTP server on port {PORT}\n"]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            log.append(f"{format % args}\n")

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            said = parse_qs(parts.query).get("msg", [""])[0] if parts.path == "/echo" else pod["metadata"]["name"]
            data = said.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return PodProcess(ports={PORT: ("127.0.0.1", server.server_address[1])}, log=lambda: "".join(log), stop=stop)
