"""A real Locust that is kept from its work is found out; one whose server is kept from its own is not to blame."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.client_budget import ClientBudget
from lab_pipelines.client_errors import ClientError, client_errors, faults
from lab_pipelines.rows.load import request_rows
from resources.load_generator import LoadPlan, LoadResult, StagePlan
from resources.load_locust import LOCUSTFILE
from tests.support.locust_runs import marked, plan, run, stage
from tests.support.sse_server import SseServer, completion
from tests.unit.test_rows import session

pytestmark = pytest.mark.alone

GENEROUS = ClientBudget(
    schedule_lag_p99_wall_s=0.8,
    ttft_lag_p99_wall_s=0.8,
    receive_lag_p99_wall_s=0.8,
    event_loop_lag_p99_wall_s=0.8,
    cpu_share=1.0,
    ttft_error_share=1.0,
)
"""What a machine keeps that has much other work, too."""
STOP_S = 1.5


def judged(load: LoadPlan, result: LoadResult) -> dict[int, dict[str, ClientError]]:
    errors = client_errors(load, result, GENEROUS, judge_share=True)
    return {number: {error.quantity: error for error in of} for number, of in errors.items()}


def valid(load: LoadPlan, result: LoadResult) -> dict[int, set[bool]]:
    """By stage, whether its whole requests that began and ended in it are valid."""
    over = faults(client_errors(load, result, GENEROUS, judge_share=True))
    found: dict[int, set[bool]] = {number.stage: set() for number in result.stages}
    for row in request_rows(session(), load, result, faults=over):
        if row["outcome"] == "ok" and row["in_stage"]:
            found[row["stage"]].add(row["valid"])
    return found


def rate(per_wall_s: float, *, hold_s: float, **changes: Any) -> dict[str, Any]:
    one = StagePlan(
        stage=0, users=None, per_wall_s=per_wall_s, hold_wall_s=hold_s, min_requests=1, max_hold_wall_s=30.0
    )
    return {"profile": "rate", "max_in_flight": 256, "stages": [one], **changes}


@contextmanager
def stopped_when(begun: threading.Event, pid: Any, *, after_s: float = 0.7) -> Iterator[None]:
    """Stop the process `pid()` for `STOP_S`, once, `after_s` after `begun`."""

    def stop() -> None:
        assert begun.wait(60)
        time.sleep(after_s)  # into the midst of a stage
        os.kill(pid(), signal.SIGSTOP)
        try:
            time.sleep(STOP_S)  # the fault itself: so long the process stands still
        finally:
            os.kill(pid(), signal.SIGCONT)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        yield
    finally:
        begun.set()
        stopper.join(60)


class Lines(list[str]):
    """Progress lines; `begun` is set when the one that says so has come."""

    def __init__(self, begins_with: str) -> None:
        super().__init__()
        self.begun = threading.Event()
        self._begins_with = begins_with

    def append(self, line: str) -> None:
        super().append(line)
        if line.startswith(self._begins_with):
            self.begun.set()


def test_an_undisturbed_client_is_within_its_budget(tmp_path: Path) -> None:
    with SseServer(completion(ttft_s=0.1, itl_s=0.01)) as server:
        load = plan(server.base_url, stage(0, 4, hold_s=3.0))
        result = run(load, tmp_path)
    errors = judged(load, result)[0]
    assert {name: (error.within, error.reason) for name, error in errors.items()} == dict.fromkeys(
        errors, (True, None)
    ), errors
    assert errors["event_loop_lag_p99"].n > 40 and errors["ttft_lag_p99"].n >= 12
    assert valid(load, result) == {0: {True}}


def test_a_client_that_was_stopped_is_found_out_in_that_stage_alone(tmp_path: Path) -> None:
    lines = Lines("stage 1/2")  # the first stage has ended
    with SseServer(completion(ttft_s=0.05, itl_s=0.01)) as server:
        load = plan(server.base_url, stage(0, 4, hold_s=2.0), stage(1, 4, hold_s=4.0))
        with stopped_when(lines.begun, lambda: marked(tmp_path)[0].pid):
            result = run(load, tmp_path, lines)
    first, second = judged(load, result).values()
    assert first["event_loop_lag_p99"].within and not second["event_loop_lag_p99"].within
    assert second["event_loop_lag_p99"].value == pytest.approx(STOP_S, abs=0.5)
    assert second["receive_lag_p99"].value is not None
    assert valid(load, result) == {0: {True}, 1: {False}}


HOG = """
import sys, time
sys.path.insert(0, {folder!r})
exec(compile(open({locustfile!r}).read(), {locustfile!r}, "exec"))

