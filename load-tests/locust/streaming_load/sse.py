"""Server-sent events in a response body, each with the time at which it had arrived. Pure.

Belongs here: where an event ends and what it says, as bytes and as a completion's chunk.
Doesn't belong here: sockets (exchange.py), or what a request came to (records.py).

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html. Lines end in LF or CRLF; the lone CR that
the standard allows too is sent by no server that we know of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_SENT = b": sent_ns="


class Event(NamedTuple):
    """One event that carries data."""

    arrived: float
    """The stamp of the read that completed it."""
    data: bytes
    sent_ns: int | None
    """The server's stamp of sending it, where there is one."""


def events(body: bytes | bytearray, reads: Sequence[tuple[float, int]], *, complete: bool) -> Iterator[Event]:
    """Split `body` into its events.

    `reads` are the reads from the socket in order: (stamp, length of the body after it). Several events of one read
    share its stamp. A last event without a blank line counts only when the body is `complete`: else it was cut.
    """
    *lines, unfinished = bytes(body).split(b"\n")
    if complete:
        lines += [unfinished, b""]
    read = position = 0
    data: bytes | None = None
    sent_ns: int | None = None
    for raw in lines:
        position += len(raw) + 1
        line = raw.removesuffix(b"\r")
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            data = value if data is None else data + b"\n" + value
        elif line.startswith(_SENT):
            stamp = line[len(_SENT) :]
            sent_ns = int(stamp) if stamp.isdigit() else None
        elif not line and data is not None:
            while reads[read][1] < min(position, len(body)):
                read += 1
            yield Event(arrived=reads[read][0], data=data, sent_ns=sent_ns)
            data = sent_ns = None


def carries_tokens(chunk: Mapping[str, Any]) -> bool:
    """Whether a completion's chunk brings output: text, or a chat delta with more in it than the role.

    The usage chunk has no choices; a chat's first chunk has only a role.
    """
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("text") or delta.get("content") or delta.get("reasoning_content"):
            return True
    return False
