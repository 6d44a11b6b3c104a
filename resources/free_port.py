"""Starts a program that serves HTTP on a free loopback port, and waits until it says that it is ready.

Belongs here: the port, the wait, and what is said when it never comes. Doesn't belong here: which program, or how it is
configured (prometheus_server.py, alertmanager_server.py); our own servers choose their port themselves
(lab_pipelines/loopback.py).
"""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from resources import binaries, processes
from resources.cluster import ClusterError

READY_TIMEOUT_S = 20.0
_PORT_ATTEMPTS = 5


def start(
    program: str, arguments: Callable[[int], list[str]], *, ready: str, log: Path, folder: Path, environ: dict[str, str]
) -> str:
    """Start `program` in `folder` with the arguments for a port; its URL once it answers `ready`, a path.

    Raises `ClusterError` when it is not installed, or ends or is silent; then with the end of its log.
    """
    try:
        binary = binaries.find(program)
    except binaries.BinaryNotFoundError as error:
        raise ClusterError(str(error)) from None
    for _ in range(_PORT_ATTEMPTS):
        port = _free_port()
        process = processes.spawn(
            # The watcher steps back for the watched: on two cores a scrape would hold up the streams it counts.
            ["nice", "-n", "10", str(binary), *arguments(port)],
            environ=environ,
            log=log,
            cwd=folder,
        )
        url = f"http://127.0.0.1:{port}"
        if _becomes_ready(process, f"{url}{ready}"):
            return url
        # Between choosing the port and binding it another process may have taken it: the next attempt takes another.
        if process.poll() is None:
            break
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise ClusterError(f"{program} did not become ready; its log ({log}) ends:\n{tail}")


def _becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                # Only our own child counts: another server on this port would answer while ours has died.
                return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)  # nothing listens yet, so there is nothing to wait on
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
