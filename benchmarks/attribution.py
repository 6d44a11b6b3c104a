"""How long it takes to attribute the cost of years of labs anew, and that it grows as the rows do.

Belongs here: a year of rows by a model of a lab, and each size in a process of its own, so that its peak memory is its
own. Doesn't belong here: whether the parts are right (tests/unit/test_cost.py).

A year is 78 labs with 10 sessions each; a session has 6 stages and 250 requests. Rehearsed sessions have 50 (L09) to
3,600 (L24) of them. `split` is the arithmetic alone, from columns to parts; `lake` is all of it: Parquet in, split,
compared with the estimates that hold. Each lab's sessions are split together, as `labs cost reattribute` does. Seconds
are of CPU time, which another program on the machine hardly lengthens.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from lab_pipelines.attribution import labs_with_sessions, reattribute
from lab_pipelines.cost import Case, RequestColumns, StageWindow, split
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.lanes import ClosedSession, all_its_time, lane_of, unix_us

NAME = "cost attribution"
LABS, TRIALS, STAGES, REQUESTS = 78, 10, 6, 250
COLD_S, STAGE_S, GAP_S, REQUEST_S = 640.0, 300.0, 20.0, 12.0
EXPONENT_AT_MOST = 1.1
"""Of time against rows: 1 is linear. What is above it is for the machine's caches, which small sizes fit into."""
YEARS, QUICK_YEARS = (1, 10, 100, 1000), (1, 10)
LAKE_YEARS, QUICK_LAKE_YEARS = (1, 4), (1,)
ASKED_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PRICE = Decimal("0.526")


@dataclass(frozen=True)
class Took:
    """One size: requests that were attributed, seconds of CPU time, and the peak memory of its process."""

    rows: int
    seconds: float
    peak_mib: float


def measure(*, quick: bool) -> list[Figure]:
    """The figures of every size. Raises `BenchmarkError`."""
    figures = list[Figure]()
    for what, years in (
        ("split", QUICK_YEARS if quick else YEARS),
        ("lake", QUICK_LAKE_YEARS if quick else LAKE_YEARS),
    ):
        took = {year: _in_a_process(what, year) for year in years}
        for year, one in took.items():
            name = f"{what}, {year} times a year"
            sessions, per_s = LABS * TRIALS * year, one.rows / one.seconds
            note = f"{one.rows:,} requests in {sessions:,} sessions, {per_s:,.0f} rows/s"
            figures.append(Figure(NAME, name, one.seconds, "CPU s", note=note))
            figures.append(Figure(NAME, f"{name}: peak memory", one.peak_mib, "MiB"))
        if len(took) > 1:
            slope = exponent(list(took.values()))
            figures.append(Figure(NAME, f"{what}: exponent of time against rows", slope, "", EXPONENT_AT_MOST))
    return figures


def exponent(took: Sequence[Took]) -> float:
    """The slope of log time against log rows, by least squares: 1 where time is in proportion to rows."""
    xs, ys = (
        [math.log(value) for value in values] for values in zip(*((t.rows, t.seconds) for t in took), strict=True)
    )
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


def _in_a_process(what: str, years: int) -> Took:
    command = [sys.executable, "-m", "benchmarks.attribution", what, str(years)]
    done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command[1:])}: {done.stderr.strip().splitlines()[-1:]}")
    return Took(**json.loads(done.stdout))


def _split(years: int) -> Took:
    """All labs, one after the other, from columns that are made beforehand: making them is not attribution."""
    sessions = TRIALS * years
    cases, columns = _cases(sessions), _columns(sessions)
    seconds = 0.0
    for _ in range(LABS):
        began = time.process_time()
        parts = split(cases, columns)
        seconds += time.process_time() - began
        if len(parts) != sessions:
            raise BenchmarkError(f"{len(parts)} of {sessions} sessions were split")
    return Took(LABS * sessions * REQUESTS, seconds, _peak_mib())


def _cases(sessions: int) -> list[Case]:
    cases = list[Case]()
    for number in range(sessions):
        ready = ASKED_AT + timedelta(seconds=COLD_S, days=number)
        stages = [
            StageWindow("ramp", n, ready + timedelta(seconds=start), ready + timedelta(seconds=start + STAGE_S))
            for n in range(STAGES)
            for start in [GAP_S + n * (STAGE_S + GAP_S)]
        ]
        session = ClosedSession(
            requested_at=ready - timedelta(seconds=COLD_S), ready_at=ready,
            released_at=stages[-1].ended_at + timedelta(seconds=GAP_S),
            nodes=1, time_scale=1.0, cold_start_s=COLD_S, first_token_s=0.0,
        )  # fmt: skip
        cases.append(Case(session, stages, [lane_of(session, all_its_time(session), usd_per_node_hour=PRICE)]))
    return cases


