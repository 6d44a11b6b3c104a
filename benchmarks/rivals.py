"""Our load generator beside others on one stamped server: how wrong their times are, and what an event costs them.

Everything in one session on the same machine, by turns: at 1, 32, 128 and 256 streams each tool makes the same load, of
256 tokens with 0.2 s to the first and 20 ms between them. All streams of the server advance in phase, which is the worst
case: 256 events come at once, and 20 ms later again. Nothing is pinned to a core; server and client share the two.

- TTFT error: |the tool's TTFT - the server's| of a request. ITL error: the same of each gap between two tokens; where a
  tool exports only a request's mean, of the mean, which is a lot easier to hit.
- CPU: of all the tool's processes, from the first request's arrival at the server until two seconds after the last
  event, so that neither start-up nor reports count. Per event that the server sent.
- Sustained: the highest rate of events at which the server still kept its pace, and the tool saw the last event of its
  median request within one gap of when it was sent. Above 256 streams at 20 ms, the gaps become shorter.

Doesn't belong here: the tools (rivals_tools.py), the server (rivals_server.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure, quantile
from benchmarks.rivals_install import AIPERF, GUIDELLM, InstallError, program, tokenizer
from benchmarks.rivals_tools import AIPerf, Bare, GuideLLM, Level, Ours, Seen, Sent, Tool
from lab_pipelines.deployment import REPO_ROOT

NAME = "rivals"
STREAMS = (1, 32, 128, 256)
_LEVELS = tuple(Level(streams, waves=2, tokens=256, ttft_s=0.2, itl_s=0.02) for streams in STREAMS)
_FASTER = tuple(Level(256, waves=2, tokens=256, ttft_s=0.2, itl_s=itl_s) for itl_s in (0.01, 0.005))
"""25,600 and 51,200 events per second, for those who sustained the rate before."""
TTFT_AT_MOST_MS = {32: 5.0, 256: 10.0}
CPU_AT_MOST = 1.2
"""Times the bare client's, per event at 256 streams."""
_TAIL_S = 2.0
_SAMPLE_S = 0.25
_ONE_RUN_S = 120.0
_KEPT_PACE = 1.05


@dataclass(frozen=True)
class Run:
    """One tool at one level."""

    tool: str
    level: Level
    seen: list[Seen]
    events: int
    """Tokens that the server sent, also those of requests that were cut."""
    cpu_s: float
    server_cpu_s: float

    @property
    def ttft_errors_s(self) -> list[float]:
        return [abs(s.ttft_s - s.sent.ttft_s) for s in self.seen]

    @property
    def itl_errors_s(self) -> list[float]:
        return [
            abs(theirs - servers)
            for s in self.seen
            for theirs, servers in (
                zip(s.gaps_s, s.sent.gaps_s, strict=True) if s.gaps_s else [(s.mean_itl_s, s.sent.mean_itl_s)]
            )
        ]

    @property
    def sustained(self) -> bool:
        late = statistics.median(abs(s.last_event_error_s) for s in self.seen)
        return late <= self.level.itl_s and self.pace_s <= _KEPT_PACE * self.level.itl_s

    @property
    def pace_s(self) -> float:
        """The server's mean gap."""
        return statistics.fmean(s.sent.mean_itl_s for s in self.seen)


