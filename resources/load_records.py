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
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resources.load_generator import LoadError, LoadPlan, LoadResult, RequestRecord, StageRecord
from resources.load_processes import ProcessRecord, cpu_share, event_loop_lag, read_process


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


def read_result(workdir: Path) -> LoadResult:
    """Merge the files of all processes.

    Raises `OSError`, `ValueError` or `KeyError` for a file that is missing, incomplete or not as written.
    """
    stages = [json.loads(line) for line in (workdir / "stages.ndjson").read_text(encoding="utf-8").splitlines()]
    processes = [read_process(path) for path in sorted(workdir.glob("*.process.ndjson"))]
    requests = [
        _in_its_stage(json.loads(line), stages)
        for path in sorted(workdir.glob("*.requests.ndjson"))
        for line in _lines(path)
    ]
    return LoadResult(
        requests=sorted(requests, key=lambda request: request.scheduled_at),
        stages=[_with_client(stage, processes) for stage in stages],
    )


def _with_client(stage: Mapping[str, Any], processes: Sequence[ProcessRecord]) -> StageRecord:
    """The stage, and what its load processes could tell of themselves."""
    start, end = stage["started_at"], stage["ended_at"]
    shares = [(share, process) for process in processes if (share := cpu_share([process.cpu], start, end)) is not None]
    busiest_share, busiest = max(shares, default=(None, None), key=itemgetter(0))
    loops = [lag for process in processes if (lag := event_loop_lag(process.probes, start, end)) is not None]
    latest = max(loops, default=None)
    return StageRecord(
        **stage,
        client_cpu_share=cpu_share([process.cpu for process in processes], start, end),
        busiest_cpu_share=busiest_share,
        cpu_samples=sum(start < sample.at < end for sample in busiest.cpu) + 2 if busiest else 0,
        event_loop_lag_p99_s=latest.p99_s if latest else None,
        event_loop_probes=latest.probes if latest else 0,
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
