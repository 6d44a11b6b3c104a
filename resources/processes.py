"""Processes of a local stack: started in a session of their own, found again by a marker, ended for certain.

Every process carries `LABS_STATE_DIR` and `LABS_LEASE_ID` in its environment, as a Kubernetes object carries
labels. So whatever a killed run left behind, also children of children, is found without any record of it.

Doesn't belong here: leases (leases.py) or what the processes are for (cluster_local.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

STATE_DIR_VARIABLE = "LABS_STATE_DIR"
LEASE_ID_VARIABLE = "LABS_LEASE_ID"

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL. A server that streams needs less than one second to stop."""


def marker(state_dir: Path, lease_id: str) -> dict[str, str]:
    """The environment by which a process of this lease is recognised."""
    return {STATE_DIR_VARIABLE: str(state_dir.resolve()), LEASE_ID_VARIABLE: lease_id}


def spawn(command: list[str], *, environ: dict[str, str], log: Path, cwd: Path) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, its output appended to `log`. `environ` is added to our environment."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
            cwd=cwd,
            start_new_session=True,
        )


def owner_of(pid: int | None = None) -> str:
    """A process's identity, `pid:start time`: a later process with the same pid is not it."""
    import psutil

    process = psutil.Process(pid)
    return f"{process.pid}:{process.create_time():.2f}"


def is_alive(owner: str) -> bool:
    """Whether the process that `owner_of` described still runs."""
    import psutil

    pid = owner.split(":", 1)[0]
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and owner_of(process.pid) == owner
    except psutil.NoSuchProcess:
        return False


def find_marked(state_dir: Path) -> dict[str, list[psutil.Process]]:
    """Every live process that belongs to `state_dir`, by lease id. Other users' processes are never ours."""
    return find_marked_in(str(state_dir.resolve()))


def find_marked_in(wanted: str) -> dict[str, list[psutil.Process]]:
    """As `find_marked`, by the value of the mark itself."""
    import psutil

    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            if environ.get(STATE_DIR_VARIABLE) == wanted and process.status() != psutil.STATUS_ZOMBIE:
                found[environ.get(LEASE_ID_VARIABLE, "")].append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return dict(found)


def end(processes: list[psutil.Process], *, grace_s: float = GRACE_S) -> list[str]:
    """End `processes`: SIGTERM, then SIGKILL after `grace_s`. Returns their descriptions. Idempotent."""
    import psutil

    ended = []
    for process in processes:
        try:
            ended.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
            process.send_signal(signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=grace_s)
    return ended