def _columns(sessions: int) -> RequestColumns:
    import numpy as np

    numbers = np.random.default_rng(78)
    case = np.repeat(np.arange(sessions), REQUESTS)
    ready = unix_us(ASKED_AT + timedelta(seconds=COLD_S)) + 86_400_000_000 * case
    sent = ready + (numbers.random(len(case)) * STAGES * (STAGE_S + GAP_S) * 1e6).astype(np.int64)
    took = (numbers.exponential(REQUEST_S, len(case)) * 1e6).astype(np.int64)
    return RequestColumns(case, sent, sent + took, numbers.random(len(case)) < 0.01)


def _lake(years: int) -> Took:
    from resources.warehouse_core import PlainWarehouse
    from tests.support.rows.money import unit_price

    def price_of(sku: str | None, priority: Any) -> Any:
        return None if sku is None else unit_price(sku=sku, priority=priority)

    with TemporaryDirectory(prefix="labs-bench-") as folder:
        warehouse = PlainWarehouse(data_dir=folder)
        sessions = TRIALS * years
        cases, columns = _cases(sessions), _columns(sessions)
        for lab in range(1, LABS + 1):
            _publish(warehouse, f"L{lab:02}", cases, columns)
        where = labs_with_sessions(warehouse)
        reattribute(warehouse, where, price_of=price_of, now=ASKED_AT)
        before = _peak_mib()
        began = time.process_time()
        found = reattribute(warehouse, where, price_of=price_of, now=ASKED_AT + timedelta(days=1))
        seconds = time.process_time() - began
        if (found.sessions, found.changed) != (LABS * sessions, []):
            raise BenchmarkError(f"{found.sessions} sessions, {len(found.changed)} changed; nothing should have")
    return Took(LABS * sessions * REQUESTS, seconds, max(before, _peak_mib()))


def _publish(warehouse: Any, lab: str, cases: Sequence[Case], columns: RequestColumns) -> None:
    """The rows of a lab: one run, whose variants stand for trials, so that few files have to be written."""
    from tests.support.rows.load import request_row, stage_row
    from tests.support.rows.sessions import node_time_row, session_row

    tables: dict[str, list[dict[str, Any]]] = {"stack_sessions": [], "node_time": [], "load_stages": [], "requests": []}
    for number, case in enumerate(cases):
        own: dict[str, Any] = {"lab": lab, "run_id": lab, "session_id": f"{lab}-{number}", "time_scale": 1.0}
        session = case.session
        times = {"requested_at": session.requested_at, "ready_at": session.ready_at, "released_at": session.released_at}
        held_s = (session.released_at - session.ready_at).total_seconds()
        closed = session_row(**own, **times, held_s=held_s, cold_start_s=COLD_S, first_token_s=0.0)
        tables["stack_sessions"].append(closed)
        tables["node_time"].append(node_time_row(closed))
        tables["load_stages"] += [
            stage_row(**own, stage=s.stage, started_at=s.started_at, ended_at=s.ended_at) for s in case.stages
        ]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for number, sent_us, finished_us, failed in zip(*(column.tolist() for column in columns), strict=True):
        tables["requests"].append(
            request_row(
                lab=lab, run_id=lab, session_id=f"{lab}-{number}", time_scale=1.0, event_offsets_s=[],
                sent_at=epoch + timedelta(microseconds=sent_us),
                finished_at=epoch + timedelta(microseconds=finished_us),
                outcome="timeout" if failed else "ok",
            )
        )  # fmt: skip
    for table, published in tables.items():
        warehouse.publish(table, published, target="local", lab=lab, run_id=lab)


def _peak_mib() -> float:
    # Not ru_maxrss alone, which a process inherits from the one that has started it.
    status = Path("/proc/self/status").read_text()
    peak_kib = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return (float(peak_kib[0]) if peak_kib else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


if __name__ == "__main__":
    _which, _years = sys.argv[1:]
    _took = {"split": _split, "lake": _lake}[_which](int(_years))
    print(json.dumps({"rows": _took.rows, "seconds": _took.seconds, "peak_mib": _took.peak_mib}))