def hog():
    while True:
        gevent.sleep(0.1)
        end = time.monotonic() + 1.3
        while time.monotonic() < end:
            pass

gevent.spawn(hog)
"""


def test_a_greenlet_that_does_not_let_go_is_found_out_by_every_lag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hogged = tmp_path / "hogged.py"
    hogged.write_text(HOG.format(folder=str(LOCUSTFILE.parent), locustfile=str(LOCUSTFILE)))
    monkeypatch.setattr("resources.load_locust.LOCUSTFILE", hogged)
    (tmp_path / "records").mkdir()
    with SseServer(completion(ttft_s=0.05, itl_s=0.01)) as server:
        load = plan(server.base_url, **rate(20.0, hold_s=4.0))
        result = run(load, tmp_path / "records")
    errors = judged(load, result)[0]
    over = {name for name, error in errors.items() if error.within is False}
    assert {"schedule_lag_p99", "ttft_lag_p99", "event_loop_lag_p99"} <= over
    assert valid(load, result) == {0: {False}}


def test_a_frozen_server_is_not_its_clients_error(tmp_path: Path) -> None:
    """Few places, so that requests wait for one, too: the server's doing as well."""
    lines = Lines("stage 1/1")
    command = [sys.executable, "-m", "tests.support.sse_server", "--ttft", "0.1", "--itl", "0.01"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin and server.stdout
        base_url = server.stdout.readline().strip()
        load = plan(base_url, **rate(30.0, hold_s=4.0, max_in_flight=12))
        started = threading.Event()
        threading.Thread(target=_set_when_requests_run, args=(tmp_path, started), daemon=True).start()
        with stopped_when(started, lambda: server.pid):
            result = run(load, tmp_path, lines)
        server.stdin.close()
    waited = [r.sent_offset_s for r in result.requests if r.sent_offset_s > 0.6]
    slow = [r for r in result.requests if r.event_offsets_s and r.event_offsets_s[0] > 0.7]
    assert len(waited) > 3 and len(slow) > 10, "the server was frozen while requests were due"
    errors = judged(load, result)[0]
    assert {name: error.reason for name, error in errors.items()} == dict.fromkeys(errors), errors
    assert valid(load, result) == {0: {True}}


def _set_when_requests_run(folder: Path, started: threading.Event) -> None:
    """Set `started` when the first request has been recorded."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(path.stat().st_size for path in folder.glob("*.requests.ndjson")):
            started.set()
            return
        time.sleep(0.02)  # the load tells nobody of its first request


def test_of_several_processes_the_one_that_was_stopped_is_told(tmp_path: Path) -> None:
    lines = Lines("stage 1/2")
    with SseServer(completion(ttft_s=0.05, itl_s=0.01)) as server:
        load = plan(server.base_url, stage(0, 4, hold_s=2.0), stage(1, 4, hold_s=4.0))

        def a_worker() -> int:
            # The first process is the master; its forked children send the requests.
            return max(process.pid for process in marked(tmp_path))

        with stopped_when(lines.begun, a_worker):
            result = run(load, tmp_path, lines, processes=2)
    assert {request.worker for request in result.requests} == {"worker-0", "worker-1"}
    first, second = judged(load, result).values()
    assert first["event_loop_lag_p99"].within and not second["event_loop_lag_p99"].within
    assert valid(load, result) == {0: {True}, 1: {False}}


BUILD_FOR_EACH = """
import time
from locust.argument_parser import default_args_dict
options, began = default_args_dict(), time.monotonic()
for _ in options:
    default_args_dict()
print(time.monotonic() - began)
"""


def test_no_worker_stands_still_when_a_stage_brings_new_users(tmp_path: Path) -> None:
    """Locust's workers built its argument parser once for every option whenever the number of users changed."""
    # In a process of its own, because importing Locust patches the one that does.
    timed = subprocess.run([sys.executable, "-c", BUILD_FOR_EACH], capture_output=True, text=True, check=True)
    build_s = float(timed.stdout)
    with SseServer(completion(ttft_s=0.05, itl_s=0.01)) as server:
        load = plan(server.base_url, *(stage(number, 2 + 2 * number, hold_s=1.5) for number in range(3)))
        result = run(load, tmp_path, processes=2)
    lags = [record.event_loop_lag_p99_s for record in result.stages]
    assert sorted(lag for lag in lags if lag is not None)[1] < build_s / 2, (lags, build_s)
