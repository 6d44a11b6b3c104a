"""One request on a real connection: every way in which an answer can come, stop coming, or not come."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from streaming_load.exchange import Connection, Exchange
from streaming_load.messages import Messages
from streaming_load.plan import CompletionShape, HttpShape
from streaming_load.records import host_clock, summarise
from streaming_load.sse import events

from tests.support.load_plans import gets
from tests.support.sse_server import Received, Reply, SseServer, completion, event, text, usage

BODY = b'{"prompt": [1, 2, 3], "max_tokens": 4}'
POST = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def request(*, timeout_s: float = 30.0, **more: Any) -> Exchange:
    now = time.monotonic()
    return Exchange(
        **{"request_id": "r", "message": POST, "timeout_s": timeout_s, "scheduled": now, "sent": now, **more}
    )


def perform(connection: Connection, *, timeout_s: float = 30.0, **more: Any) -> Exchange:
    exchange = request(timeout_s=timeout_s, **more)
    connection.perform(exchange)
    return exchange


def outcome(exchange: Exchange) -> str:
    record = summarise(exchange, worker="w", epoch=0.0, clock=host_clock())
    return record["outcome"]


def chunks(exchange: Exchange) -> list[bytes]:
    return [e.data for e in events(exchange.answer.body, exchange.reads, complete=exchange.answer.complete)]


def test_a_stamped_stream_is_read_whole_and_never_before_it_was_sent() -> None:
    with SseServer(completion(itl_s=0.005)) as server:
        exchange = perform(Connection(server.base_url))
        record = summarise(exchange, worker="w", epoch=0.0, clock=host_clock())

    assert (record["outcome"], record["input_tokens"], record["output_tokens"]) == ("ok", 3, 4)
    assert record["finish_reason"] == "length"
    found = [e for e in events(exchange.answer.body, exchange.reads, complete=True) if e.sent_ns]
    assert len(found) == len(record["event_offsets_s"]) == 4
    assert all(e.sent_ns is not None and e.arrived * 1e9 >= e.sent_ns for e in found)
    assert record["server_ttft_s"] > 0
    assert record["receive_lag_p99_s"] >= 0
    assert record["event_offsets_s"][0] >= record["server_ttft_s"]


def test_what_has_arrived_is_taken_in_at_once_and_not_when_the_next_piece_comes() -> None:
    """The server sends its second event only after it has seen that the client holds the first."""
    exchange = request()
    released: list[float] = []

    async def behave(request: Received, reply: Reply) -> None:
        await reply.head()
        await reply.event(text(" a"))
        while not (exchange.reads and exchange.reads[-1][1]):
            await asyncio.sleep(0.005)
        released.append(time.monotonic())
        await reply.event(text(" b", finish_reason="length"))
        await reply.end()

    with SseServer(behave) as server:
        Connection(server.base_url).perform(exchange)
    first, second = list(events(exchange.answer.body, exchange.reads, complete=True))
    assert first.arrived < released[0] <= second.arrived


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_pieces_that_end_in_the_middle_of_events_chunks_and_heads_change_nothing(piece: int) -> None:
    async def behave(request: Received, reply: Reply) -> None:
        whole = event(text(" é")) + event(text(" b", finish_reason="length")) + event(usage(request, 2))
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        for at in range(0, len(whole), 50):  # chunks that end in the middle of events
            answer += b"%x\r\n%b\r\n" % (len(whole[at : at + 50]), whole[at : at + 50])
        answer += b"0\r\n\r\n"
        for at in range(0, len(answer), piece):  # writes that end in the middle of chunks
            await reply.raw(answer[at : at + piece])
            await asyncio.sleep(0)

    with SseServer(behave) as server:
        exchange = perform(Connection(server.base_url))
    assert [b'" \\u00e9"' in chunk or b'" b"' in chunk for chunk in chunks(exchange)] == [True, True, False]
    assert outcome(exchange) == "ok"


def test_several_tokens_in_one_event_are_one_arrival_and_usage_still_counts_tokens() -> None:
    with SseServer(completion(tokens_per_event=3)) as server:
        exchange = perform(Connection(server.base_url))
    record = summarise(exchange, worker="w", epoch=0.0, clock="")
    assert (len(record["event_offsets_s"]), record["output_tokens"]) == (2, 4)


def test_a_users_requests_share_one_connection() -> None:
    with SseServer(completion()) as server:
        connection = Connection(server.base_url)
        connection.open()
        assert [outcome(perform(connection)) for _ in range(3)] == ["ok"] * 3
        assert (server.connections, len(server.received)) == (1, 3)


def test_a_server_that_closes_each_connection_gets_a_new_one_each_time() -> None:
    async def behave(request: Received, reply: Reply) -> None:
        reply.keep_alive = False
        await completion()(request, reply)

    with SseServer(behave) as server:
        connection = Connection(server.base_url)
        assert [outcome(perform(connection)) for _ in range(3)] == ["ok"] * 3
        assert server.connections == 3


def test_a_connection_that_the_server_closed_while_idle_is_replaced_before_sending() -> None:
    closed: list[Reply] = []

    async def behave(request: Received, reply: Reply) -> None:
        await completion()(request, reply)
        reply.keep_alive = False  # closes although the answer promised nothing of the kind
        closed.append(reply)

    with SseServer(behave) as server:
        connection = Connection(server.base_url)
        assert outcome(perform(connection)) == "ok"
        assert connection._socket is not None
        connection._socket.recv(1)  # returns when the server's close has arrived
        assert outcome(perform(connection)) == "ok"
        assert len(server.received) == 2  # no request was sent twice


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "until the connection closes"])
def test_a_body_without_chunks_is_read_to_its_end(length: bool) -> None:
    async def behave(request: Received, reply: Reply) -> None:
        body = event(text(" a", finish_reason="length")) + event("[DONE]")
        reply.chunked = reply.keep_alive = False
        headers = {"content_length": str(len(body))} if length else {}
        await reply.head(200, content_type="text/event-stream", **headers)
        await reply.body(body)

    with SseServer(behave) as server:
        assert outcome(perform(Connection(server.base_url))) == "ok"


def test_a_refused_connection_is_a_connection_error() -> None:
    with socket.socket() as taken:  # bound but not listening: nobody else can answer on this port
        taken.bind(("127.0.0.1", 0))
        connection = Connection(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        connection.open()
        exchange = perform(connection)
    assert outcome(exchange) == "connection_error"
    assert "refused" in (exchange.error or "")


def test_a_server_that_hangs_up_without_a_word_is_a_connection_error() -> None:
    async def behave(request: Received, reply: Reply) -> None:
        reply.keep_alive = False

    with SseServer(behave) as server:
        exchange = perform(Connection(server.base_url))
    assert outcome(exchange) == "connection_error"
    assert "closed the connection" in (exchange.error or "")


def test_an_answer_that_is_not_http_is_a_connection_error() -> None:
    async def behave(request: Received, reply: Reply) -> None:
        await reply.raw(b"SSH-2.0-OpenSSH_9.2\r\n")

    with SseServer(behave) as server:
        assert outcome(perform(Connection(server.base_url))) == "connection_error"


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_stream_that_breaks_off_is_a_stream_error_and_the_next_request_connects_anew(reset: bool) -> None:
    async def behave(request: Received, reply: Reply) -> None:
        if request.number > 0:
            await completion()(request, reply)
            return
        await reply.head()
        await reply.event(text(" a"))
        await asyncio.sleep(0.1)  # a reset overtakes what the client hasn't read
        reply.keep_alive = False
        if reset:
            reply.abort()

    with SseServer(behave) as server:
        connection = Connection(server.base_url)
        broken = perform(connection)
        assert (outcome(broken), len(chunks(broken))) == ("stream_error", 1)
        assert outcome(perform(connection)) == "ok"


def test_a_stream_that_stalls_is_a_timeout_and_its_connection_is_not_used_again() -> None:
    async def behave(request: Received, reply: Reply) -> None:
        if request.number > 0:
            await completion()(request, reply)
            return
        await reply.head()
        await reply.event(text(" a"))
        await asyncio.sleep(60)

    with SseServer(behave) as server:
        connection = Connection(server.base_url)
        began = time.monotonic()
        stalled = perform(connection, timeout_s=0.5)
        assert time.monotonic() - began >= 0.5  # connecting counts, too
        assert (outcome(stalled), len(chunks(stalled))) == ("timeout", 1)
        assert outcome(perform(connection)) == "ok"
        assert server.connections == 2


def test_a_refusal_is_an_http_error_and_keeps_the_connection() -> None:
    async def behave(request: Received, reply: Reply) -> None:
        await reply.refuse(404, b'{"error": {"message": "no such model"}}')

    with SseServer(behave) as server:
        connection = Connection(server.base_url)
        assert [outcome(perform(connection)) for _ in range(2)] == ["http_error"] * 2
        assert server.connections == 1


def test_a_completions_message_is_what_an_openai_server_expects(tmp_path: Path) -> None:
    fixture = tmp_path / "prompts.json"
    fixture.write_text('{"prompts": [[300, 301, 302]]}')
    shape = CompletionShape("completion", 1.0, str(fixture), 3, 4, 0.0, 30.0)
    with SseServer(completion()) as server:
        plan = gets("ramp", shapes=(shape,), base_url=server.base_url, model="m")
        exchange = Messages(plan).exchange("ramp-0-0", 0, scheduled=0.0, user_index=0, number=0)
        Connection(server.base_url).perform(exchange)
        (received,) = server.received
    assert outcome(exchange) == "ok"
    assert (received.path, received.body["model"], len(received.body["prompt"])) == ("/v1/completions", "m", 3)
    assert received.headers["x-labs-stamps"] == "1"
    assert received.headers["content-type"] == "application/json"
    assert f"http://{received.headers['host']}/v1" == server.base_url


def test_a_get_is_sent_below_the_base_urls_path_and_ends_with_its_body() -> None:
    async def behave(request: Received, reply: Reply) -> None:
        await reply.refuse(404, b"no such thing", content_type="text/plain")

    with SseServer(behave) as server:
        root = server.base_url.removesuffix("/v1")
        connection = Connection(root)
        for base_url in (root, f"{root}/", f"{root}/below"):
            plan = gets("ramp", base_url=base_url, shapes=(HttpShape("http", 1.0, "/status/404?a=1", 404, 30.0),))
            exchange = Messages(plan).exchange("traffic-0-0", 0, scheduled=0.0, user_index=0, number=0)
            connection.perform(exchange)
            assert (outcome(exchange), bytes(exchange.answer.body)) == ("ok", b"no such thing")
        paths = [received.path for received in server.received]
        assert paths == ["/status/404?a=1", "/status/404?a=1", "/below/status/404?a=1"]
        assert (server.connections, server.received[0].headers["host"]) == (1, root.removeprefix("http://"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the server's certificate")
def test_an_https_server_is_verified_and_streamed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=60
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    with SseServer(completion(), tls=tls) as server:
        stranger = perform(Connection(server.base_url))
        assert outcome(stranger) == "connection_error"
        assert "certificate" in (stranger.error or "").lower()

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        connection = Connection(server.base_url)
        assert [outcome(perform(connection)) for _ in range(2)] == ["ok", "ok"]
