"""What a finished exchange comes to, from the bytes that a server sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from streaming_load.exchange import Answer, Exchange
from streaming_load.ranks import nearest_rank
from streaming_load.records import summarise

from resources.load_generator import RequestRecord

CLOCK = "this-host"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"x-labs-received-ns: 10000000000\r\nx-labs-clock: this-host\r\n\r\n"
)


def text(value: str, finish_reason: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": value, "finish_reason": finish_reason}]}).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 512, "completion_tokens": 3}}\n\n'
DONE = b"data: [DONE]\n\n"


def request(*, scheduled: float = 10.0, sent: float = 10.0, **more: Any) -> Exchange:
    fields: dict[str, Any] = {"request_id": "ramp-2-5", "message": b"", "timeout_s": 60.0, "user_index": 2}
    return Exchange(**{**fields, **more}, scheduled=scheduled, sent=sent)


def exchange(*pieces: bytes, head: bytes = HEAD, ends: bool = True, **more: Any) -> Exchange:
    """An exchange scheduled at 10 s and sent at 10.001 s, whose pieces of body arrived at 11 s, 12 s, …"""
    answer = Answer()
    answer.feed(head)
    done = request(sent=10.001, finished=10.5, answer=answer, **more)
    for stamp, piece in enumerate(pieces, start=11):
        answer.feed(piece)
        done.reads.append((float(stamp), len(answer.body)))
        done.finished = float(stamp)
    if ends:
        answer.feed(b"")
    return done


def record(done: Exchange, clock: str = CLOCK) -> dict[str, Any]:
    made = summarise(done, worker="local", epoch=1000.0, clock=clock)
    RequestRecord(**{"stage": 0, **made}, in_stage=True)  # has every field of the contract, and no other
    return made


CHUNK = b'data: {"choices": [{"text": "a", "finish_reason": %b}], "usage": %b}\n\n'


@pytest.mark.parametrize(
    "event",
    [
        b"data: " + b"[" * 100_000 + b"\n\n",
        CHUNK % (b'{"a": 1}', b"null"),
        CHUNK % (b"null", b'{"prompt_tokens": "many"}'),
        CHUNK % (b"null", b'{"prompt_tokens": 1.5}'),
        CHUNK % (b"null", b'{"completion_tokens": -3}'),
        CHUNK % (b"null", b'{"completion_tokens": 3000000000}'),
    ],
    ids=["deep", "finish reason", "text", "fraction", "negative", "more than a row holds"],
)
def test_an_event_that_no_row_could_hold_is_its_requests_failure_and_not_the_loads(event: bytes) -> None:
    made = record(exchange(text(" a"), event, DONE))
    assert made["outcome"] == "stream_error"
    assert made["error"].startswith("an event is not a completion's chunk: ")
    assert (made["input_tokens"], made["output_tokens"], made["finish_reason"]) == (None, None, None)


def test_a_refusal_of_any_bytes_is_a_refusal() -> None:
    refused = HEAD.replace(b"200 OK", b"500 Oh")
    assert record(exchange(b"[" * 100_000, head=refused))["outcome"] == "http_error"
    made = record(exchange(b'{"error": {"message": "half a \\ud83d character"}}', head=refused))
    assert made["error"].encode() == b"half a ? character"


@pytest.mark.parametrize("stamp", [b"\xb2", b"9" * 5000, b"-1"], ids=["superscript", "endless", "negative"])
def test_a_stamp_that_is_no_time_is_none(stamp: bytes) -> None:
    answer = b": sent_ns=%b\n" % stamp + text(" a", "length")
    assert record(exchange(answer))["receive_lag_p99_s"] is None
    head = HEAD.replace(b"10000000000", stamp)
    assert record(exchange(b": sent_ns=10900000000\n" + text(" a", "length"), head=head))["server_ttft_s"] is None


def test_a_whole_stream_is_ok_with_its_counts_and_an_offset_for_every_event_with_tokens() -> None:
    stamps = b": sent_ns=10900000000\n", b": sent_ns=11500000000\n"
    pieces = stamps[0] + text(" a"), text("") + stamps[1] + text(" b c", "length"), USAGE + DONE
    made = record(exchange(*pieces, turn=10.0, taken_up=10.0005))
    assert made == {
        "request_id": "ramp-2-5",
        "worker": "local",
        "user_index": 2,
        "shape": 0,
        "counted": True,
        "scheduled_at": 1010.0,
        "sent_offset_s": 0.001,
        "finished_offset_s": 3.0,
        "event_offsets_s": [1.0, 2.0],
        "input_tokens": 512,
        "output_tokens": 3,
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": "length",
        "error": None,
        "server_ttft_s": 0.9,
        "client_lag_s": 0.0005,
        "first_receive_lag_s": 0.1,
        "receive_lag_p99_s": 0.5,
    }


def test_a_server_that_does_not_stamp_leaves_the_servers_columns_empty() -> None:
    made = record(exchange(text(" a", "length"), USAGE + DONE, head=b"HTTP/1.1 200 OK\r\n\r\n"))
    assert (made["outcome"], made["server_ttft_s"], made["receive_lag_p99_s"]) == ("ok", None, None)


def test_a_wait_for_a_place_or_a_connection_is_not_the_clients_own_lateness() -> None:
    waited = exchange(text(" a", "length"), USAGE + DONE, turn=10.0008, taken_up=10.0009)
    made = record(waited)
    assert (made["sent_offset_s"], made["client_lag_s"]) == (0.001, 0.0001)
    assert record(exchange(USAGE + DONE, taken_up=10.0009))["client_lag_s"] is None, "it never got a place"


def test_a_server_on_another_clock_has_a_ttft_of_its_own_but_no_receive_lag() -> None:
    made = record(exchange(b": sent_ns=10250000000\n" + text(" a", "length"), USAGE + DONE), clock="another-host")
    assert (made["server_ttft_s"], made["receive_lag_p99_s"]) == (0.25, None)


def test_a_stream_that_breaks_keeps_what_had_arrived() -> None:
    broken = exchange(text(" a"), text(" b")[:-5], ends=False)
    broken.fail("stream_error", "ConnectionResetError: gone")
    made = record(broken)
    assert (made["outcome"], made["error"]) == ("stream_error", "ConnectionResetError: gone")
    assert (made["event_offsets_s"], made["output_tokens"]) == ([1.0], None)


@pytest.mark.parametrize("failure", ["cut", "timeout"])
def test_a_cut_or_late_request_keeps_what_had_arrived(failure: Any) -> None:
    ended = exchange(text(" a"), ends=False)
    ended.fail(failure, "why")
    assert (record(ended)["outcome"], record(ended)["event_offsets_s"]) == (failure, [1.0])


def test_a_refused_connection_has_no_status() -> None:
    refused = request()
    refused.fail("connection_error", "ConnectionRefusedError: no")
    made = record(refused)
    assert (made["outcome"], made["http_status"], made["event_offsets_s"]) == ("connection_error", None, [])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b"<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        (b"x" * 900, "x" * 499 + "…"),
    ],
)
def test_a_refusal_is_an_http_error_with_the_servers_own_words(body: bytes, error: str) -> None:
    made = record(exchange(body, head=b"HTTP/1.1 400 Bad\r\n\r\n"))
    assert (made["outcome"], made["http_status"], made["error"]) == ("http_error", 400, error)


def test_an_error_object_inside_a_stream_is_a_stream_error() -> None:
    made = record(exchange(text(" a"), b'data: {"error": {"message": "engine died"}}\n\n' + DONE))
    assert (made["outcome"], made["error"]) == ("stream_error", "the stream carried an error: engine died")
    assert made["event_offsets_s"] == [1.0]


@pytest.mark.parametrize("data", ["not JSON", "[1]", '"text"', '{"choices": [3]}', '{"choices": 3}'])
def test_an_event_that_is_no_chunk_is_a_stream_error(data: str) -> None:
    made = record(exchange(text(" a"), f"data: {data}\n\n".encode() + DONE))
    assert made["outcome"] == "stream_error"
    assert made["error"] == f"an event is not a completion's chunk: {data}"


def test_an_answer_that_ends_early_or_is_no_stream_is_a_stream_error() -> None:
    assert record(exchange(text(" a")))["outcome"] == "stream_error"
    whole = record(exchange(b'{"choices": []}', head=b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"))
    assert whole["outcome"] == "stream_error"
    assert "application/json" in whole["error"]


def test_a_finish_reason_ends_a_stream_as_well_as_done() -> None:
    assert record(exchange(text(" a", "length"), USAGE))["outcome"] == "ok"
    assert record(exchange(text(" a"), DONE))["outcome"] == "ok"


def test_a_plain_answer_is_ok_when_its_status_is_the_expected_one_whatever_its_body() -> None:
    get = {"streamed": False, "shape": 1, "user_index": None, "stage": 3, "counted": False}
    body = b"data: not a stream, only a text that looks like one"
    made = record(exchange(body, head=b"HTTP/1.1 500 Asked for\r\n\r\n", expect=500, **get))
    assert (made["outcome"], made["http_status"], made["error"], made["finished_offset_s"]) == ("ok", 500, None, 1.0)
    assert (made["shape"], made["user_index"], made["stage"], made["counted"]) == (1, None, 3, False)
    assert (made["event_offsets_s"], made["input_tokens"], made["output_tokens"]) == ([], None, None)
    wrong = record(exchange(b"fine", head=b"HTTP/1.1 200 OK\r\n\r\n", expect=500, **get))
    assert (wrong["outcome"], wrong["http_status"], wrong["error"]) == ("http_error", 200, "fine")


def test_a_plain_answer_that_breaks_off_is_not_ok() -> None:
    broken = exchange(b"half", head=b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n", ends=False, streamed=False)
    broken.fail("stream_error", "ConnectionResetError: gone")
    assert record(broken)["outcome"] == "stream_error"


def test_an_interim_response_is_not_the_answer() -> None:
    answer = Answer()
    answer.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (answer.status, answer.complete) == (None, False)
    answer.feed(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno")
    assert (answer.status, answer.complete, bytes(answer.body)) == (503, True, b"no")


@pytest.mark.parametrize(
    ("body", "breaths"),
    [
        ("".join(f'data: {{"choices": [{{"text": "é{n}"}}]}}\n\n' for n in range(64)).encode(), 4),
        (b"".join(text(" a") for _ in range(257)), 4),
    ],
    ids=["events that are decoded", "events that say the same but for their text"],
)
def test_decoding_makes_room_for_the_streams_every_few_events(body: bytes, breaths: int) -> None:
    taken: list[int] = []
    summarise(
        exchange(body + DONE),
        worker="",
        epoch=0,
        clock="",
        breathe=lambda: taken.append(1),
    )
    assert len(taken) == breaths


def test_nearest_rank_is_a_value_of_the_sample() -> None:
    assert nearest_rank([3.0, 1.0, 2.0], 0.99) == 3.0
    assert nearest_rank([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert nearest_rank([1.0], 0.0) == 1.0