class CpuMeter:
    """CPU seconds of a process and all its descendants, also of those that have ended, every quarter of a second."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._spent: dict[tuple[int, float], float] = {}
        self._samples: list[tuple[int, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def between(self, start_ns: int, end_ns: int) -> float:
        """By CLOCK_MONOTONIC; evenly spent between two samples."""
        return self._at(end_ns) - self._at(start_ns)

    def _at(self, at_ns: int) -> float:
        before = (at_ns, 0.0)
        for sample in self._samples:
            if sample[0] >= at_ns:
                share = (at_ns - before[0]) / (sample[0] - before[0]) if sample[0] > before[0] else 0.0
                return before[1] + share * (sample[1] - before[1])
            before = sample
        return before[1]

    def _run(self) -> None:
        while True:
            with contextlib.suppress(psutil.Error):
                for process in [self._root, *self._root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        self._spent[process.pid, process.create_time()] = times.user + times.system
            self._samples.append((time.monotonic_ns(), sum(self._spent.values())))
            if self._over.wait(_SAMPLE_S):
                return


def measure(*, repeats: int, quick: bool = False) -> list[Figure]:
    """Every tool at every level, by turns, `repeats` times over. Raises `BenchmarkError` when ours or the bare client fails."""
    tools, notes = _tools()
    levels = [Level(4, waves=1, tokens=32, ttft_s=0.2, itl_s=0.02)] if quick else _LEVELS
    runs: list[Run] = []
    for _ in range(repeats):
        for level in levels:
            runs += _by_turns(tools, level, notes)
    if not quick:
        for level in _FASTER:
            tools = [tool for tool in tools if any(r.tool == tool.name and r.sustained for r in runs[-2 * len(tools) :])]
            runs += _by_turns(tools, level, notes)
    return _figures(runs, notes)


def _tools() -> tuple[list[Tool], dict[str, str]]:
    """Those that are there or could be installed, and of the others why not."""
    tools: list[Tool] = [Ours(), Bare()]
    notes: dict[str, str] = {}
    for kind, requirement in ((AIPerf, AIPERF), (GuideLLM, GUIDELLM)):
        try:
            tools.append(kind(program(requirement), tokenizer()))
        except InstallError as error:
            notes[kind.name] = f"not measured: {error}"
    return tools, notes


def _by_turns(tools: Sequence[Tool], level: Level, notes: dict[str, str]) -> Iterator[Run]:
    for tool in tools:
        print(f"bench: {tool.name}, {level.streams} streams, {level.itl_s * 1000:g} ms …", file=sys.stderr, flush=True)
        try:
            yield run(tool, level)
        except BenchmarkError as error:
            if isinstance(tool, Ours | Bare):
                raise
            notes[tool.name] = f"at {level.streams} streams: {error}"


def run(tool: Tool, level: Level) -> Run:
    """One tool at one level, on a server of its own. Raises `BenchmarkError` with the last words of one that fails."""
    with TemporaryDirectory(prefix="labs-rivals-") as scratch, _served(level, Path(scratch) / "sent.ndjson") as server:
        folder = Path(scratch) / "tool"
        folder.mkdir()
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        command = tool.command(level, url=url, folder=folder)
        with (Path(scratch) / "output.txt").open("w+b") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **_OURS_ALONE, **tool.environ},
                start_new_session=True,
            )
            meter = CpuMeter(process.pid)
            try:
                code = process.wait(_ONE_RUN_S)
            except subprocess.TimeoutExpired:
                code = "none in time"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                meter.stop()
            output.seek(0)
            words = output.read()[-600:].decode(errors="replace")
        server_cpu = psutil.Process(server.pid).cpu_times()
        _end(server)
        sent = [Sent(**json.loads(line)) for line in (Path(scratch) / "sent.ndjson").read_text().splitlines()]
        whole = [answer for answer in sent if len(answer.sent_ns) == level.tokens]
        if code != 0 or not whole:
            raise BenchmarkError(f"{tool.name} ended with code {code} and {len(whole)} whole answers: {words}")
        seen = tool.seen(folder, whole)
        if not seen:
            raise BenchmarkError(f"{tool.name} reported none of its {len(whole)} answers: {words}")
        begin_ns = min(answer.received_ns for answer in whole)
        end_ns = max(answer.sent_ns[-1] for answer in whole) + int(_TAIL_S * 1e9)
        return Run(
            tool=tool.name,
            level=level,
            seen=seen,
            events=sum(len(answer.sent_ns) for answer in sent),
            cpu_s=meter.between(begin_ns, end_ns),
            server_cpu_s=server_cpu.user + server_cpu.system,
        )


_OURS_ALONE = {"PYTHONPATH": os.pathsep.join(map(str, (REPO_ROOT, REPO_ROOT / "load-tests" / "locust")))}


@contextlib.contextmanager
def _served(level: Level, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.rivals_server", "--log", str(log)]
    server = subprocess.Popen(
        [*command, "--ttft", str(level.ttft_s), "--itl", str(level.itl_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPO_ROOT,
    )
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen[str]) -> None:
    """Let the server write its log and end."""
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _figures(runs: Sequence[Run], notes: dict[str, str]) -> list[Figure]:
    found: list[Figure] = []
    levels = sorted({run.level.streams for run in runs})
    tools = list(dict.fromkeys(run.tool for run in runs))
    per_event: dict[tuple[str, int], float] = {}
    worst: dict[tuple[str, int], float] = {}
    for streams in levels:
        for tool in tools:
            mine = [r for r in runs if r.tool == tool and r.level.streams == streams and r.level.itl_s == 0.02]
            if not mine:
                continue
            ttft, itl = [statistics.median(quantile(errors, q) for errors in [r.ttft_errors_s for r in mine]) for q in (0.5, 0.99)], [statistics.median(quantile(r.itl_errors_s, q) for r in mine) for q in (0.5, 0.99)]
            del ttft, itl
    return found


if __name__ == "__main__":
    tools, notes = _tools()
    chosen = {tool.name: tool for tool in tools}
    for streams in map(int, sys.argv[2].split(",")):
        for name in sys.argv[1].split(","):
            waves = int(sys.argv[3]) if len(sys.argv) > 3 else 2
            itl = float(sys.argv[4]) if len(sys.argv) > 4 else 0.02
            began = time.monotonic()
            done = run(chosen[name], Level(streams, waves=waves, tokens=256, ttft_s=0.2, itl_s=itl))
            ttft, itls = done.ttft_errors_s, done.itl_errors_s
            print(f"{name:12} {streams:4} n={len(ttft)} TTFT err p50 {1e3*quantile(ttft, .5):.2f} p99 {1e3*quantile(ttft, .99):.2f} ITL err p50 {1e3*quantile(itls, .5):.2f} p99 {1e3*quantile(itls, .99):.2f} cpu {done.cpu_s:.2f} s = {1e6*done.cpu_s/done.events:.1f} us/event, server {done.server_cpu_s:.2f} s = {1e6*done.server_cpu_s/done.events:.1f}, sustained {done.sustained}, pace {done.pace_s*1e3:.2f} took {time.monotonic()-began:.0f} s", flush=True)
