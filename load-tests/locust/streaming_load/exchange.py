"""One HTTP request on the wire: what was sent, what came back, and a stamp for every read.

While a response streams, all that happens per read is one `recv`, one `time.monotonic()`, the HTTP parser (C) and one
append, in the event loop itself: to wake a user's greenlet for every event costs more than all of these, and delays
whatever arrived together with it. Events are found and JSON is decoded later, by records.py: decoding on the way would
make the other streams of the process wait. Reads take whatever has arrived: geventhttpclient's own `read(n)` waits
until `n` bytes are there, which adds the next event's delay to this one's, and reading byte by byte lagged by a second
at 128 streams.

Doesn't belong here: what the bytes mean (sse.py, records.py).
"""

from __future__ import annotations

import contextlib
import select
import ssl
import time
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import gevent
import gevent.socket
import gevent.ssl
from gevent.hub import Waiter
from gevent.monkey import get_original
from geventhttpclient.response import HTTPParseError, HTTPResponse

Failure = Literal["timeout", "connection_error", "stream_error", "cut"]

READ_BYTES = 16 * 1024
"""About 60 events: more than one read ever finds, small enough to be allocated without a system call. It is also TLS's
longest record, so that no read leaves a part of one where the event loop, which watches the socket, can't see it."""
_READABLE = 1
"""libev's EV_READ."""
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""There is nothing to read after all, or not a whole record yet."""
CONNECT_TIMEOUT_S = 5.0


class Answer(HTTPResponse):
    """A response as it arrives: feed it bytes, and its body grows by what they carry (chunked or not)."""

    def __init__(self) -> None:
        super().__init__("POST")  # the method matters to the parser only for HEAD and CONNECT
        self.body = bytearray()

    def _on_body(self, buf: bytearray) -> None:
        self.body += buf

    @property
    def status(self) -> int | None:
        """The final status, or None while only interim (1xx) responses or parts of the head have come."""
        return self.status_code if self.headers_complete and self.status_code >= 200 else None

    @property
    def complete(self) -> bool:
        return self.message_complete and self.status is not None

    def header(self, name: str) -> str:
        """A header's value, the last one if it is repeated, or an empty text."""
        value = self.get(name, "")
        return (value[-1] if isinstance(value, list) else value) or ""


@dataclass(slots=True)
class Exchange:
    """One request and its response. Every stamp is `time.monotonic()`."""

    request_id: str
    message: bytes
    """What is sent, head and body."""
    timeout_s: float
    """From connecting, or from sending over a kept connection, to the end of the answer."""
    scheduled: float
    sent: float
    user_index: int | None = None
    """None where nobody waits for the answer."""
    shape: int = 0
    """Which of the plan's shapes it has."""
    streamed: bool = True
    """The answer is a stream of events; else any body."""
    expect: int = 200
    """The status of a success."""
    stage: int | None = None
    """Of an open loop: the stage for which it was scheduled. A closed loop's follows from the times."""
    number: int = 0
    """In its user's sequence, or in its stage's schedule."""
    counted: bool = True
    """It belongs to its stage's sample (schedule.py)."""
    turn: float | None = None
    """When nothing but this process kept it from going out: it was due, and had a place among the `max_in_flight`.
    None: it never got a place."""
    taken_up: float | None = None
    """When this process turned to it. What it took since its turn is the client's own lateness."""
    asked: tuple[int, int] | None = None
    """Tokens in and out that it asks for, where these aren't its shape's."""
    finished: float = 0.0
    answer: Answer = field(default_factory=Answer)
    reads: list[tuple[float, int]] = field(default_factory=list)
    """Stamp, and length of the body by then."""
    failure: Failure | None = None
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.failure is None and self.answer.status == self.expect

    def fail(self, failure: Failure, error: str) -> None:
        self.finished = time.monotonic()
        self.failure, self.error = failure, error


