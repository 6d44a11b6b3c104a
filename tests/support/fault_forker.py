"""The process that forks runs and ticks, and what is said to it.

Belongs here: starting it, ordering one process, following it to its end. Doesn't belong here: what these processes do
(fault_run.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab_pipelines.deployment import REPO_ROOT

Json = dict[str, Any]

LONGEST_S = 40.0
"""For a run or a tick. None of their own deadlines is as long: a cell that reaches this one hangs."""
THREADLESS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Or the libraries start threads as they are imported, and a process with threads must not be forked."""


class Forker:
    """The process that forks runs and ticks (fault_run.py); a context manager."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "runs.sock"

    def __enter__(self) -> Forker:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fault_run", str(self._socket)],
            stdout=subprocess.PIPE,
            cwd=REPO_ROOT,
            env={**environ(), **THREADLESS, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(REPO_ROOT)},
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def run(self, order: Json, begins: Callable[[int, str], None]) -> Json:
        """What a process said of its end; `ended` is "killed" for one that said nothing. Fails for one that hangs."""
        said: Json = {"ended": "killed"}
        pid = 0
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.settimeout(LONGEST_S)
            with connection.makefile("rw") as file:
                print(json.dumps(order), file=file, flush=True)
                try:
                    for line in file:
                        told = json.loads(line)
                        pid = told.get("pid", pid)
                        said |= told
                        if part := told.get("part"):
                            begins(pid, part)
                            print(file=file, flush=True)
                except ConnectionError:  # it was killed with our answer on the way
                    pass
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    said |= {"ended": f"hung for {LONGEST_S:.0f} s"}
        return said


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("LABS_", "DAGSTER_", "AZURE_"))}
