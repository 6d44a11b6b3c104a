"""Our load generator beside others on one stamped server: how wrong their times are, and what an event costs them.

Everything in one session on the same machine, by turns: at 1, 32, 128 and 256 streams each tool makes the same load,
of 256 tokens with 0.2 s to the first and 20 ms between them. All streams of the server advance in phase, which is the
worst case: 256 events come at once, and 20 ms later again. Nothing is pinned to a core; server and client share two.

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
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
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
"""Times the bare client's, per event."""
_COMPARED_FROM = 32
"""Streams: of a single one, two requests decide nothing, and its 50 events per second cost less than what Locust does
anyway."""
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
    def events_per_s(self) -> float:
        """While all streams are under way."""
        return self.level.streams / self.pace_s

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

    def stop(self, whole_s: float) -> None:
        """`whole_s` is what all of them took by the kernel's account, now that they have ended."""
        self._over.set()
        self._thread.join()
        self._samples.append((time.monotonic_ns(), max(whole_s, sum(self._spent.values()))))

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
        # This thread alone: looking for processes takes milliseconds, not to be taken from those that are measured.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            with contextlib.suppress(psutil.Error):
                for process in [self._root, *self._root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        self._spent[process.pid, process.create_time()] = times.user + times.system
            self._samples.append((time.monotonic_ns(), sum(self._spent.values())))
            if self._over.wait(_SAMPLE_S):
                return


def measure(*, quick: bool = False) -> list[Figure]:
    """Every tool at every level, by turns.

    Raises `BenchmarkError` when ours fails, or the bare client; another is left out with a note.
    """
    tools, notes = _tools()
    levels = _LEVELS if not quick else [Level(4, waves=1, tokens=32, ttft_s=0.2, itl_s=0.02)]
    runs: list[Run] = []
    for level in levels:
        runs += _by_turns(tools, level, notes)
    if not quick:
        before = _LEVELS[-1]
        for level in _FASTER:
            tools = [tool for tool in tools if any(_held(run, tool, before) for run in runs)]
            runs += _by_turns(tools, level, notes)
            before = level
    return figures(runs, notes)


def _held(run: Run, tool: Tool, level: Level) -> bool:
    return run.tool == tool.name and run.level == level and run.sustained


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
    with TemporaryDirectory(prefix="labs-rivals-") as scratch, served(level, Path(scratch) / "sent.ndjson") as server:
        folder = Path(scratch) / "tool"
        folder.mkdir()
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        command = tool.command(level, url=url, folder=folder)
        with (Path(scratch) / "output.txt").open("w+b") as output:
            before_s = _ended_children_s()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **tool.environ},
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
                meter.stop(_ended_children_s() - before_s)
            output.seek(0)
            words = output.read()[-600:].decode(errors="replace")
        _end(server)
        sent = [Sent(**json.loads(line)) for line in (Path(scratch) / "sent.ndjson").read_text().splitlines()]
        whole = [answer for answer in sent if len(answer.sent_ns) == level.tokens]
        if code != 0 or not whole:
            raise BenchmarkError(f"{tool.name} ended with code {code} and {len(whole)} whole answers: {words}")
        try:
            seen = tool.seen(folder, whole)
        except (OSError, ValueError, KeyError) as error:
            raise BenchmarkError(f"{tool.name}'s report can't be read: {error!r}") from error
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
        )


def _ended_children_s() -> float:
    """CPU seconds of the children that were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def served(level: Level, log: Path) -> Iterator[subprocess.Popen[str]]:
    """The server, which says its port in its first line; at the end its log is written."""
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


def figures(runs: Sequence[Run], notes: Mapping[str, str]) -> list[Figure]:
    """Every tool at every number of streams; then ours against the best of the others, with the bounds."""
    found = [Figure(NAME, name, None, "", note=note) for name, note in notes.items()]
    tools = list(dict.fromkeys(run.tool for run in runs))
    usual = [run for run in runs if run.level not in _FASTER]
    for streams in sorted({run.level.streams for run in usual}):
        of_tools = {run.tool: run for run in usual if run.level.streams == streams}
        ttft_p99 = {tool: 1e3 * quantile(run.ttft_errors_s, 0.99) for tool, run in of_tools.items()}
        per_event = {tool: 1e6 * run.cpu_s / run.events for tool, run in of_tools.items()}
        for tool, run in of_tools.items():
            mean_only = "" if run.seen[0].gaps_s else "of each request's mean; it keeps no more"
            bound = TTFT_AT_MOST_MS.get(streams) if tool == Ours.name else None
            at = f"{tool} at {streams}"
            few = f"{len(run.seen)} requests" if bound else ""
            itl_p50, itl_p99 = (1e3 * quantile(run.itl_errors_s, q) for q in (0.5, 0.99))
            found += [
                Figure(NAME, f"{at}: TTFT error, p50", 1e3 * quantile(run.ttft_errors_s, 0.5), "ms"),
                Figure(NAME, f"{at}: TTFT error, p99", ttft_p99[tool], "ms", bound, few),
                Figure(NAME, f"{at}: ITL error, p50", itl_p50, "ms"),
                Figure(NAME, f"{at}: ITL error, p99", itl_p99, "ms", note=mean_only),
                Figure(NAME, f"{at}: CPU per event", per_event[tool], "µs"),
                Figure(NAME, f"{at}: CPU per 1,000 requests", per_event[tool] * run.level.tokens / 1e3, "s"),
            ]
        found += _against_the_others(streams, ttft_p99, per_event)
    for tool in tools:
        rates = [run.events_per_s for run in runs if run.tool == tool and run.sustained]
        found.append(Figure(NAME, f"{tool}: highest rate sustained", max(rates, default=None), "events/s"))
    return found


def _against_the_others(streams: int, ttft_p99: Mapping[str, float], per_event: Mapping[str, float]) -> list[Figure]:
    ours, others = ttft_p99[Ours.name], {tool: value for tool, value in ttft_p99.items() if tool != Ours.name}
    best = min(others, key=lambda tool: others[tool])
    worst_bound, cpu_bound = (1.0, CPU_AT_MOST) if streams >= _COMPARED_FROM else (None, None)
    return [
        Figure(
            NAME,
            f"at {streams}: our TTFT error p99 over the best other's",
            ours / others[best],
            "times",
            worst_bound,
            best,
        ),
        Figure(
            NAME,
            f"at {streams}: our CPU per event over the bare client's",
            per_event[Ours.name] / per_event[Bare.name],
            "times",
            cpu_bound,
        ),
    ]
