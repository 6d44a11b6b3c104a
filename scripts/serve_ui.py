"""Runs `dagster dev` on a free port of 127.0.0.1 until it is told to stop, and then leaves no process behind.

Doesn't belong here: what is served (workspace.yaml) or where its runs are kept (env.sh, deploy/local/dagster.yaml).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

FIRST_PORT = 3000
PORTS_TO_TRY = 100
GRACE_S = 30.0
"""From an interrupt to SIGKILL. A run that is under way takes its stack down in this time."""
QUIET = "ignore:Function `dev_command` is superseded"
"""Dagster recommends `dg dev` instead, which comes with the developers' extra only."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def free_port(first: int = FIRST_PORT) -> int:
    """The first port from `first` on that nothing on this machine listens on. Raises `SystemExit` if there is none."""
    for port in range(first, first + PORTS_TO_TRY):
        with socket.socket() as probe:
            # As the web server itself does; otherwise a port in TIME_WAIT, say of the UI just stopped, counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise SystemExit(f"ui: ports {first} to {first + PORTS_TO_TRY - 1} of 127.0.0.1 are all taken; stop what uses one")


def processes_of_session(session_id: int) -> Iterator[psutil.Process]:
    """Every process of the session that is still alive, whoever its parent is by now."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session_id and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def stop(leader: subprocess.Popen[bytes]) -> None:
    """Interrupt the services, then the runs that outlive them, so that these take their stacks down; kill the rest."""
    import psutil

    if leader.poll() is None:
        leader.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(timeout=GRACE_S)
    # A code server waits for its runs without telling them to end: killing these here left Prometheus and the engine
    # behind. An interrupt makes a run's `finally` release the stack, and the server follows.
    alive = list(processes_of_session(leader.pid))
    if alive:
        print(f"ui: ending {len(alive)} processes of services and runs", flush=True)
    for ending in (signal.SIGINT, signal.SIGKILL):
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(ending)
        _, alive = psutil.wait_procs(alive, timeout=GRACE_S)
    leader.wait()


def main() -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; 0 after one of these, else the exit code of `dagster dev`."""
    port = free_port()
    stop_asked: list[int] = []

    def ask_to_stop(number: int, _frame: object) -> None:
        # A second Ctrl-C must not cut the orderly stop short.
        if not stop_asked:
            stop_asked.append(number)
            raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, ask_to_stop)

    # A session of its own: Ctrl-C reaches this process alone, which then stops the services in order, and whatever
    # is left of the session afterwards is known to be ours. A handler is set above, so the child starts with the
    # default one: `dagster dev` under an ignored SIGINT, as in a script's background job, can't be interrupted.
    leader = subprocess.Popen(
        [
            sys.executable,
            "-W",
            QUIET,
            "-m",
            "dagster",
            "dev",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-w",
            "workspace.yaml",
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    print(f"ui: starting on http://127.0.0.1:{port} (Ctrl-C stops it)", flush=True)
    try:
        return leader.wait()
    except KeyboardInterrupt:
        print("ui: stopping", flush=True)
        return 0
    finally:
        stop(leader)


if __name__ == "__main__":
    raise SystemExit(main())
