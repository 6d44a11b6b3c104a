"""Load by Locust: a headless Locust in processes of its own, and its files put together when it has ended.

Belongs here: starting and ending those processes, their progress, and merging what they wrote.
Doesn't belong here: users, shapes and streams (load-tests/locust/, which run in Locust's own process).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lab_pipelines.deployment import REPO_ROOT
from resources.cluster import Progress
from resources.load_generator import (
    CompletionShape,
    LoadError,
    LoadGenerator,
    LoadPlan,
    LoadResult,
    RequestRecord,
    Shape,
    StageRecord,
)

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
        workdir.mkdir(parents=True, exist_ok=True)
        leftovers = sorted(path.name for path in workdir.glob("*.ndjson"))
        if leftovers:
            raise LoadError(
                f"{workdir} holds the records of another load ({', '.join(leftovers)}); give an empty folder"
            )
        plan = plan.model_copy(update={"shapes": [_found_anywhere(shape) for shape in plan.shapes]})
        plan_file = workdir / "plan.json"
        plan_file.write_text(plan.model_dump_json(indent=2), encoding="utf-8")

        longest_s = STARTUP_S + sum(stage.max_hold_wall_s for stage in plan.stages)
        command = [sys.executable, "-m", "locust", *self._arguments(plan_file, workdir)]
        code = _supervise(command, workdir=workdir, environ=environ, progress=progress, longest_s=longest_s)
        if code != 0:
            raise LoadError(f"Locust ended with code {code}. {_remedy(workdir)}")
        try:
            result = read_result(workdir)
        except (OSError, ValueError, KeyError) as error:
            raise LoadError(f"Locust's records can't be read: {error}. {_remedy(workdir)}") from error
        if not result.requests or len(result.stages) != len(plan.stages):
            raise LoadError(
                f"Locust recorded {len(result.requests)} requests and {len(result.stages)} of {len(plan.stages)} "
                f"stages. {_remedy(workdir)}"
            )
        return result

    def _arguments(self, plan_file: Path, workdir: Path) -> list[str]:
        arguments = ["-f", str(LOCUSTFILE), "--headless", "--only-summary", "--exit-code-on-error", "0"]
        arguments += ["--plan", str(plan_file), "--records", str(workdir)]
        if self.processes > 1:
            port = str(_free_port())
            arguments += ["--processes", str(self.processes), "--expect-workers-max-wait", "30"]
            arguments += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
        return arguments


def _found_anywhere(shape: Shape) -> Shape:
    """With the absolute path of its fixture: Locust runs in another folder."""
    if not isinstance(shape, CompletionShape):
        return shape
    return shape.model_copy(update={"prompts": str(REPO_ROOT / shape.prompts)})


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
    """What Locust's log says was wrong, and where the rest is.

    Its last lines alone would often be the summary table, which it prints after every error.
    """
    log = workdir / LOG_FILE
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    said = [line for line in lines if "/ERROR/" in line][-5:] or lines[-15:]
    return "\n".join([f"Mend what its log says, then run the load again. From {log}:", *said])


# Reading what the processes wrote. In a closed loop a request's stage follows from the times alone, so that no process
# of a distributed load has to know the current stage, and none can be wrong about it. An open loop's requests name the
# stage of their schedule.


@dataclass(frozen=True)
class CpuSample:
    """CPU seconds of one process so far, at a Unix time."""

    at: float
    cpu_s: float


def read_result(workdir: Path) -> LoadResult:
    """Merge the files of all processes.

    Raises `OSError`, `ValueError` or `KeyError` for a file that is missing, incomplete or not as written.
    """
    stages = [json.loads(line) for line in (workdir / "stages.ndjson").read_text(encoding="utf-8").splitlines()]
    processes = [_read_samples(path) for path in sorted(workdir.glob("*.process.ndjson"))]
    requests = [
        _in_its_stage(json.loads(line), stages)
        for path in sorted(workdir.glob("*.requests.ndjson"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return LoadResult(
        requests=sorted(requests, key=lambda request: request.scheduled_at),
        stages=[
            StageRecord(**stage, client_cpu_share=cpu_share(processes, stage["started_at"], stage["ended_at"]))
            for stage in stages
        ],
    )


def _in_its_stage(record: dict[str, Any], stages: Sequence[Mapping[str, Any]]) -> RequestRecord:
    """The record with its stage, and whether it ended within it. A request that was cut did not.

    An open loop's record names the stage. Else it is the one in which the request was sent; what was sent while the
    load was being cut counts as the last.
    """
    if "stage" in record:
        stage = next((stage for stage in stages if stage["stage"] == record["stage"]), None)
        if stage is None:
            raise ValueError(f"request {record.get('request_id')}: stage {record['stage']} was not applied")
    else:
        # Stamps are rounded to the microsecond, so a stage's first request may seem to precede it by one.
        sent_at = record["scheduled_at"] + record["sent_offset_s"] + 2e-6
        stage = stages[max(bisect_right([stage["started_at"] for stage in stages], sent_at) - 1, 0)]
    finished_at = record["scheduled_at"] + record["finished_offset_s"]
    in_stage = record["outcome"] != "cut" and finished_at <= stage["ended_at"]
    try:
        return RequestRecord(**{**record, "stage": stage["stage"], "in_stage": in_stage})
    except ValidationError as error:
        raise ValueError(f"request {record.get('request_id')}: {error}") from error


def _read_samples(path: Path) -> list[CpuSample]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not lines or not lines[-1]["ended"]:
        raise ValueError(f"{path.name} does not end: that process was killed before it had written its requests")
    return [CpuSample(at=line["at"], cpu_s=line["cpu_s"]) for line in lines]


def cpu_share(processes: Sequence[Sequence[CpuSample]], start: float, end: float) -> float | None:
    """CPU seconds of all processes together per wall second between `start` and `end` (Unix times).

    CPU time between two samples is taken as evenly spent. None without samples on both sides of the interval.
    """
    if end <= start or not processes or any(not s or s[0].at > start or s[-1].at < end for s in processes):
        return None
    spent = sum(_cpu_at(samples, end) - _cpu_at(samples, start) for samples in processes)
    return spent / (end - start)


def _cpu_at(samples: Sequence[CpuSample], at: float) -> float:
    position = min(bisect_right([sample.at for sample in samples], at), len(samples) - 1)
    before, after = samples[max(position - 1, 0)], samples[position]
    if after.at == before.at:
        return after.cpu_s
    return before.cpu_s + (after.cpu_s - before.cpu_s) * (at - before.at) / (after.at - before.at)
