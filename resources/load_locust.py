"""Load by Locust: a headless Locust in processes of its own, and its files put together when it has ended.

Belongs here: starting and ending those processes on this machine, and their progress.
Doesn't belong here: users, shapes and streams (load-tests/locust/, which run in Locust's own process), or merging what
they wrote (load_records.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from lab_pipelines.deployment import REPO_ROOT
from resources.cluster import Progress
from resources.load_generator import LoadError, LoadGenerator, LoadPlan, LoadResult
from resources.load_records import begin_folder, whole_result

LOCUSTFILE = REPO_ROOT / "load-tests" / "locust" / "locustfile.py"
LOG_FILE = "locust.log"

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL: Locust cuts its users and writes their last requests."""
STARTUP_S = 60.0
"""Longest time that Locust may take around the stages themselves: importing, forking, collecting its workers."""


class LocustLoadGenerator(LoadGenerator):
    """Applies a plan with Locust on this machine.

    `processes` > 1 is Locust's distributed mode, a master and so many workers: for loads that one core can't drive.
    """

    processes: int = Field(default=1, ge=1)

    def run(self, plan: LoadPlan, *, workdir: Path, environ: dict[str, str], progress: Progress) -> LoadResult:
        plan = plan.found_from_anywhere(REPO_ROOT)
        plan_file = begin_folder(workdir, plan)

        longest_s = STARTUP_S + sum(stage.max_hold_wall_s for stage in plan.stages)
        command = [sys.executable, "-m", "locust", *self._arguments(plan_file, workdir)]
        code = _supervise(command, workdir=workdir, environ=environ, progress=progress, longest_s=longest_s)
        if code != 0:
            raise LoadError(f"Locust ended with code {code}. {_remedy(workdir)}")
        return whole_result(workdir, plan, remedy=_remedy(workdir))

    def _arguments(self, plan_file: Path, workdir: Path) -> list[str]:
        arguments = locust_arguments(str(LOCUSTFILE), plan=str(plan_file), records=str(workdir))
        if self.processes > 1:
            port = str(_free_port())
            arguments += ["--processes", str(self.processes), "--expect-workers-max-wait", "30"]
            arguments += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
        return arguments


def locust_arguments(locustfile: str, *, plan: str, records: str) -> list[str]:
    """What every process of a load is started with, wherever it runs: paths as it sees them."""
    arguments = ["-f", locustfile, "--headless", "--only-summary", "--exit-code-on-error", "0"]
    return [*arguments, "--plan", plan, "--records", records]


def last_words(log: Sequence[str]) -> list[str]:
    """The lines of Locust's log that say what was wrong.

    Its last lines alone would often be the summary table, which it prints after every error.
    """
    return [line for line in log if "/ERROR/" in line][-5:] or list(log[-15:])


def _supervise(
    command: list[str], *, workdir: Path, environ: Mapping[str, str], progress: Progress, longest_s: float
) -> int:
    """Run Locust to its end and return its exit code; whatever happens, none of its processes is left.

    Every process of Locust holds the writing end of one pipe, so its end of file says that all of them have ended,
    also workers that outlived their master. The first process is waited for last: until then its pid, which is also
    the group's, can't be given to another.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    reader, writer = os.pipe()
    try:
        with (workdir / LOG_FILE).open("wb") as log:
            locust = subprocess.Popen(
                [*command, "--progress-fd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=workdir,
                env={**inherited, **environ},
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        writer = -1
        deadline = time.monotonic() + longest_s
        try:
            if not _relay(reader, progress, until=deadline):
                raise LoadError(f"Locust did not end within {longest_s:.0f} s. {_remedy(workdir)}")
        except BaseException:  # also the interrupt of a cancelled run
            _signal_group(locust.pid, signal.SIGTERM)
            _relay(reader, lambda line: None, until=time.monotonic() + GRACE_S)
            raise
        finally:
            _signal_group(locust.pid, signal.SIGKILL)
            code = locust.wait()
        return code
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _relay(reader: int, progress: Progress, *, until: float) -> bool:
    """Pass on every line from `reader` until all writers are gone. False at `until`, a `time.monotonic()`."""
    pending = b""
    while (remaining := until - time.monotonic()) > 0:
        if not select.select([reader], [], [], remaining)[0]:
            continue
        data = os.read(reader, 4096)
        if not data:
            return True
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            progress(line.decode(errors="replace"))
    return False


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _remedy(workdir: Path) -> str:
    """What Locust's log says was wrong, and where the rest is."""
    log = workdir / LOG_FILE
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"Mend what its log says, then run the load again. From {log}:", *last_words(lines)])
