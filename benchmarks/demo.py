"""One run of the main command, watched from outside: how long it took, and how much memory it held.

Doesn't belong here: what it spent its time on (overhead.py), starting it (tests/support/main_command.py).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.figures import Figure
from resources.warehouse import Warehouse
from tests.support.main_command import Place, prepared, processes_of, start

MEMORY = "memory"
MEMORY_AT_MOST_MIB = 2048
LONGEST_S = 900.0
SAMPLE_S = 0.2
_SEARCH_S = 2.0
"""Every process that was started since is a child of one that is known; the search is for those that lost theirs."""


class BenchmarkError(RuntimeError):
    """A benchmark could not be run. The message says what to look at."""


@dataclass(frozen=True)
class Demo:
    """A run that has ended well. Times are Unix time in seconds."""

    place: Place
    pace: str
    run_id: str
    started_at: float
    ended_at: float
    peak: Peak
    sampler_cpu_share: float

    @property
    def wall_s(self) -> float:
        return self.ended_at - self.started_at

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of this demo's own warehouse."""
        return Warehouse(data_dir=str(self.place.data_dir)).query(sql)


@dataclass(frozen=True)
class Peak:
    """Resident memory of all processes together at its highest, and whose it was. Shared pages count repeatedly."""

    mebibytes: float = 0.0
    parts: tuple[tuple[str, float], ...] = ()

    def figures(self) -> list[Figure]:
        note = "resident sizes added up, so pages that processes share count repeatedly; " + ", ".join(
            f"{name} {mebibytes:.0f}" for name, mebibytes in self.parts
        )
        return [Figure(MEMORY, "peak of the whole process tree", self.mebibytes, "MiB", MEMORY_AT_MOST_MIB, note)]


@contextmanager
def demonstrated(pace: str) -> Iterator[Demo]:
    """Run L06 at `pace` in an instance and a warehouse of its own, which last as long as the block.

    Raises `BenchmarkError` with the end of its output when the run fails.
    """
    with TemporaryDirectory(prefix="labs-bench-") as folder, prepared(Path(folder) / "place") as place:
        started_at, cpu_s = time.time(), time.process_time()
        run = start(place, pace=pace)
        peak = _watch(place, run.process)
        ended_at, cpu_s = time.time(), time.process_time() - cpu_s
        if run.process.returncode != 0:
            tail = "\n".join(run.output().splitlines()[-20:])
            raise BenchmarkError(f"the main command ended with code {run.process.returncode}; its output ends:\n{tail}")
        run_ids = Warehouse(data_dir=str(place.data_dir)).query("SELECT DISTINCT run_id FROM load_stages")
        yield Demo(
            place=place,
            pace=pace,
            run_id=run_ids[0]["run_id"],
            started_at=started_at,
            ended_at=ended_at,
            peak=peak,
            sampler_cpu_share=cpu_s / (ended_at - started_at),
        )


def _watch(place: Place, process: subprocess.Popen[bytes]) -> Peak:
    """Sample memory until `process` has ended. Raises `BenchmarkError` after `LONGEST_S`."""
    deadline = time.monotonic() + LONGEST_S
    root, found, searched_at, peak = psutil.Process(process.pid), [], time.monotonic(), Peak()
    while time.monotonic() < deadline:
        try:
            process.wait(SAMPLE_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() - searched_at > _SEARCH_S:
                found, searched_at = processes_of(place), time.monotonic()
            peak = max(peak, _memory(root, found), key=lambda sample: sample.mebibytes)
        else:
            return peak
    raise BenchmarkError(f"the main command did not end within {LONGEST_S:.0f} s")


def _memory(root: psutil.Process, found: list[psutil.Process]) -> Peak:
    parts = []
    try:
        tree = {root, *root.children(recursive=True), *found}
    except psutil.NoSuchProcess:
        tree = set(found)
    for process in tree:
        try:
            parts.append((_name(process), process.memory_info().rss / 2**20))
        except psutil.Error:
            continue
    parts.sort(key=lambda part: -part[1])
    return Peak(sum(mebibytes for _, mebibytes in parts), tuple(parts))


def _name(process: psutil.Process) -> str:
    """`run`, `server`, `locust` or the program's own name."""
    command = process.cmdline()
    known = {"dagster": "run", "lab_pipelines.engine.serve": "server", "locust": "locust"}
    return next((known[word] for word in command if word in known), Path(command[0]).name if command else "ended")