class Connection:
    """A user's own connection: kept between requests while both sides allow it, opened again when not."""

    def __init__(self, base_url: str) -> None:
        """Of `base_url` only scheme, host and port count here; the path is in the messages (messages.py)."""
        url = urlsplit(base_url)
        assert url.hostname
        self._host = url.hostname
        self._tls = gevent.ssl.create_default_context() if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._socket: gevent.socket.socket | ssl.SSLSocket | None = None

    def open(self) -> None:
        """Connect ahead of the first request, so that its TTFT is the engine's. A failure is left to that request."""
        with contextlib.suppress(OSError):
            self._socket = self._connect()

    def perform(self, exchange: Exchange) -> None:
        """Send the exchange's message and read the answer into it. Whatever goes wrong is written there, not raised.

        Raises only `GreenletExit`, after having noted the cut: the load is at its end.
        """
        deadline = gevent.Timeout.start_new(exchange.timeout_s)
        reusable = False
        try:
            kept = self._connect_unless_kept()
            try:
                self._exchange(exchange)
            except OSError:
                if not kept or exchange.reads:
                    raise
                # A server may close a kept connection at any moment, and its close may cross our request: llama.cpp's
                # does so after every stream, unannounced, which failed one request in nine. Neither a
                # completion nor a GET changes anything, so one without a byte of an answer goes out once more
                # (RFC 9112, 9.3.1).
                self.close()
                self._connect_unless_kept()
                exchange.answer = Answer()
                self._exchange(exchange)
            reusable = not exchange.answer.should_close()
        except gevent.Timeout as expired:
            if expired is not deadline:
                raise
            exchange.fail("timeout", f"no end of the answer after {exchange.timeout_s:g} s")
        except (OSError, HTTPParseError) as error:
            began = exchange.answer.status is not None
            exchange.fail("stream_error" if began else "connection_error", f"{type(error).__name__}: {error}")
        except gevent.GreenletExit:
            # Streams run in phase: of answers that end together, the first one to be told of may end the load. The
            # others are complete all the same; only their users have not had their turn.
            if not exchange.answer.complete:
                exchange.fail("cut", "the load ended")
            raise
        finally:
            deadline.close()
            if not reusable:
                self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect_unless_kept(self) -> bool:
        """See to it that there is a connection. Whether it is one that was open already."""
        if self._socket is not None and _has_news(self._socket):
            # An idle connection has nothing to say: the server closed it, or sent what nobody asked for.
            self.close()
        if self._socket is not None:
            return True
        self._socket = self._connect()
        return False

    def _exchange(self, exchange: Exchange) -> None:
        assert self._socket is not None
        exchange.sent = time.monotonic()
        self._socket.sendall(exchange.message)
        self._receive(exchange)

    def _connect(self) -> gevent.socket.socket | ssl.SSLSocket:
        connected = gevent.socket.create_connection((self._host, self._port), timeout=CONNECT_TIMEOUT_S)
        try:
            if self._tls:
                connected = self._tls.wrap_socket(connected, server_hostname=self._host)
            connected.settimeout(None)  # from here on the request's own deadline counts
            connected.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        except BaseException:
            connected.close()
            raise
        return connected

    def _receive(self, exchange: Exchange) -> None:
        """Take in the answer as it arrives, until it is complete. The greenlet sleeps meanwhile."""
        assert self._socket is not None
        recv, monotonic = self._socket.recv, time.monotonic
        answer, reads = exchange.answer, exchange.reads
        loop = gevent.get_hub().loop
        over: Waiter[None] = Waiter()
        broken: list[Exception] = []

        def take() -> None:
            """What has arrived. In the event loop's own greenlet: it must not block, and raises to nobody."""
            try:
                data = recv(READ_BYTES)
                stamp = monotonic()
                if data:
                    answer.feed(data)
                else:
                    self._closed_by_server(answer)
                reads.append((stamp, len(answer.body)))
                exchange.finished = stamp
                if not (answer.message_complete and answer.complete):
                    return
            except _LATER:
                return
            except Exception as error:  # noqa: BLE001 - an error in the event loop reaches nobody; raised again below
                broken.append(error)
            watcher.stop()
            # The user goes on, and sends its next request, when everything that arrived by now has got its stamp.
            loop.run_callback(over.switch, None)

        self._socket.settimeout(0.0)
        watcher = loop.io(self._socket.fileno(), _READABLE)
        try:
            watcher.start(take)
            over.get()
        except gevent.GreenletExit:
            take()  # what had arrived by the end of the load, and nobody had read
            raise
        finally:
            watcher.stop()
            watcher.close()
            self._socket.settimeout(None)
        if broken:
            raise broken[0]

    @staticmethod
    def _closed_by_server(answer: Answer) -> None:
        """A body without a length ends with the connection; any other has been broken off."""
        with contextlib.suppress(HTTPParseError):
            answer.feed(b"")
        if not answer.complete:
            raise ConnectionResetError(f"the server closed the connection after {len(answer.body)} bytes of the body")


def _has_news(connected: gevent.socket.socket | ssl.SSLSocket) -> bool:
    """Whether a read would not block. gevent's own select() would let other users run first, so it isn't used."""
    poll = get_original("select", "poll")()
    poll.register(connected.fileno(), select.POLLIN)
    return bool(poll.poll(0))
