"""An open loop's requests, each sent at its scheduled time whatever became of the earlier ones.

Belongs here: one process's part of the schedule, its connections, and what is left open when the load ends.
Doesn't belong here: the schedule itself (schedule.py), one request on the wire (exchange.py), Locust.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, count, islice

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.queue import Empty, Queue

from streaming_load.exchange import Connection, Exchange
from streaming_load.messages import Messages
from streaming_load.plan import Plan, Stage
from streaming_load.recorder import Recorder
from streaming_load.schedule import offsets, sample

SPARE_CONNECTIONS = 2
"""Open and idle ones of a rate, so that as a rule a request finds one and doesn't have to connect first."""
ALERT_S = 0.001
"""Before a request is due. The event loop's timers are up to 2 ms late (0.7 ms at the median), so this last bit is
waited for turn by turn: 0.003 ms, for 0.2 ms of CPU time per request."""
AHEAD_REQUESTS, AHEAD_BYTES = 64, 8_000_000
"""As many are rendered before it is their turn, so that those which are due together go out together. A prompt of
100,000 tokens takes a millisecond."""
AHEAD_S = 0.01
"""Nothing is rendered ahead within so many seconds before the next request is due."""


class OpenLoop:
    """One process's part of an open loop: of `parts` processes, the requests whose number is `part` modulo `parts`.

    A request that is due while `max_in_flight` are open waits for its turn and is then sent late. None is left out.
    """

    def __init__(
        self,
        plan: Plan,
        messages: Messages,
        recorder: Recorder,
        *,
        part: int,
        parts: int,
        on_finished: Callable[[Exchange], None],
        on_broken: Callable[[gevent.Greenlet], None],
    ) -> None:
        """`on_finished` sees each request that has ended; `on_broken` the greenlet of one that this code failed."""
        assert plan.max_in_flight is not None
        self._plan, self._messages, self._recorder = plan, messages, recorder
        self._part, self._parts = part, parts
        self._on_finished, self._on_broken = on_finished, on_broken
        # At least one: a part that may send nothing would leave out its share of the schedule.
        in_flight = max(len(range(part, plan.max_in_flight, parts)), 1)
        self._slots: Queue[float] = Queue(items=[0.0] * in_flight)
        """The free places, each with the `time.monotonic()` since when it is free."""
        burst = plan.profile == "burst"
        self._connections = _Connections(
            plan.base_url, ahead=in_flight if burst else SPARE_CONNECTIONS, spare=0 if burst else SPARE_CONNECTIONS
        )
        self._begun: list[tuple[Stage, float]] = []
        self._news = Event()
        self._schedule = _Ahead(iter(()))
        self._next: Exchange | None = None
        """Taken from the schedule, and not sent yet."""
        self._requests = Group()
        self._open: dict[str, Exchange] = {}
        """By request id: those that are sent, and those whose greenlet hasn't had its first turn."""

    def prepare(self) -> None:
        """Open connections ahead of the first request."""
        self._connections.prepare()

    def begin(self, stage: int, started_at: float) -> None:
        """The `stage`-th stage begins at `started_at`, by `time.monotonic()`; the one before it ends then."""
        self._begun.append((self._plan.stages[stage], started_at))
        self._news.set()

    def run(self) -> None:
        """Send the stages' requests as they begin. Ends only when it is killed."""
        for position in count():
            self._wait_for_stage(position)
            self._schedule = _Ahead(self._scheduled(*self._begun[position]))
            if self._plan.profile == "burst":
                # They are due at once, and none goes out before the last is ready.
                self._schedule.render(all_of_them=True)
            for exchange in self._schedule:
                self._next = exchange
                if not self._wait_until_due(exchange.scheduled, position):
                    break
                # A place is waited for because of the server; what comes after it was free is this process's doing.
                exchange.turn = max(exchange.scheduled, self._slots.get())
                self._recorder.wait_for_room()
                self._next = None
                self._open[exchange.request_id] = exchange
                self._requests.spawn(self._send, exchange).link_exception(self._on_broken)
                gevent.sleep(0)  # it goes out before the next one is rendered

    def close(self) -> None:
        """Cut what is open. What was due and had to wait is recorded too: it is part of the load."""
        self._requests.kill()
        now = time.monotonic()
        waiting = [self._next] if self._next is not None else []
        # A greenlet that is killed before its first turn never runs, so its request is still among the open ones.
        for exchange in chain(self._open.values(), waiting, self._schedule):
            if exchange.scheduled > now:
                break
            exchange.sent = exchange.taken_up = now
            if exchange.turn is None:
                exchange.turn = self._turn_without_waiting(exchange)
            exchange.fail("cut", "the load ended before it was sent")
            self._recorder.add(exchange)
        self._connections.close()

    def _turn_without_waiting(self, exchange: Exchange) -> float | None:
        """When an unsent request could have gone out, if there is a place for it at all."""
        try:
            return max(exchange.scheduled, self._slots.get_nowait())
        except Empty:
            return None

    def _scheduled(self, stage: Stage, started_at: float) -> Iterator[Exchange]:
        """This part's requests of a stage, ready to be sent when they are due."""
        counting = sample(self._plan, stage).requests
        for number, due in islice(enumerate(offsets(self._plan, stage)), self._part, None, self._parts):
            yield self._messages.exchange(
                f"{self._plan.step}-s{stage.stage}-{number}",
                number,
                scheduled=started_at + due,
                user_index=number if self._plan.profile == "burst" else None,
                stage=stage.stage,
                number=number,
                counted=number < counting,
            )

    def _wait_for_stage(self, position: int) -> None:
        while len(self._begun) <= position:
            self._wait(None)

    def _wait_until_due(self, due: float, position: int) -> bool:
        """Wait until `due`. False if that is not before the next stage's start."""
        while True:
            if len(self._begun) > position + 1 and due >= self._begun[position + 1][1]:
                return False
            left = due - time.monotonic()
            if left <= 0:
                return True
            if left > AHEAD_S and self._schedule.render():
                gevent.sleep(0)  # the streams of this process go on meanwhile
            elif left > ALERT_S:
                self._wait(left - ALERT_S)
            else:
                os.sched_yield()  # to a server that waits for this core
                gevent.sleep(0)  # to the other requests of this process

    def _wait(self, seconds: float | None) -> None:
        self._news.clear()
        self._news.wait(seconds)

    def _send(self, exchange: Exchange) -> None:
        connection = self._connections.take()
        exchange.sent = exchange.taken_up = time.monotonic()
        try:
            connection.perform(exchange)
        finally:
            del self._open[exchange.request_id]
            self._recorder.add(exchange)
            self._connections.give(connection)
            self._slots.put(time.monotonic())
        self._on_finished(exchange)


