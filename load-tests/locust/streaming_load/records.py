"""One finished exchange as one flat record: outcome, counts, and the time of every event that carried tokens.

Belongs here: what a request came to. The record has the fields of `resources.load_generator.RequestRecord`, save
`in_stage`, which follows from the stages' own times once the load is over, and so does `stage` in a closed loop.
Doesn't belong here: sockets, files, stages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streaming_load.exchange import Answer, Exchange
from streaming_load.ranks import nearest_rank
from streaming_load.sse import STAMP_DIGITS, Alike, carries_tokens, events

_SLICE = 64
"""Events taken in between two calls of `breathe`, about 0.1 ms; one that is decoded counts for so many:"""
_DECODED = 4
_ERROR_CHARACTERS = 500
_decode = json.JSONDecoder().decode
_NO_CHUNK = (ValueError, AttributeError, TypeError, RecursionError)
"""What comes of JSON that isn't what it should be. It is an outcome of its request, and must not end the load."""
_MOST_TOKENS = 2**31 - 1
"""As many as a row can hold."""


def host_clock() -> str:
    """Names this machine's CLOCK_MONOTONIC; a server that sends the same name reads the same clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def summarise(
    exchange: Exchange,
    *,
    worker: str,
    epoch: float,
    clock: str,
    breathe: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The record of `exchange`.

    `epoch` is Unix time minus `time.monotonic()`; `clock` this machine's `host_clock()`. `breathe` is called every
    few events, so that whoever waits for the processor gets it.
    """
    answer = exchange.answer
    stream = _Stream()
    if exchange.streamed and answer.status == 200:
        stream.read(exchange, breathe)
    outcome, error = _outcome(exchange, stream)
    received_ns = answer.header("x-labs-received-ns")
    return {
        "request_id": exchange.request_id,
        "worker": worker,
        "user_index": exchange.user_index,
        "shape": exchange.shape,
        **({} if exchange.stage is None else {"stage": exchange.stage}),
        "counted": exchange.counted,
        **({} if exchange.asked is None else {"asked_tokens": list(exchange.asked)}),
        "scheduled_at": round(exchange.scheduled + epoch, 6),
        "sent_offset_s": round(exchange.sent - exchange.scheduled, 6),
        "finished_offset_s": round(exchange.finished - exchange.scheduled, 6),
        "event_offsets_s": [round(arrived - exchange.scheduled, 6) for arrived in stream.arrived],
        "input_tokens": stream.usage.get("prompt_tokens"),
        "output_tokens": stream.usage.get("completion_tokens"),
        "outcome": outcome,
        "http_status": answer.status,
        "finish_reason": stream.finish_reason,
        "error": error,
        "server_ttft_s": stream.server_ttft_s(received_ns),
        **_lags(exchange, stream, one_clock=bool(clock) and answer.header("x-labs-clock") == clock),
    }


def _lags(exchange: Exchange, stream: _Stream, *, one_clock: bool) -> dict[str, float | None]:
    """How late this process was. Receiving is told only where the server stamps with the same clock."""
    lags = stream.receive_lags_s() if one_clock else []
    own = None if exchange.turn is None or exchange.taken_up is None else exchange.taken_up - exchange.turn
    return {
        "client_lag_s": None if own is None else round(own, 6),
        "first_receive_lag_s": round(lags[0], 6) if lags else None,
        "receive_lag_p99_s": round(nearest_rank(lags, 0.99), 6) if lags else None,
    }


class _Stream:
    """What a streamed completion said."""

    def __init__(self) -> None:
        self.arrived: list[float] = []
        self.sent_ns: list[int | None] = []
        self.usage: dict[str, Any] = {}
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.done = False

    def read(self, exchange: Exchange, breathe: Callable[[], None]) -> None:
        """Take in every event that arrived; stops at one that isn't a chunk of a completion."""
        answer = exchange.answer
        alike: Alike | None = None
        effort = 0
        for event in events(answer.body, exchange.reads, complete=answer.complete):
            if effort >= _SLICE:
                effort = 0
                breathe()
            if alike is not None and alike.is_like(event.data):
                effort += 1
                self.arrived.append(event.arrived)
                self.sent_ns.append(event.sent_ns)
                continue
            effort += _DECODED
            if event.data == b"[DONE]":
                self.done = True
                continue
            try:
                chunk = _decode(event.data.decode())
                if chunk.get("error") is not None:
                    self.error = _shorten(f"the stream carried an error: {_message(chunk)}")
                    return
                self.usage = _counts(chunk.get("usage")) or self.usage
                if carries_tokens(chunk):
                    self.arrived.append(event.arrived)
                    self.sent_ns.append(event.sent_ns)
                    alike = alike or Alike.to(event.data, chunk)
                for choice in chunk.get("choices") or ():
                    self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
            except _NO_CHUNK:
                self.error = _shorten(f"an event is not a completion's chunk: {event.data.decode(errors='replace')}")
                return

    def server_ttft_s(self, received_ns: str) -> float | None:
        """Both stamps are the server's own, so no clock is compared with another."""
        if not (self.sent_ns and self.sent_ns[0] is not None and received_ns.isascii() and received_ns.isdigit()):
            return None
        if len(received_ns) > STAMP_DIGITS:
            return None
        return round((self.sent_ns[0] - int(received_ns)) / 1e9, 6)

    def receive_lags_s(self) -> list[float]:
        """Arrival behind the server's stamp of sending, of each event that has one."""
        return [
            arrived - sent_ns / 1e9
            for arrived, sent_ns in zip(self.arrived, self.sent_ns, strict=True)
            if sent_ns is not None
        ]


def _outcome(exchange: Exchange, stream: _Stream) -> tuple[str, str | None]:
    answer = exchange.answer
    if exchange.failure in ("cut", "timeout", "connection_error"):
        return exchange.failure, exchange.error
    if answer.status != exchange.expect:
        return "http_error", _refusal(answer)
    if stream.error or exchange.failure:
        return "stream_error", stream.error or exchange.error
    if exchange.streamed and answer.status == 200 and not (stream.done or stream.finish_reason):
        kind = answer.header("content-type") or "no content type"
        return "stream_error", f"the answer ended without finish_reason and [DONE] ({kind}, {len(answer.body)} bytes)"
    return "ok", None


def _refusal(answer: Answer) -> str:
    text = answer.body.decode(errors="replace")
    try:
        return _shorten(_message(json.loads(text)))
    except _NO_CHUNK:
        return _shorten(text)


def _message(body: dict[str, Any]) -> str:
    """An OpenAI error's message; older servers put it at the top level."""
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else error or body.get("message")
    return str(message or body)


def _counts(usage: Any) -> dict[str, Any]:
    """A chunk's usage. Raises `TypeError` where it isn't one."""
    counts = dict(usage or {})
    for name in ("prompt_tokens", "completion_tokens"):
        count = counts.get(name)
        if count is not None and (type(count) is not int or not 0 <= count <= _MOST_TOKENS):
            raise TypeError(name)
    return counts


def _text(value: Any) -> str | None:
    """Raises `TypeError` for what is neither a text nor missing."""
    if value is not None and not isinstance(value, str):
        raise TypeError(value)
    return value and _shorten(value)


def _shorten(text: str) -> str:
    """JSON may escape halves of characters, which no file holds."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _ERROR_CHARACTERS else text[: _ERROR_CHARACTERS - 1] + "…"
