"""A server that stands still for 5 of 15 seconds, at 50 requests per second: what is said of it.

In a true open loop every request that was due in those seconds waits for their end. How long it took is known from the
schedule, which is the same in every run, and from the server's log, which says when its last token went out; so is the
share of requests over a second, and ours is held against it. Beside it stand what follows from the schedule and the
freeze alone, if the server had no backlog to work off afterwards, and what users who wait for their answers say: those
of Locust's `constant_throughput`.

Doesn't belong here: the server (rivals_server.py), those users (frozen_users.py).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from streaming_load.prompts import nonce

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from benchmarks.rivals_server import MODEL, name_of
from benchmarks.rivals_tools import Sent
from lab_pipelines.deployment import REPO_ROOT
from resources.load_generator import CompletionShape, LoadPlan, StagePlan
from resources.load_locust import LocustLoadGenerator

NAME = "frozen server"
_TOKENS, _TTFT_S, _ITL_S = 8, 0.05, 0.005
_RUN_ID = "frozen"
_POINTS = 1.0
_WITHIN_S = 60.0


@dataclass(frozen=True)
class Experiment:
    """So many requests per second for so long, of which the server stands still for some."""

    per_s: float = 50.0
    hold_s: float = 15.0
    freeze_at_s: float = 5.0
    freeze_for_s: float = 5.0
    over_s: float = 1.0
    """A request is slow from here on."""


@dataclass(frozen=True)
class Told:
    """What is said of the server: requests that were sent in those seconds, and the share of them that was slow."""

    requests: int
    slow: float


def measure() -> list[Figure]:
    """Both loops, one after the other, each on a server of its own."""
    experiment = Experiment()
    ours, true, ideal = open_loop(experiment)
    closed = closed_loop(experiment)
    difference = 100 * abs(ours.slow - true.slow)
    return [
        Figure(NAME, "over 1 s, exactly, of all that was due", 100 * true.slow, "%", note=f"{true.requests} requests"),
        Figure(NAME, "the same, had the server no backlog afterwards", 100 * ideal.slow, "%"),
        Figure(NAME, "over 1 s, by our open loop", 100 * ours.slow, "%", note=f"{ours.requests} requests"),
        Figure(NAME, "the difference from what is exact", difference, "points", _POINTS),
        Figure(
            NAME, "over 1 s, by constant_throughput", 100 * closed.slow, "%", note=f"it sent {closed.requests} requests"
        ),
    ]


def open_loop(experiment: Experiment) -> tuple[Told, Told, Told]:
    """What our generator says, what is true, and what would be of a server that works off its backlog at once.

    Raises `BenchmarkError` if a request was left out.
    """
    stage = StagePlan(
        stage=0,
        users=None,
        per_wall_s=experiment.per_s,
        hold_wall_s=experiment.hold_s,
        min_requests=1,
        max_hold_wall_s=experiment.hold_s + 30,
    )
    shape = CompletionShape(
        prompts="load-tests/prompts/fixed-512.json",
        input_tokens=512,
        output_tokens=_TOKENS,
        temperature=0.0,
        timeout_wall_s=30,
    )
    epoch = time.time() - time.monotonic()
    with TemporaryDirectory(prefix="labs-frozen-") as scratch, _frozen(experiment, Path(scratch)) as server:
        plan = LoadPlan(
            run_id=_RUN_ID,
            step="frozen",
            base_url=f"{server.url}/v1",
            model=MODEL,
            profile="rate",
            arrivals="even",
            max_in_flight=4096,
            shapes=[shape],
            stages=[stage],
        )
        result = LocustLoadGenerator().run(plan, workdir=Path(scratch) / "load", environ={}, progress=lambda line: None)
        froze_at, went_on_at = (stamp / 1e9 + epoch for stamp in server.froze_ns())
        ended_at = {sent.asked_as: sent.sent_ns[-1] / 1e9 + epoch for sent in server.log()}
    counted = sorted((record for record in result.requests if record.counted), key=lambda r: r.scheduled_at)
    offered = round(experiment.per_s * experiment.hold_s)
    if len(counted) != offered or any(record.outcome != "ok" for record in counted):
        raise BenchmarkError(f"{len(counted)} of {offered} requests, {sorted({r.outcome for r in counted})}")
    undisturbed = [r.finished_offset_s for r in counted if r.scheduled_at + r.finished_offset_s < froze_at]
    needed_s = statistics.median(undisturbed)
    began_at = result.stages[0].started_at
    due = [began_at + (number + 0.5) / experiment.per_s for number in range(offered)]
    ideal = [latency_s(at, needed_s=needed_s, froze_at=froze_at, went_on_at=went_on_at) for at in due]
    true = [ended_at[name_of(nonce(_RUN_ID, record.request_id))] - at for record, at in zip(counted, due, strict=True)]
    ours = [record.finished_offset_s for record in counted]
    return _told(ours, experiment), _told(true, experiment), _told(ideal, experiment)


def _told(latencies_s: Sequence[float], experiment: Experiment) -> Told:
    return Told(len(latencies_s), statistics.fmean(latency > experiment.over_s for latency in latencies_s))


def latency_s(due: float, *, needed_s: float, froze_at: float, went_on_at: float) -> float:
    """Of a request that is due at `due` and needs `needed_s` of a server that does nothing between the two times."""
    if due >= went_on_at or due + needed_s <= froze_at:
        return needed_s
    return went_on_at - max(froze_at, due) + needed_s


def closed_loop(experiment: Experiment) -> Told:
    """So many users, each at one request per second, as Locust's `constant_throughput` makes them."""
    with TemporaryDirectory(prefix="labs-frozen-") as scratch, _frozen(experiment, Path(scratch)) as server:
        users, out = str(round(experiment.per_s)), Path(scratch) / "users.json"
        script = str(Path(__file__).with_name("frozen_users.py"))
        command = [sys.executable, "-m", "locust", "-f", script, "--headless", "--host", server.url]
        command += ["--users", users, "--spawn-rate", users, "--run-time", f"{round(experiment.hold_s)}s"]
        done = subprocess.run(
            [*command, "--only-summary", "--exit-code-on-error", "0"],
            env={**os.environ, "FROZEN_OUT": str(out), "FROZEN_TOKENS": str(_TOKENS)},
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
            timeout=experiment.hold_s + _WITHIN_S,
        )
        if done.returncode or not out.is_file():
            raise BenchmarkError(f"the closed loop ended with code {done.returncode}: {done.stderr[-400:]}")
        times = json.loads(out.read_text(encoding="ascii"))
    return _told(times, experiment)


class _Server:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log
        self.url = f"http://127.0.0.1:{self._line()}"

    def froze_ns(self) -> tuple[int, int]:
        """By CLOCK_MONOTONIC; waits for the end of the freeze."""
        began, ended = self._line().split()
        return int(began), int(ended)

    def log(self) -> list[Sent]:
        """Ends the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_WITHIN_S)
        return [Sent(**json.loads(line)) for line in self._log.read_text(encoding="ascii").splitlines()]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise BenchmarkError("the server ended before it said what was asked of it")
        return line


@contextmanager
def _frozen(experiment: Experiment, folder: Path) -> Iterator[_Server]:
    log = folder / "sent.ndjson"
    command = [sys.executable, "-m", "benchmarks.rivals_server", "--log", str(log)]
    command += ["--ttft", str(_TTFT_S), "--itl", str(_ITL_S)]
    freeze = ["--freeze-at", str(experiment.freeze_at_s), "--freeze-for", str(experiment.freeze_for_s)]
    process = subprocess.Popen(
        [*command, *freeze], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO_ROOT
    )
    try:
        yield _Server(process, log)
    finally:
        process.kill()
        process.wait()
