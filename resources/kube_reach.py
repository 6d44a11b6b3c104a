"""How this machine gets to the services of a cluster: directly from within it, else by port-forwards.

Belongs here: from a service's address within the cluster to one that can be used here, and the processes that this
takes. Doesn't belong here: carrying the bytes (port_forward.py), or which services a stack has (cluster_kubernetes.py).

A forward is a process that carries its lease's mark, like those of a local stack: it is found by the mark alone, shared
by all processes that work for the lease on this machine, and started again where it has died.
"""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lab_pipelines.deployment import REPO_ROOT, Reach
from resources import processes
from resources.cluster import ClusterError

if TYPE_CHECKING:
    import psutil

READY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Service:
    """A service's port within a cluster."""

    namespace: str
    name: str
    port: int

    @classmethod
    def of(cls, text: str) -> Service:
        """From `namespace/service:port`, as deployment.py checks it."""
        namespace, _, rest = text.partition("/")
        name, _, port = rest.rpartition(":")
        return cls(namespace, name, int(port))

    @property
    def url(self) -> str:
        """Its address within the cluster."""
        return f"http://{self.name}.{self.namespace}.svc:{self.port}"


@dataclass(frozen=True)
class ClusterReach:
    """Ways to the services of the cluster that `kubeconfig` and `context` name; `state_dir` marks the processes."""

    kubeconfig: Path | None
    context: str | None
    how: Reach
    state_dir: Path

    def url(self, address: str, *, lease_id: str) -> str:
        """`address`, a URL within the cluster, as it can be used here. Raises `ClusterError`.

        An address that is no service's (`http://NAME.NAMESPACE.svc:PORT/…`) is everybody's, and stays as it is.
        """
        service = service_of(address)
        if self.how == "direct" or service is None:
            return address
        local = self._port(service, lease_id)
        return address.replace(service.url, f"http://127.0.0.1:{local}", 1)

    def marker(self, lease_id: str) -> dict[str, str]:
        """Environment for a process of this machine that works for the lease."""
        return processes.marker(self.state_dir, lease_id)

    def end(self, lease_id: str) -> list[str]:
        """End every process of the lease on this machine; what they were. Idempotent."""
        return processes.end(self.marked().get(lease_id, []))

    def marked(self) -> dict[str, list[psutil.Process]]:
        """Every process of a lease on this machine, by lease."""
        return processes.find_marked(self.state_dir)

    def _port(self, service: Service, lease_id: str) -> int:
        folder = self.state_dir / "forwards" / lease_id
        folder.mkdir(parents=True, exist_ok=True)
        announce = folder / f"{service.namespace}.{service.name}.{service.port}.json"
        with _locked(folder / "lock"):
            if announce.exists():
                port = int(json.loads(announce.read_text(encoding="utf-8"))["port"])
                if _listens(port):
                    return port
            return self._start(service, lease_id, announce)

    def _start(self, service: Service, lease_id: str, announce: Path) -> int:
        former = json.loads(announce.read_text(encoding="utf-8"))["port"] if announce.exists() else 0
        announce.unlink(missing_ok=True)
        command = [sys.executable, "-m", "resources.port_forward", "--announce", str(announce)]
        command += ["--namespace", service.namespace, "--service", service.name, "--port", str(service.port)]
        # At the port that a session may have recorded, if it is free.
        command += ["--local-port", str(former)]
        command += ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        command += ["--context", self.context] if self.context else []
        output = announce.with_suffix(".out")
        output.unlink(missing_ok=True)
        process = processes.spawn(command, environ=self.marker(lease_id), log=output, cwd=REPO_ROOT)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if announce.exists():
                return int(json.loads(announce.read_text(encoding="utf-8"))["port"])
            if process.poll() is not None:
                break
            time.sleep(0.02)  # a file that another process writes tells of no event
        _end_if_alive(process)
        said = " ".join(output.read_text(errors="replace").split()[-60:]) or "it said nothing"
        raise ClusterError(f"no port-forward to {service.namespace}/{service.name}:{service.port}: {said}")


def service_of(address: str) -> Service | None:
    """The service that a URL within the cluster names, None for any other URL. Pure."""
    parts = urlsplit(address)
    labels = (parts.hostname or "").split(".")
    if len(labels) != 3 or labels[2] != "svc" or parts.scheme != "http" or parts.port is None:
        return None
    return Service(labels[1], labels[0], parts.port)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _end_if_alive(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two processes that work for one lease must not both start its forwards."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
