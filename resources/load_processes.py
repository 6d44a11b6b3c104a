"""What the processes of a load told of themselves: their CPU time, and how late their event loops were.

Belongs here: reading `<process>.process.ndjson`, and what it says of a stretch of time. Doesn't belong here: writing it
(load-tests/locust/streaming_load/recorder.py), or how much is too much (lab_pipelines/client_errors.py).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from streaming_load.ranks import nearest_rank


@dataclass(frozen=True)
class CpuSample:
    """CPU seconds of one process so far, at a Unix time."""

    at: float
    cpu_s: float


class Probe(NamedTuple):
    """One look at a process's event loop: due at a Unix time, and noticed so much later."""

    due: float
    late_s: float


class LoopLag(NamedTuple):
    """How late a process noticed what came. Compared by the lag."""

    p99_s: float
    probes: int


@dataclass(frozen=True)
class ProcessRecord:
    cpu: list[CpuSample]
    probes: list[Probe]


def read_process(path: Path) -> ProcessRecord:
    """Read one process's file.

    Raises `OSError`, `ValueError` or `KeyError` for a file that is missing, incomplete or not as written.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not lines or not lines[-1]["ended"]:
        raise ValueError(f"{path.name} does not end: that process was killed before it had written its requests")
    return ProcessRecord(
        cpu=[CpuSample(at=line["at"], cpu_s=line["cpu_s"]) for line in lines],
        probes=[probe for line in lines for probe in _probes(line)],
    )


def _probes(line: Mapping[str, Any]) -> Iterator[Probe]:
    """One for each time at which a look was due, as if it had been asked for on time.

    Whoever waits to be woken asks nothing meanwhile: a process that stood still for a second would be seen once, as
    often as one that was late by a millisecond. So the looks that a late one kept from being due are told, too, each
    with what was left of the delay (G. Tene's correction for coordinated omission, as in HdrHistogram).
    """
    every_s, woken = line["probe_s"], line["probed_from"]
    for late_s in line["late_s"]:
        for missed in range(math.floor(late_s / every_s) + 1):
            yield Probe(woken + (missed + 1) * every_s, late_s - missed * every_s)
        woken += every_s + late_s


def event_loop_lag(probes: Sequence[Probe], start: float, end: float) -> LoopLag | None:
    """The 99th percentile (nearest rank) of the looks that were due between `start` and `end` (Unix times).

    Of fewer than a hundred it is the latest one. None without any.
    """
    lags = [probe.late_s for probe in probes if start <= probe.due < end]
    return LoopLag(nearest_rank(lags, 0.99), len(lags)) if lags else None


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
