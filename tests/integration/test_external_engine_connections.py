"""Servers that are not ours end connections as they like; the client must neither fail for it nor hide a failure."""

from __future__ import annotations

import time

from streaming_load.exchange import Connection, Exchange
from streaming_load.records import summarise

from tests.support.sse_server import Received, Reply, SseServer, completion

BODY = b'{"prompt": [1, 2, 3], "max_tokens": 4}'
POST = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def perform(connection: Connection) -> tuple[Exchange, str]:
    now = time.monotonic()
    exchange = Exchange(request_id="r", message=POST, timeout_s=30, scheduled=now, sent=now)
    connection.perform(exchange)
    return exchange, summarise(exchange, worker="w", epoch=0.0, clock="")["outcome"]


def hang_up_on(numbers: set[int]) -> SseServer:
    """A server that reads these requests and closes their connection without a byte of an answer."""

    async def behave(request: Received, reply: Reply) -> None:
        if request.number in numbers:
            reply.keep_alive = False
        else:
            await completion()(request, reply)

    return SseServer(behave)


def test_a_request_that_crosses_the_close_of_a_kept_connection_is_sent_again_and_timed_from_its_schedule() -> None:
    with hang_up_on({1}) as server:
        connection = Connection(server.base_url)
        assert perform(connection)[1] == "ok"
        exchange, outcome = perform(connection)
        assert (outcome, len(server.received), server.connections) == ("ok", 3, 2)
        answered = server.received[2]
    # The time that the lost attempt took is in the schedule lag and in every latency, not dropped.
    assert exchange.scheduled < server.received[1].at_ns / 1e9 < exchange.sent < answered.at_ns / 1e9


def test_a_request_that_is_dropped_on_a_new_connection_too_has_failed() -> None:
    with hang_up_on({1, 2}) as server:
        connection = Connection(server.base_url)
        assert perform(connection)[1] == "ok"
        assert perform(connection)[1] == "connection_error"
        assert len(server.received) == 3  # once more, and no third time


def test_a_stream_that_breaks_off_on_a_kept_connection_is_never_repeated() -> None:
    async def behave(request: Received, reply: Reply) -> None:
        if request.number == 0:
            await completion()(request, reply)
        else:
            await reply.head()
            reply.keep_alive = False

    with SseServer(behave) as server:
        connection = Connection(server.base_url)
        assert perform(connection)[1] == "ok"
        assert perform(connection)[1] == "stream_error"
        assert len(server.received) == 2
