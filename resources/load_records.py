"""What the processes of a load wrote, wherever they ran, put together by time.

Belongs here: the folder that a load begins with, reading and merging its files, and whether they are a whole load.
Doesn't belong here: starting Locust (load_locust.py, load_cluster.py), or writing the files (load-tests/locust/).

In a closed loop a request's stage follows from the times alone, so that no process of a distributed load has to know
the current stage, and none can be wrong about it. An open loop's requests name the stage of their schedule.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resources.load_generator import LoadError, LoadPlan, LoadResult, RequestRecord, StageRecord


def begin_folder(workdir: Path, plan: LoadPlan) -> Path:
    """Make `workdir` a new load's folder, with its plan; the plan's path.

    Raises `LoadError` where it holds the records of another load.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    leftovers = sorted(path.name for path in workdir.glob("*.ndjson"))
    if leftovers:
        raise LoadError(f"{workdir} holds the records of another load ({', '.join(leftovers)}); give an empty folder")
    plan_file = workdir / "plan.json"
    plan_file.write_text(plan.model_dump_json(indent=2), encoding="utf-8")
    return plan_file


def whole_result(workdir: Path, plan: LoadPlan, *, remedy: str) -> LoadResult:
    """The merged files of all processes. Raises `LoadError`, which ends with `remedy`, for less than a whole load."""
    try:
        result = read_result(workdir)
    except (OSError, ValueError, KeyError) as error:
        raise LoadError(f"Locust's records can't be read: {error}. {remedy}") from error
    if not result.requests or len(result.stages) != len(plan.stages):
        raise LoadError(
            f"Locust recorded {len(result.requests)} requests and {len(result.stages)} of {len(plan.stages)} "
            f"stages. {remedy}"
        )
    return result


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
        for line in _lines(path)
    ]
    return LoadResult(
        requests=sorted(requests, key=lambda request: request.scheduled_at),
        stages=[
            StageRecord(**stage, client_cpu_share=cpu_share(processes, stage["started_at"], stage["ended_at"]))
            for stage in stages
        ],
    )


def _lines(path: Path) -> Iterator[str]:
    """One after the other: of 10,000 requests they are 25 MB, which would be held twice beside the records."""
    with path.open(encoding="utf-8") as file:
        yield from file


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
