"""Finished requests and what the process tells of itself, written to files while the streams go on undisturbed.

Decoding an answer of 256 events takes one to two milliseconds, during which no stream of the process is read. So
finished exchanges wait in a queue, and one greenlet takes them in small slices whenever the event loop is idle.

Doesn't belong here: what a record says (records.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.queue import Queue

from streaming_load.exchange import Exchange
from streaming_load.records import host_clock, summarise

REQUESTS_SUFFIX = ".requests.ndjson"
PROCESS_SUFFIX = ".process.ndjson"

_MOST_WAITING = 256
"""Exchanges in the queue at which users wait before they send more: bounds memory to some 30 MB."""
_SAMPLE_S = 0.5
PROBE_S = 0.04
"""Between two looks at the event loop. A look costs 40 µs, and up to three times that where other processes want the
core: 25 a second are 0.1 to 0.4 % of a core. A shorter delay may fall between two looks, and is seen as often as chance
has it."""


class Recorder:
    """Writes one line per finished request to `<worker>.requests.ndjson`."""

    def __init__(self, folder: Path, *, worker: str, epoch: float, on_record: Callable[[dict[str, Any]], None]) -> None:
        """`on_record` sees every record after it was written."""
        self._file = (folder / f"{worker}{REQUESTS_SUFFIX}").open("x", encoding="utf-8")
        self._worker, self._epoch, self._on_record = worker, epoch, on_record
        self._clock = host_clock()
        self._waiting: Queue[Exchange | None] = Queue()
        self._closing = False
        self._greenlet = gevent.spawn(self._run)

    def add(self, exchange: Exchange) -> None:
        """Hand over a finished exchange. Never blocks, so that a user that is being killed can call it."""
        self._waiting.put(exchange)

    def wait_for_room(self) -> None:
        """Block a user while too many exchanges wait; what it sends next is late, and its record says so."""
        while self._waiting.qsize() >= _MOST_WAITING:
            gevent.sleep(0.01)

    def close(self) -> None:
        """Write what still waits, and close the file."""
        self._closing = True
        self._waiting.put(None)
        self._greenlet.join()
        self._file.close()
        if self._greenlet.exception is not None:
            raise self._greenlet.exception

    def _run(self) -> None:
        while (exchange := self._waiting.get()) is not None:
            self._breathe()
            record = summarise(
                exchange,
                worker=self._worker,
                epoch=self._epoch,
                clock=self._clock,
                breathe=self._breathe,
            )
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
            self._on_record(record)

    def _breathe(self) -> None:
        """Let the streams of this process go first, and whatever else waits for this core.

        A server on this machine is woken on the core that sent to it, and would otherwise wait there until the kernel's
        next tick while answers are decoded: 4 ms in the TTFT of every request that was sent together with others.
        """
        if not self._closing:
            gevent.idle()
            os.sched_yield()


class ProcessMeter:
    """Writes what the process can tell of itself to `<worker>.process.ndjson`, twice a second and at the end.

    That is its CPU time so far, and how late its event loop was: a greenlet sleeps for `PROBE_S` again and again, and
    notes by how much it woke late. As late is the reading of an event that arrives meanwhile, whatever the reason: a
    greenlet that doesn't let go, a core that another process has, a process that was stopped.

    A last line with `ended` says that the process wrote all that it had: a file without it is incomplete.
    """

    def __init__(self, folder: Path, *, worker: str, epoch: float) -> None:
        self._file = (folder / f"{worker}{PROCESS_SUFFIX}").open("x", encoding="utf-8")
        self._epoch = epoch
        self._late: list[float] = []
        self._begun = time.monotonic()
        self._write(ended=False)
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        self._greenlet.kill()
        self._write(ended=True)
        self._file.close()

    def _run(self) -> None:
        woken = time.monotonic()
        while True:
            gevent.sleep(PROBE_S)
            now = time.monotonic()
            self._late.append(round(max(now - woken - PROBE_S, 0.0), 5))
            if now - self._begun >= _SAMPLE_S:
                self._write(ended=False)
                now = time.monotonic()
            woken = now

    def _write(self, *, ended: bool) -> None:
        """One line: the probes since `probed_from`, each of which slept for `probe_s` and woke so late."""
        at = time.monotonic()
        sample = {
            "at": at + self._epoch,
            "cpu_s": time.process_time(),
            "probed_from": self._begun + self._epoch,
            "probe_s": PROBE_S,
            "late_s": self._late,
            "ended": ended,
        }
        self._file.write(json.dumps(sample) + "\n")
        self._file.flush()
        self._late, self._begun = [], time.monotonic()
