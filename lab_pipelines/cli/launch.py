"""Dagster's command as a child process: its lines as they come, an interrupt passed on, and why it failed.

Belongs here: starting it, ending with it, reading its log lines and its events.
Doesn't belong here: which lab may run (runs.py), or anything that the run does (assets/).
"""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lab_pipelines.deployment import REPO_ROOT

DEFINITIONS = "lab_pipelines.definitions"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OUR_ERROR = re.compile(r"^(?:lab_pipelines|assets|resources)\.[\w.]+: (?P<message>.+)")
_RECORD = re.compile(
    r"^\d{4}-\d\d-\d\d (?P<time>\d\d:\d\d:\d\d) \+0000 - dagster - (?P<level>[A-Z]+) - \S+ - (?P<run>[0-9a-f-]{36}) - "
    r"(?:\d+ - )?(?:(?P<step>\w+) - )?(?P<message>.*)$"
)


@dataclass(frozen=True)
class Record:
    """One record of Dagster's console log; the time is UTC, as it prints it."""

    time: str
    level: str
    run_id: str
    step: str
    message: str


@dataclass(frozen=True)
class Ended:
    """How the command ended. `run_id` is None where it ended before a run began."""

    code: int
    interrupted: bool
    run_id: str | None


def read_record(line: str) -> Record | None:
    """The record that `line` begins; None for any other line, e.g. of a stack trace."""
    found = _RECORD.match(line)
    if found is None:
        return None
    return Record(found["time"], found["level"], found["run"], found["step"] or "", found["message"])


def materialize_command(lab: str, definitions: str = DEFINITIONS, *, select: str = "*") -> list[str]:
    """What a user would type into a shell to run one lab."""
    selection = ["asset", "materialize", "--select", select, "--partition", lab, "-m", definitions]
    return [sys.executable, "-m", "dagster", *selection]


def supervise(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    log: Path,
    show: Callable[[Record], None],
    on_interrupt: Callable[[int], None],
    cwd: Path = REPO_ROOT,
) -> Ended:
    """Run `command` to its end. All that it prints goes to `log`, its progress to `show`.

    SIGINT, SIGTERM and SIGHUP are passed on once, as SIGINT: Dagster then runs the assets' `finally`, which releases
    the stack. `on_interrupt` is told of each, counted from 1, in a thread of its own. The child has a session of its
    own, so that a terminal's Ctrl-C reaches it through us alone: a second SIGINT would break off the release.
    """
    child: subprocess.Popen[str] | None = None
    count = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1 and child is not None:
            child.send_signal(signal.SIGINT)
        tell(count)

    log.parent.mkdir(parents=True, exist_ok=True)
    run_id, shown = None, True
    with _teller(on_interrupt) as tell, _handled(pass_on), log.open("w", encoding="utf-8") as kept:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd=cwd,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        if count:  # it came before there was a child
            child.send_signal(signal.SIGINT)
        assert child.stdout is not None
        for line in child.stdout:
            kept.write(line)
            kept.flush()
            record = read_record(line.rstrip("\n"))
            if record is None:
                continue
            run_id = run_id or record.run_id
            if shown and record.level in ("INFO", "WARNING"):
                try:
                    show(record)
                except OSError:  # the terminal is gone; the run goes on, and its log is kept
                    shown = False
        return Ended(code=child.wait(), interrupted=count > 0, run_id=run_id)


@contextmanager
def _teller(on_interrupt: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """What a signal's handler may call. The handler itself must print nothing: it may have come amid a line that is
    being printed, and Python refuses to write to a stream from within a write to it."""
    counts = queue.SimpleQueue[int | None]()

    def tell() -> None:
        for count in iter(counts.get, None):
            with suppress(OSError):  # the terminal is gone; the run is released all the same
                on_interrupt(count)

    thread = threading.Thread(target=tell, name="interrupts", daemon=True)
    thread.start()
    try:
        yield counts.put
    finally:
        counts.put(None)
        thread.join()


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    former = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


def reasons(ended: Ended, *, home: Path, log: Path) -> list[str]:
    """Why a run failed, in the words of the assets' failures and checks; empty where nothing says it."""
    found = _reasons_of_run(home, ended.run_id) if ended.run_id else []
    return found or _reasons_in_log(log)


def _reasons_of_run(home: Path, run_id: str) -> list[str]:
    from dagster import DagsterEventType, DagsterInstance

    kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.ASSET_CHECK_EVALUATION}
    found = []
    with DagsterInstance.from_config(str(home)) as instance:
        for entry in instance.all_logs(run_id, of_type=kinds):
            event = entry.dagster_event
            if event is None:
                continue
            if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
                check = event.asset_check_evaluation_data
                if not check.passed and check.blocking:
                    found.append(f"{check.asset_key.to_user_string()}: {check.check_name}: {check.description}")
                continue
            data = event.step_failure_data
            told = data.user_failure_data
            if told is not None:
                found.append(str(told.description))
            elif data.error is not None and data.error.cls_name != "DagsterAssetCheckFailedError":
                error = data.error
                while error.cause is not None:
                    error = error.cause
                message = error.message.strip()
                ours = _OUR_ERROR.match(message)
                found.append(message[ours.start("message") :] if ours else f"{event.step_key}: {message}")
    return found


def _reasons_in_log(log: Path) -> list[str]:
    """The last message of an error of ours in what the command printed, for one that ended before a run began."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    ours = [found["message"] for line in lines if (found := _OUR_ERROR.match(line))]
    return ours[-1:]
