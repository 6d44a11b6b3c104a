"""What the rows of a run at 10,000 requests cost: from the load's own files to the lake, and the lines in those files.

    python -m benchmarks.row_writing FOLDER TIME_SCALE     # the part that is measured, in a process of its own

The run is one stage at 256 users, 256 tokens at 20 ms each: 5.3 s a request, 207 s in all. CPU is held against that
duration; a run of as many requests from fewer users lasts longer. Its records are made up, with as many digits and
times as real ones have. The load processes' part is the JSON of a line, once for each request; finding the events in an
answer is not in it (rivals.py has that, in CPU per event).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from streaming_load.recorder import PROBE_S

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from lab_pipelines.deployment import REPO_ROOT

NAME = "row writing"
REQUESTS, USERS, TOKENS = 10_000, 256, 256
_REQUEST_S, _TTFT_S, _ITL_S = 5.3, 0.2, 0.02
_SAMPLE_S = 0.5
_PERCENT, _MIB = 2.0, 300.0


def measure(*, requests: int = REQUESTS) -> list[Figure]:
    """CPU as a share of the run's duration; memory on top of what the process held before it read the first record."""
    with TemporaryDirectory(prefix="labs-rows-") as scratch:
        lines_s = _write_records(Path(scratch), requests)
        seen, scaled = (_in_a_process(Path(scratch), scale, requests) for scale in (1.0, 5.0))
    lasts_s = _duration_s(requests)
    share = 100 * (seen["cpu_s"] + lines_s) / lasts_s
    what = f"{requests} requests of {TOKENS} events in {lasts_s:.0f} s"
    return [
        Figure(NAME, "CPU of writing the rows, share of one core", share, "%", _PERCENT, what),
        *(Figure(NAME, f"of it: {part}", seconds, "CPU s") for part, seconds in seen["parts"].items()),
        Figure(NAME, "of it: the load processes' lines", lines_s, "CPU s"),
        Figure(NAME, "peak memory on top of the process's own", seen["peak_mib"], "MiB", _MIB),
        Figure(NAME, "the same where the stack's clock runs 5 times faster", scaled["peak_mib"], "MiB", _MIB),
        Figure(NAME, "the same process before", seen["before_mib"], "MiB"),
    ]


def _in_a_process(folder: Path, time_scale: float, requests: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.row_writing", str(folder), str(time_scale)],
        cwd=REPO_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"the rows were not written: {done.stderr[-600:]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    if seen["rows"] != requests:
        raise BenchmarkError(f"{seen['rows']} of {requests} rows were written")
    return seen


def _duration_s(requests: int) -> float:
    return requests / USERS * _REQUEST_S


def _write_records(folder: Path, requests: int) -> float:
    """The files that Locust leaves; CPU seconds of turning records into lines."""
    numbers, began_at = random.Random(7), 1_790_000_000.0
    spent_s = 0.0
    with (folder / "local.requests.ndjson").open("w", encoding="utf-8") as file:
        for number in range(requests):
            at = began_at + number // USERS * _REQUEST_S + number % USERS * 0.002
            events = [round(_TTFT_S + n * _ITL_S + numbers.random() / 100, 6) for n in range(TOKENS)]
            record = _record(number, at, events)
            before = time.process_time()
            line = json.dumps(record, ensure_ascii=False) + "\n"
            file.write(line)
            file.flush()
            spent_s += time.process_time() - before
    ended_at = began_at + _duration_s(requests) + 60
    samples = round((ended_at - began_at) / _SAMPLE_S)
    told = [_process_line(began_at + n * _SAMPLE_S, n, ended=n == samples) for n in range(samples + 1)]
    (folder / "local.process.ndjson").write_text("".join(json.dumps(line) + "\n" for line in told), encoding="utf-8")
    stage = {"stage": 0, "users": USERS, "started_at": began_at, "ended_at": ended_at}
    (folder / "stages.ndjson").write_text(json.dumps(stage) + "\n", encoding="utf-8")
    return spent_s


def _process_line(at: float, number: int, *, ended: bool) -> dict[str, Any]:
    """What a load process tells of itself twice a second."""
    late_s = [0.0012] * round(_SAMPLE_S / PROBE_S)
    return {
        "at": at,
        "cpu_s": 1.0 + 0.2 * number,
        "probed_from": at - _SAMPLE_S,
        "probe_s": PROBE_S,
        "late_s": late_s,
        "ended": ended,
    }


def _record(number: int, at: float, events: list[float]) -> dict[str, Any]:
    return {
        "request_id": f"ramp-{number % USERS}-{number // USERS}",
        "worker": "local",
        "user_index": number % USERS,
        "shape": 0,
        "counted": True,
        "scheduled_at": round(at, 6),
        "sent_offset_s": 0.000123,
        "finished_offset_s": events[-1] + 0.001,
        "event_offsets_s": events,
        "input_tokens": 512,
        "output_tokens": TOKENS,
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": "length",
        "error": None,
        "server_ttft_s": 0.2,
        "client_lag_s": 0.000123,
        "first_receive_lag_s": 0.002345,
        "receive_lag_p99_s": 0.004321,
    }


def _measured(folder: Path, time_scale: float) -> dict[str, Any]:
    """Read the records in `folder`, make the rows, publish them; what that took of this process."""
    from lab_pipelines.catalog.client_budget import ClientBudget
    from lab_pipelines.client_errors import client_errors, faults
    from lab_pipelines.rows.load import request_rows
    from lab_pipelines.rows.sessions import session_row
    from resources.load_generator import CompletionShape, LoadPlan, StagePlan
    from resources.load_records import read_result
    from resources.warehouse import Warehouse
    from tests.support.sessions import session

    shape = CompletionShape(prompts="p", input_tokens=512, output_tokens=TOKENS, temperature=0.0, timeout_wall_s=60)
    stage = StagePlan(stage=0, users=USERS, hold_wall_s=1, min_requests=1, max_hold_wall_s=2)
    held = session(time_scale=time_scale)
    plan = LoadPlan(
        run_id=held.run_id, step="ramp", base_url="u", model="m", profile="ramp", shapes=[shape], stages=[stage]
    )
    warehouse = Warehouse(data_dir=str(folder / f"data-{time_scale}"))
    # A run publishes its session first. What that imports and sets up isn't the requests' memory.
    where = {"target": held.target, "lab": held.lab, "run_id": held.run_id}
    warehouse.publish("stack_sessions", [session_row(held, released_at=None)], **where, part="baseline.open")
    before_kib = _memory_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    moments = [time.process_time()]
    result = read_result(folder)
    moments.append(time.process_time())
    errors = client_errors(plan, result, ClientBudget(), judge_share=True)
    made = request_rows(held, plan, result, faults=faults(errors))
    moments.append(time.process_time())
    warehouse.publish("requests", made, **where, part="baseline.ramp")
    moments.append(time.process_time())
    peak_kib = _memory_kib("VmHWM")
    parts = ("reading and merging the records", "judging the client and making rows", "checking and publishing them")
    return {
        "cpu_s": moments[-1] - moments[0],
        "parts": dict(zip(parts, (after - before for before, after in pairwise(moments)), strict=True)),
        "peak_mib": (peak_kib - before_kib) / 1024,
        "before_mib": before_kib / 1024,
        "rows": len(made),
    }


def _memory_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    print(json.dumps(_measured(Path(sys.argv[1]), float(sys.argv[2]))))