class _Ahead:
    """A stage's requests in the order in which they are due, some of them rendered before it is their turn."""

    def __init__(self, schedule: Iterator[Exchange]) -> None:
        self._schedule = schedule
        self._ready: deque[Exchange] = deque()
        self._bytes = 0

    def __iter__(self) -> Iterator[Exchange]:
        return self

    def __next__(self) -> Exchange:
        if not self._ready:
            return next(self._schedule)
        exchange = self._ready.popleft()
        self._bytes -= len(exchange.message)
        return exchange

    def render(self, *, all_of_them: bool = False) -> bool:
        """Render one more, unless enough are ready or none is left. Whether it did."""
        if not all_of_them and (len(self._ready) >= AHEAD_REQUESTS or self._bytes >= AHEAD_BYTES):
            return False
        before = len(self._ready)
        for exchange in islice(self._schedule, None if all_of_them else 1):
            self._ready.append(exchange)
            self._bytes += len(exchange.message)
        return len(self._ready) > before


class _Connections:
    """Open connections that nobody uses at the moment, the last one used on top."""

    def __init__(self, base_url: str, *, ahead: int, spare: int) -> None:
        self._base_url, self._ahead, self._spare = base_url, ahead, spare
        self._idle: list[Connection] = []
        self._opening = Group()

    def prepare(self) -> None:
        """Open as many as the load begins with, and wait for them."""
        for _ in range(self._ahead):
            self._opening.spawn(self._open_one)
        self._opening.join()

    def take(self) -> Connection:
        """An idle connection, or one that connects with its first request."""
        taken = self._idle.pop() if self._idle else Connection(self._base_url)
        if len(self._idle) + len(self._opening) < self._spare:
            self._opening.spawn(self._open_one)
        return taken

    def give(self, connection: Connection) -> None:
        self._idle.append(connection)

    def close(self) -> None:
        self._opening.kill()
        for connection in self._idle:
            connection.close()

    def _open_one(self) -> None:
        connection = Connection(self._base_url)
        connection.open()
        self._idle.append(connection)
